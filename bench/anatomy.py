"""Where the work of a call goes, and that of a whole client's life: the Python bytecodes, by room.

    .venv/bin/python -m bench.anatomy [--functions]

With ``--functions``, each function of the proxy's that a call enters is listed, and each class of which it
makes objects.

Bytecodes are no microseconds, but they are exact: the same on every machine, and different by one when a
change costs one. What C code does (parsing HTTP, JSON, the event loop, the kernel) is not in them.
"""

import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from e2e.launch import Program, accepts_connections, program_environment, unused_port

from .contenders import COMMAND, PROGRAMS, Stage
from .messages import ECHO, FLOW, Client, Request, check_work, legacy, modern

CALLS = 200
_WARM_UP = 50
_FLAGS = ("--admin-listen", "off", "--log-level", "warning")
_SECONDS = 20.0
_PACKAGE: Final = "/mcp_session_proxy/"
LIBRARIES = "aiohttp and other libraries"


def room(file: str) -> str:
    """The room that a source file is in."""
    _, found, path = file.rpartition(_PACKAGE)
    if found:
        return path.partition("/")[0] if "/" in path else "the leaves"
    return "the pass-through" if file.endswith("/bare.py") else LIBRARIES


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one call takes, on the average.

    ``bytecodes`` is by room. Of the proxy's own alone, ``functions`` gives for each file and name how often
    it is entered and the bytecodes that it takes, and ``objects`` how many are made of each class.
    """

    bytecodes: Mapping[str, float]
    functions: Mapping[tuple[str, str], tuple[float, float]]
    objects: Mapping[str, float]


def tabulate(columns: Mapping[str, Mapping[str, float]]) -> str:
    """A Markdown table: bytecodes by room, one column for each kind of work. Pure."""
    rooms = sorted(
        {name for column in columns.values() for name in column},
        key=lambda name: -max(column.get(name, 0) for column in columns.values()),
    )
    rows = [["", *columns], ["---", *["---:"] * len(columns)]]
    rows += [[name, *(_show(column.get(name)) for column in columns.values())] for name in rooms]
    rows.append(["all", *(_show(sum(column.values())) for column in columns.values())])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def list_work(call: str, work: Work) -> str:
    """The proxy's functions that a call enters, the dearest first, and the objects that it makes. Pure."""
    entered = sum(times for times, _ in work.functions.values())
    made = sum(work.objects.values())
    lines = [f"\n{call}: {entered:.0f} functions are entered and {made:.0f} objects made"]
    for (file, name), (times, number) in sorted(work.functions.items(), key=lambda item: -item[1][1]):
        lines.append(f"{number:7,.0f} {times:4.0f} x  {file} {name}")
    lines += [f"{number:12,.0f} x  {kind}" for kind, number in sorted(work.objects.items())]
    return "\n".join(lines)


def _show(number: float | None) -> str:
    return "" if number is None else f"{number:,.0f}"


class Counted:
    """A contender that counts, before the stub, which is a server or a command."""

    def __init__(self, stage: Stage, folder: Path, name: str) -> None:
        self._file = folder / f"{name}.json"
        port, server = unused_port(), stage.server("stub").url
        self.url = f"http://127.0.0.1:{port}/mcp"
        if name == "bare":
            arguments = ["--port", str(port), server.removesuffix("/mcp")]
        else:
            stub = (sys.executable, str(PROGRAMS / "stub.py"), "--stdio")
            before = ("--stdio", "--", *stub) if name == COMMAND else (server,)
            arguments = ["serve", "--listen", f"127.0.0.1:{port}", *_FLAGS, *before]
            name = "proxy"
        home = folder / f"{port}"
        home.mkdir()
        script = str(PROGRAMS / "counted.py")
        self._program = Program(
            name=name,
            command=[sys.executable, script, str(self._file), name, *arguments],
            log=home / "output.log",
            environment=program_environment(home, {}),
        )
        self._program.start(lambda: accepts_connections(port))

    def stop(self) -> None:
        """End it."""
        self._program.kill()

    def count(self, request: Request) -> Work:
        """What a call takes."""
        check_work(self.url, request, ECHO)
        return self._count(lambda client: client.send(request))

    def count_flow(self, flow: Sequence[Request]) -> Work:
        """What a whole client's life takes."""
        return self._count(lambda client: client.live(flow))

    def _count(self, act: Callable[[Client], object]) -> Work:
        assert self._program.process is not None
        pid = self._program.process.pid
        with Client(self.url) as client:
            for _ in range(_WARM_UP):
                act(client)
            os.kill(pid, signal.SIGUSR1)
            act(client)  # the signal is heard when the event loop turns
            for _ in range(CALLS):
                act(client)
            os.kill(pid, signal.SIGUSR2)
            act(client)
        return read_work(self._result())

    def _result(self) -> bytes:
        deadline = time.monotonic() + _SECONDS
        while not self._file.exists():
            if time.monotonic() > deadline:
                raise AssertionError("the counts were not written")
            time.sleep(0.01)
        found = self._file.read_bytes()
        self._file.unlink()
        return found


def read_work(found: bytes) -> Work:
    """What ``programs/counted.py`` has counted in ``CALLS`` calls, without what not all of them do. Pure."""
    counts = json.loads(found)
    bytecodes: Counter[str] = Counter()
    functions = {}
    for file, name, entered, number in counts["functions"]:
        bytecodes[room(file)] += number
        if entered >= CALLS and _PACKAGE in file:
            place = file.rpartition(_PACKAGE)[2], name
            functions[place] = entered / CALLS, number / CALLS
    return Work(
        bytecodes={name: number / CALLS for name, number in bytecodes.items() if number >= CALLS},
        functions=functions,
        objects={
            name: number / CALLS
            for module, name, number in counts["objects"]
            if number >= CALLS and module.startswith("mcp_session_proxy.")
        },
    )


def measure() -> Mapping[str, Work]:
    """What each kind of call takes, and the flow."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        stage = Stage(folder)
        counted: list[Counted] = []
        try:
            bare = Counted(stage, folder, "bare")
            counted.append(bare)
            proxy = Counted(stage, folder, "proxy")
            counted.append(proxy)
            command = Counted(stage, folder, COMMAND)
            counted.append(command)
            with Client(stage.server("stub").url) as direct, Client(proxy.url) as client:
                own, session = direct.open_session(), client.open_session()
            return {
                "bare": bare.count(legacy(ECHO, own)),
                "session-less": proxy.count(legacy(ECHO)),
                "client session": proxy.count(legacy(ECHO, session)),
                "modern": proxy.count(modern(ECHO)),
                "flow": proxy.count_flow(FLOW),
                "before a command": command.count(legacy(ECHO)),
            }
        finally:
            for one in counted:
                one.stop()
            stage.stop_all()


def main(arguments: Sequence[str] = ()) -> None:
    """Print the table."""
    works = measure()
    print(tabulate({name: work.bytecodes for name, work in works.items()}))
    if "--functions" in arguments:
        for name, work in works.items():
            print(list_work(name, work))


if __name__ == "__main__":
    main(sys.argv[1:])
