"""Runs the demonstration's server in a process of its own, as an operator would run theirs."""

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import IO, Final

_START_TIMEOUT_SECONDS: Final = 30.0
_STOP_TIMEOUT_SECONDS: Final = 5.0
_INSTALL: Final = 'pip install "mcp-session-proxy[demo]"'


class DemoError(Exception):
    """The demonstration cannot be given. The text says why, and what to do."""


@asynccontextmanager
async def run_server() -> AsyncIterator[str]:
    """Run the server for as long as the block; gives its endpoint's URL.

    Raises:
        DemoError: the server's packages are missing, or it did not start.
    """
    if find_spec("mcp") is None:
        raise DemoError(f"The demo's server needs the package mcp. Install it with: {_INSTALL}")
    with tempfile.TemporaryFile() as complaints:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "mcp_session_proxy.demo.server"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=complaints,
            # A Ctrl-C is for us; the server ends when we close its standard input.
            start_new_session=True,
        )
        try:
            yield await _read_url(process, complaints)
        finally:
            await _stop(process)


async def _read_url(process: asyncio.subprocess.Process, complaints: IO[bytes]) -> str:
    assert process.stdout is not None
    try:
        async with asyncio.timeout(_START_TIMEOUT_SECONDS):
            url = (await process.stdout.readline()).decode().strip()
    except TimeoutError:
        raise DemoError(f"The demo's server said nothing for {_START_TIMEOUT_SECONDS:.0f} s.") from None
    if not url:
        complaints.seek(0)
        last_lines = complaints.read().decode(errors="replace").strip().splitlines()[-1:]
        raise DemoError(f"The demo's server did not start: {' '.join(last_lines)}\nTry: {_INSTALL}")
    return url


async def _stop(process: asyncio.subprocess.Process) -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        async with asyncio.timeout(_STOP_TIMEOUT_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
