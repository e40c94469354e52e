"""The program and those who run it: SIGHUP, systemd, a terminal that goes away."""

import asyncio
import json
import os
import pty
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from http_server import HttpServer
from messages import call

pytestmark = pytest.mark.slow

SETTLED_SECONDS = 30


@pytest.fixture
def write_file(tmp_path: Path, server: HttpServer) -> Callable[..., Path]:
    """Writes the configuration of a proxy in front of the server."""

    def write(**options: str) -> Path:
        fixed = {
            "upstream": server.url,
            "listen": "127.0.0.1:0",
            "admin-listen": "off",
            "announce": str(tmp_path / "announced.json"),
            "log-format": "json",
        }
        lines = [f"{key} = {json.dumps(value)}\n" for key, value in {**fixed, **options}.items()]
        path = tmp_path / "proxy.toml"
        path.write_text("".join(lines))
        return path

    return write


@asynccontextmanager
async def running(path: Path, **environment: str) -> AsyncIterator[Process]:
    """The program with this configuration."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mcp_session_proxy", "serve", "--config", str(path)),
        env={**os.environ, **environment},
        stderr=PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def event(process: Process, name: str) -> dict[str, object]:
    """The next log event of this name."""
    assert process.stderr is not None
    async with asyncio.timeout(SETTLED_SECONDS):
        while line := await process.stderr.readline():
            if line.startswith(b"{") and (entry := json.loads(line))["event"] == name:
                return entry
    raise EOFError(name)


async def test_hangup_reads_the_file_again(write_file, tmp_path, server):
    """A right file changes what it can, a wrong one changes nothing, and the program serves on."""
    async with running(write_file(**{"delete-status": "405"})) as process:
        await event(process, "proxy.started")
        write_file(**{"delete-status": "204", "sharing": "shared"})
        process.send_signal(signal.SIGHUP)
        reloaded = await event(process, "config.reloaded")
        assert (reloaded["changed"], reloaded["needs_restart"]) == ("delete-status", "sharing")
        url = json.loads((tmp_path / "announced.json").read_text())["endpoint"]
        async with aiohttp.ClientSession() as http, http.delete(url) as response:
            assert response.status == 204
        write_file(**{"delete-status": "404"})
        process.send_signal(signal.SIGHUP)
        failed = await event(process, "config.reload_failed")
        assert str(failed["problem"]).startswith("delete-status in ")
        async with aiohttp.ClientSession() as http:
            async with http.delete(url) as response:
                assert response.status == 204
            async with http.post(url, json=call()) as response:
                assert response.status == 200
        process.terminate()
        assert await process.wait() == 0


class Systemd:
    """The socket on which a service manager listens."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(str(path))

    async def hear(self) -> dict[str, str]:
        """What the service says next."""
        async with asyncio.timeout(SETTLED_SECONDS):
            data = await asyncio.get_running_loop().sock_recv(self._socket, 4096)
        return dict(line.split("=", 1) for line in data.decode().splitlines())

    async def hear_of(self, key: str) -> dict[str, str]:
        """The next that it says about this."""
        while key not in (heard := await self.hear()):
            pass
        return heard

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def systemd(tmp_path: Path):
    systemd = Systemd(tmp_path / "notify")
    yield systemd
    systemd.close()


async def test_systemd_hears_of_everything(write_file, tmp_path, systemd, server):
    """Ready once it listens, reloading and ready again, stopping at the end."""
    async with running(write_file(), NOTIFY_SOCKET=str(systemd.path)) as process:
        heard = await systemd.hear()
        url = json.loads((tmp_path / "announced.json").read_text())["endpoint"]
        assert heard == {"READY": "1", "STATUS": f"Serving {url} in front of {server.url}"}
        async with aiohttp.ClientSession() as http, http.post(url, json=call()) as response:
            assert response.status == 200
        process.send_signal(signal.SIGHUP)
        heard = await systemd.hear()
        assert heard["RELOADING"] == "1"
        assert heard["MONOTONIC_USEC"].isdecimal()
        assert (await systemd.hear())["READY"] == "1"
        process.terminate()
        assert (await systemd.hear())["STOPPING"] == "1"
        assert await process.wait() == 0


async def test_a_reload_that_fails_is_over_all_the_same(write_file, systemd):
    """systemd does not wait for ever for a file to become right."""
    async with running(path := write_file(), NOTIFY_SOCKET=str(systemd.path)) as process:
        await systemd.hear_of("READY")
        path.write_text("[")
        process.send_signal(signal.SIGHUP)
        await systemd.hear_of("RELOADING")
        await systemd.hear_of("READY")


async def test_the_watchdog_is_fed(write_file, systemd):
    """Again and again, and not by a program that is stopped."""
    environment = {"NOTIFY_SOCKET": str(systemd.path), "WATCHDOG_USEC": "10000000"}
    async with running(write_file(), **environment) as process:
        for _ in range(2):
            await systemd.hear_of("WATCHDOG")
        process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(0.1)
        while True:  # what it had said before
            try:
                systemd._socket.recv(4096)
            except BlockingIOError:
                break
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2):
                await systemd.hear()
        process.send_signal(signal.SIGCONT)
        await systemd.hear_of("WATCHDOG")


async def test_a_terminal_that_is_closed(write_file):
    """Whoever closes the window does not leave a program behind that holds the port."""
    path = write_file()
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-m", "mcp_session_proxy", "serve", "--config", str(path)])
    try:
        seen = b""
        async with asyncio.timeout(SETTLED_SECONDS):
            while b"  admin " not in seen:
                seen += await asyncio.to_thread(os.read, terminal, 4096)
        os.close(terminal)
        async with asyncio.timeout(SETTLED_SECONDS):
            while (status := os.waitpid(pid, os.WNOHANG)) == (0, 0):
                await asyncio.sleep(0.01)
        pid = 0
        assert os.waitstatus_to_exitcode(status[1]) == 0
    finally:
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
