"""The systemd units: what systemd says of them, and whether the program can live with what they leave."""

import asyncio
import contextlib
import http.client
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from e2e.launch import TESTS, environment, get, program_environment, unused_port

from mcp_session_proxy.settings.config import load

from .room import Room, why_not

pytestmark = pytest.mark.e2e

UNIT = TESTS.parent / "deploy" / "systemd" / "mcp-session-proxy.service"
SOCKETS = (UNIT.with_suffix(".socket"), UNIT.with_name("mcp-session-proxy-admin.socket"))
EXAMPLE = UNIT.with_name("proxy.toml")
PROGRAM = "/opt/mcp-session-proxy/bin/mcp-session-proxy"
NOBODY = 65534


def settings() -> dict[str, list[str]]:
    """The lines of the unit's [Service] section."""
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text().partition("[Service]")[2].partition("[Install]")[0].splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze, which needs no running systemd for this."""
    environment("systemd")
    tool = shutil.which("systemd-analyze")
    assert tool is not None
    return subprocess.run([tool, *arguments], capture_output=True, text=True)


def test_systemd_accepts_it(tmp_path: Path) -> None:
    """Every line is known and means something, and a line that does not is told."""
    fine, wrong = tmp_path / "fine.service", tmp_path / "wrong.service"
    text = UNIT.read_text().replace(PROGRAM, sys.executable)
    fine.write_text(text)
    wrong.write_text(text.replace("ProtectSystem=strict", "ProtectSystem=strictly"))
    accepted = analyze("verify", "--man=no", str(fine))
    assert (accepted.returncode, accepted.stderr) == (0, "")
    assert "strictly" in analyze("verify", "--man=no", str(wrong)).stderr


def test_systemd_accepts_its_sockets(tmp_path: Path) -> None:
    """Together with the unit that they are for; and a line that means nothing is told."""
    for path in (UNIT, *SOCKETS):
        (tmp_path / path.name).write_text(path.read_text().replace(PROGRAM, sys.executable))
    names = [str(tmp_path / path.name) for path in (UNIT, *SOCKETS)]
    accepted = analyze("verify", "--man=no", *names)
    assert (accepted.returncode, accepted.stderr) == (0, "")
    wrong = tmp_path / SOCKETS[0].name
    wrong.write_text(wrong.read_text().replace("ListenStream=127.0.0.1:8080", "ListenStream=somewhere:x"))
    assert "somewhere" in analyze("verify", "--man=no", *names).stderr


def test_systemd_accepts_what_differs_for_a_command(tmp_path: Path) -> None:
    """Beside the unit; memory and processes are bounded, and one child's end is not everybody's."""
    beside = UNIT.with_name("stdio.conf").read_text().replace(PROGRAM, sys.executable)
    place = tmp_path / f"{UNIT.name}.d" / "stdio.conf"
    place.parent.mkdir()
    place.write_text(beside)
    (tmp_path / UNIT.name).write_text(UNIT.read_text().replace(PROGRAM, sys.executable))
    accepted = analyze("verify", "--man=no", str(tmp_path / UNIT.name))
    assert (accepted.returncode, accepted.stderr) == (0, "")
    assert {"MemoryMax=4G", "TasksMax=1024", "OOMPolicy=continue"} <= set(beside.splitlines())
    place.write_text(beside.replace("OOMPolicy=continue", "OOMPolicy=go-on"))
    assert "go-on" in analyze("verify", "--man=no", str(tmp_path / UNIT.name)).stderr


def test_the_sockets_are_those_of_the_example() -> None:
    """With and without them, the proxy is found at the same addresses."""
    example = load({"config": str(EXAMPLE)})
    found = [
        dict(line.split("=", 1) for line in path.read_text().splitlines() if "=" in line) for path in SOCKETS
    ]
    assert [each["ListenStream"] for each in found] == [str(example.listen), str(example.admin_listen)]
    assert [each["FileDescriptorName"] for each in found] == ["public", "admin"]
    assert {each["Service"] for each in found} == {UNIT.name}
    assert settings()["Sockets"] == [" ".join(path.name for path in SOCKETS)]


def test_systemd_starts_it_when_somebody_comes(tmp_path: Path) -> None:
    """systemd's own launcher: who comes first is served by a program that did not run yet."""
    environment("systemd")
    launcher = shutil.which("systemd-socket-activate")
    assert launcher is not None
    public, admin = unused_port(), unused_port()
    command = [
        *(launcher, f"--listen=127.0.0.1:{public}", f"--listen=127.0.0.1:{admin}", "--fdname=public:admin"),
        *(sys.executable, "-m", "mcp_session_proxy", "serve", "http://127.0.0.1:1/mcp"),
    ]
    with (tmp_path / "log").open("wb") as log:
        variables = program_environment(tmp_path / "home", {"PYTHONPATH": os.environ.get("PYTHONPATH", "")})
        # The launcher gives its variables on by name only.
        passed = [f"--setenv={name}" for name in variables]
        process = subprocess.Popen([*command[:1], *passed, *command[1:]], env=variables, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while (status := get(f"http://127.0.0.1:{admin}/healthz", 30)[0]) != 200:
            assert status == 0, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.1)
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", public, timeout=30)) as client:
            client.request("OPTIONS", "/mcp")
            assert client.getresponse().status == 204
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


def test_it_is_hardened() -> None:
    """systemd's own measure of exposure, from 0 to 10, is under 2."""
    judged = analyze("security", "--offline=true", "--threshold=20", str(UNIT))
    assert judged.returncode == 0, judged.stdout
    assert analyze("security", "--offline=true", "--threshold=5", str(UNIT)).returncode != 0


