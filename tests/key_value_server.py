"""Real key-value servers for tests: Redis, and Valkey where there is one, each with nothing on the disk."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

_PATH = f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin"
PROGRAMS = [name for name in ("redis-server", "valkey-server") if shutil.which(name, path=_PATH)]
ANY = PROGRAMS[0] if PROGRAMS else None
needs_one = pytest.mark.skipif(ANY is None, reason="redis-server is not installed: run `make envs`")
_PATIENCE_SECONDS = 30.0


def unused_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


class KeyValueServer:
    """One server, on a unix socket; on a port of this machine as well if ``port`` says which.

    ``options`` are its own, by their names; ``prefix`` is a command that becomes the server.
    """

    def __init__(
        self,
        folder: Path,
        program: str | None = None,
        *,
        port: int = 0,
        prefix: Sequence[str] = (),
        **options: Any,
    ) -> None:
        self.folder = folder
        self.port = port
        # The path of a socket is short, and that of a test's folder long.
        self._short = tempfile.TemporaryDirectory(prefix="kv-")
        self.socket = Path(self._short.name) / "s"
        self._prefix = prefix
        self._options = {"maxclients": 100, **options}
        self._program = shutil.which(program or ANY or "redis-server", path=_PATH)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """For ``--store``."""
        return f"unix://{self.socket}"

    def start(self) -> None:
        """Run it, empty, until it answers."""
        assert self._program is not None, "redis-server is not installed: run `make envs`"
        fixed = {
            "port": self.port,
            "bind": "127.0.0.1",
            "unixsocket": self.socket,
            "dir": self.folder,
            "save": "",
            "appendonly": "no",
            "daemonize": "no",
        }
        command = [*self._prefix, self._program]
        if "sentinel" in self._options:
            # It keeps what it learns in its file, and knows nothing of data.
            fixed = {name: fixed[name] for name in ("port", "bind", "unixsocket", "daemonize")}
            command += [str(self._options.pop("sentinel")), "--sentinel"]
            self._options.pop("maxclients")
        for name, value in (fixed | self._options).items():
            command += [f"--{name.replace('_', '-')}", str(value)]
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not self._answers():
            assert self._process.poll() is None, (self.folder / "server.log").read_text()
            assert time.monotonic() < deadline, "it does not start"
            time.sleep(0.01)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.socket))
            return True
        return False

    def stop(self) -> None:
        """End it, as if it were killed: nothing of what it held is left."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait()
            self._process = None
            self.socket.unlink(missing_ok=True)

    def pause(self) -> None:
        """It does nothing more for now; what is sent to it waits."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """It goes on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End it, and clear away its socket."""
        self.stop()
        self._short.cleanup()

    def ask(self, *words: str | int) -> Any:
        """What it answers to a command, asked by an administrator."""
        from redis import Redis

        with Redis(unix_socket_path=str(self.socket), protocol=2) as client:
            return client.execute_command(*words)

    def dump(self) -> dict[bytes, Any]:
        """All that it holds, by key."""
        read = {
            b"string": ("GET",),
            b"hash": ("HGETALL",),
            b"zset": ("ZRANGE", 0, -1, "WITHSCORES"),
        }
        found = {}
        for key in self.ask("KEYS", "*"):
            verb, *rest = read[self.ask("TYPE", key)]
            found[key] = self.ask(str(verb), key, *rest)
        return found


@contextlib.contextmanager
def running(folder: Path, program: str | None = None, **options: Any) -> Iterator[KeyValueServer]:
    """A server that runs for as long as it is needed."""
    server = KeyValueServer(folder, program, **options)
    server.start()
    try:
        yield server
    finally:
        server.close()


class Watched(NamedTuple):
    """Two servers, of which a Sentinel says that the first one is the primary of ``main``."""

    one: KeyValueServer
    two: KeyValueServer
    watch: KeyValueServer


@contextlib.contextmanager
def watched(folder: Path, **options: Any) -> Iterator[Watched]:
    """They run for as long as they are needed; the options are those of the two."""
    ports = [unused_port() for _ in range(3)]
    folders = [folder / name for name in ("one", "two", "watch")]
    for each in folders:
        each.mkdir()
    config = folders[2] / "sentinel.conf"
    config.write_text(f"sentinel monitor main 127.0.0.1 {ports[0]} 1\n")
    with (
        running(folders[0], port=ports[0], **options) as one,
        running(folders[1], port=ports[1], **options) as two,
        running(folders[2], port=ports[2], sentinel=config) as watch,
    ):
        yield Watched(one, two, watch)
