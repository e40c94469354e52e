"""Load by wrk: writes what it shall send, runs it, reads what it says."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .messages import Request

LUA = Path(__file__).resolve().parent / "lua"
_TIMEOUT_SECONDS = 10
_GRACE_SECONDS = 30.0


class LoadError(Exception):
    """wrk could not be run, or said nothing that makes sense."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """What wrk says of one run. `refused` answers had an error status, `broken` connections no answer."""

    requests: int
    seconds: float
    bytes: int
    refused: int
    broken: int
    p50_ms: float
    p99_ms: float
    flow: bool = False
    flows: int = 0
    flow_seconds: float = 0.0

    @property
    def failed(self) -> str:
        """Why this run is no measurement; empty when it is one."""
        if self.refused or self.broken:
            return f"{self.refused} errors and {self.broken} broken connections in {self.requests} answers"
        if self.flow and not self.flows:
            return "no flow came to its end"
        return "" if self.requests else "no answers"

    @property
    def per_second(self) -> float:
        """Answers per second."""
        return self.requests / self.seconds


def lua_string(text: str) -> str:
    """A Lua literal of any text."""
    level = "="
    while f"]{level}]" in text or text.endswith(f"]{level}"):
        level += "="
    # Lua drops a line break that comes first.
    return f"[{level}[\n{text}]{level}]"


def lua_requests(requests: Sequence[Request]) -> str:
    """A Lua file that returns the requests."""

    def write(request: Request) -> str:
        # The blanks keep a long bracket from running into the one around it.
        headers = ", ".join(
            f"[ {lua_string(name)} ] = {lua_string(value)}" for name, value in request.headers.items()
        )
        accept = ", ".join(f"[{status}] = true" for status in request.accept)
        return (
            f"{{ method = {lua_string(request.method)}, headers = {{ {headers} }}, "
            f"body = {lua_string(request.body) if request.body else 'nil'}, "
            f"accept = {{ {accept} }}, expect = {lua_string(request.expect)} }},"
        )

    return "\n".join(["return {", *(write(request) for request in requests), "}", ""])


def parse(output: str) -> Load:
    """Read the line that the scripts print at the end. Raises LoadError."""
    line = next((line for line in output.splitlines() if line.startswith("bench ")), None)
    if line is None:
        raise LoadError(f"wrk printed no figures:\n{output[-2000:]}")
    said = {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", line)}
    return Load(
        requests=said["requests"],
        seconds=said["microseconds"] / 1e6,
        bytes=said["bytes"],
        refused=said["refused"],
        broken=said["broken"],
        p50_ms=said["p50"] / 1e3,
        p99_ms=said["p99"] / 1e3,
        flow="flows" in said,
        flows=said.get("flows", 0),
        flow_seconds=said.get("flow_microseconds", 0) / 1e6,
    )


def run(
    url: str,
    requests: Sequence[Request],
    *,
    connections: int,
    seconds: int,
    script: str = "requests",
    threads: int = 1,
) -> Load:
    """Send the requests in turns over so many connections for so long. Raises LoadError."""
    wrk = shutil.which("wrk")
    if wrk is None:
        raise LoadError("wrk is not on the PATH: run `make bench`, which installs it, or install it yourself")
    with tempfile.NamedTemporaryFile("w", prefix="bench-", suffix=".lua") as file:
        file.write(lua_requests(requests))
        file.flush()
        environment: Mapping[str, str] = {**os.environ, "BENCH_REQUESTS": file.name}
        options = [f"-t{threads}", f"-c{connections}", f"-d{seconds}s", f"--timeout={_TIMEOUT_SECONDS}s"]
        try:
            done = subprocess.run(
                [wrk, *options, "-s", str(LUA / f"{script}.lua"), url],
                check=False,
                env=environment,
                capture_output=True,
                text=True,
                timeout=seconds + _GRACE_SECONDS,
            )
        except subprocess.TimeoutExpired:
            raise LoadError(f"wrk did not end {_GRACE_SECONDS:.0f} s after it should have") from None
    if done.returncode:
        raise LoadError(f"wrk exited with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")
    return parse(done.stdout)