def test_it_may_take_longer_to_stop_than_the_proxy_drains() -> None:
    """Otherwise systemd kills it in the middle of a drain."""
    drain = load({"upstream": "http://127.0.0.1/mcp", "config": str(EXAMPLE)}).drain_timeout
    assert float(settings()["TimeoutStopSec"][0]) >= drain + 10


def test_sessions_outlive_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    """systemd gives it a directory of its own, where it keeps them without another option."""
    (name,) = settings()["StateDirectory"]
    assert settings()["StateDirectoryMode"] == ["0700"]
    monkeypatch.setenv("STATE_DIRECTORY", f"/var/lib/{name}")
    assert load({"config": str(EXAMPLE)}).state_directory == Path("/var/lib/mcp-session-proxy")


def test_the_example_is_a_configuration() -> None:
    """The file that the unit names is written as the program wants it."""
    (command,) = settings()["ExecStart"]
    words = shlex.split(command)
    assert words == [PROGRAM, "serve", "--config", "/etc/mcp-session-proxy/proxy.toml"]
    assert load({"config": str(EXAMPLE)}).upstream == "http://127.0.0.1:8000/mcp"


@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
async def test_the_program_can_live_with_it(tmp_path: Path) -> None:
    """With no user of its own, no other system calls, address families or writable code than the unit allows.

    It tells systemd that it is ready, that it is alive, that it reads its configuration again, that it stops.
    """
    port, admin = unused_port(), unused_port()
    unit = settings()
    text = EXAMPLE.read_text().replace("127.0.0.1:8080", f"127.0.0.1:{port}")
    text = text.replace("127.0.0.1:9090", f"127.0.0.1:{admin}")
    told = program_environment(tmp_path / "home") | {
        "NOTIFY_SOCKET": f"@{tmp_path}",
        "WATCHDOG_USEC": "200000",
        **dict(each.split("=", 1) for each in unit["Environment"]),
    }
    (tmp_path / "room").mkdir()
    log = tmp_path / "log"
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
        Room(tmp_path / "room", own_network=False) as room,
    ):
        manager.bind(f"\0{tmp_path}")
        manager.setblocking(False)
        room.open_to_all(Path(sys.executable), Path(sys.base_prefix, "bin", "python"))
        (room.files / "filter.json").write_text(json.dumps(_rules(unit)))
        (room.files / "proxy.toml").write_text(text)
        room.freeze()
        confined = [sys.executable, str(TESTS / "deploy" / "confined.py"), "/filter.json"]
        program = [sys.executable, "-m", "mcp_session_proxy", "serve", "--config", "/proxy.toml"]
        with room.first_process([*confined, *program], user=NOBODY, variables=told, log=log) as first:
            await _hear(manager, "READY=1")
            await _hear(manager, "WATCHDOG=1")
            status = Path(f"/proc/{first.pid}/status").read_text()
            assert re.search(rf"^Uid:\s+{NOBODY}\b", status, re.MULTILINE)
            assert re.search(r"^Seccomp:\s+2$", status, re.MULTILINE)
            assert get(f"http://127.0.0.1:{admin}/healthz")[0] == 200
            assert (await asyncio.to_thread(get, f"http://127.0.0.1:{port}/mcp"))[0] != 0
            first.send(signal.SIGHUP)
            await _hear(manager, "RELOADING=1")
            await _hear(manager, "READY=1")
            first.send(signal.SIGTERM)
            await _hear(manager, "STOPPING=1")
            assert first.wait(60) == 0, log.read_text()


@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
def test_what_it_forbids_fails(tmp_path: Path) -> None:
    """The test above would notice: forbidden address families, system calls and writable code are refused."""
    (tmp_path / "filter.json").write_text(json.dumps(_rules(settings())))
    attempts = """
import errno, mmap, os, socket
def refused(act):
    try:
        act()
    except OSError as error:
        return error.errno == errno.EPERM
    return False
print(
    refused(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)),
    refused(lambda: os.chroot("/")),
    refused(lambda: os.sched_setaffinity(0, {0})),
    refused(lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC)),
    refused(lambda: socket.socket()),
)
"""
    done = subprocess.run(
        [
            *(sys.executable, str(TESTS / "deploy" / "confined.py"), str(tmp_path / "filter.json")),
            *(sys.executable, "-c", attempts),
        ],
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("True True True True False\n", "")


async def _hear(manager: socket.socket, line: str) -> None:
    """Wait until systemd would hear this."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(30):
        while line not in (await loop.sock_recv(manager, 4096)).decode().splitlines():
            pass


def _rules(unit: dict[str, list[str]]) -> dict[str, object]:
    """What the unit allows, in the words of `confined.py`."""
    allowed = _calls("@default")
    for line in unit["SystemCallFilter"]:
        words = line.removeprefix("~").split()
        named = {call for word in words for call in _calls(word)}
        allowed = allowed - named if line.startswith("~") else allowed | named
    (families,) = unit["RestrictAddressFamilies"]
    return {
        "syscalls": sorted(allowed),
        "families": families.split(),
        "deny_writable_code": unit["MemoryDenyWriteExecute"] == ["yes"],
    }


def _calls(word: str) -> set[str]:
    """The system calls of a group, groups within it included."""
    if not word.startswith("@"):
        return {word}
    lines = (line.strip() for line in analyze("syscall-filter", word).stdout.splitlines()[1:])
    return {call for line in lines if line and not line.startswith("#") for call in _calls(line)}
