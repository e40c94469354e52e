"""Real servers that speak over stdio, behind the proxy, with real clients before it."""

import asyncio
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from .launch import SERVERS, Fleet, Proxy, node, node_module, python
from .run import EVERYTHING, FULL, PINNED, Run, check_everything
from .wire import Caller

pytestmark = pytest.mark.e2e

OFFICIAL = "@modelcontextprotocol"


@dataclass(frozen=True, kw_only=True)
class Stdio:
    """A server that is a command: two calls, of which the second one's answer shows what the first has done.

    ``{home}`` in its words stands for a directory of the test's own.
    """

    words: Callable[[], Sequence[str]]
    options: Sequence[str] = ()
    first: tuple[str, dict[str, Any]]
    then: tuple[str, dict[str, Any]]
    answer: str


def _official(name: str) -> Callable[[], list[str]]:
    return lambda: [node(), node_module(f"{OFFICIAL}/{name}/dist/index.js", "stdio")]


THOUGHT = {"thought": "Hm.", "thoughtNumber": 1, "totalThoughts": 2, "nextThoughtNeeded": True}
KINDS = {
    "memory": Stdio(
        words=_official("server-memory"),
        options=("--stdio-env", "MEMORY_FILE_PATH={home}/memory.jsonl"),
        first=(
            "create_entities",
            {"entities": [{"name": "Ada", "entityType": "person", "observations": ["counts"]}]},
        ),
        then=("read_graph", {}),
        answer="Ada",
    ),
    "filesystem": Stdio(
        words=lambda: [*_official("server-filesystem")(), "."],
        options=("--stdio-cwd", "{home}/{session}"),
        first=("write_file", {"path": "note.txt", "content": "remember me"}),
        then=("read_text_file", {"path": "note.txt"}),
        answer="remember me",
    ),
    "sequential-thinking": Stdio(
        words=_official("server-sequential-thinking"),
        first=("sequentialthinking", THOUGHT),
        then=("sequentialthinking", {**THOUGHT, "thoughtNumber": 2}),
        answer='"thoughtHistoryLength": 2',
    ),
    "everything": Stdio(
        words=lambda: [node(), node_module(f"{OFFICIAL}/server-everything/dist/index.js"), "stdio"],
        first=("echo", {"message": "one"}),
        then=("echo", {"message": "two"}),
        answer="two",
    ),
    "fastmcp-python": Stdio(
        words=lambda: [python("mcp-1.30"), str(SERVERS / "counter_server.py"), "--stdio"],
        first=("increment", {}),
        then=("increment", {}),
        answer="2",
    ),
}


@pytest.fixture
def start(owned: Fleet, tmp_path: Path) -> Callable[..., Proxy]:
    """Starts the proxy before a server of a kind, with further options."""

    def make(kind: str, *options: str) -> Proxy:
        chosen = KINDS[kind]
        given = [each.replace("{home}", str(tmp_path)) for each in (*chosen.options, *options)]
        return owned.new_stdio_proxy(chosen.words(), *given)

    return make


def children(proxy: Proxy) -> int:
    """How many there are."""
    return int(proxy.metrics()["children"])


def environment_of(pid: int) -> dict[str, str]:
    """The variables of a process."""
    pairs = (each.partition("=") for each in Path(f"/proc/{pid}/environ").read_text().split("\0") if each)
    return {name: value for name, _, value in pairs}


def pids(proxy: Proxy) -> list[int]:
    """The processes that the proxy has started."""
    assert proxy.program.process is not None
    parent = proxy.program.process.pid
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


@pytest.mark.share(2)
@pytest.mark.parametrize("kind", KINDS)
async def test_a_session_for_each_call(kind: str, start: Callable[..., Proxy], run: Run) -> None:
    """LangChain's client has a session for each call, and finds what the call before has done."""
    proxy, server = start(kind), KINDS[kind]
    (seen,) = await run.client("langchain", proxy.url, "ada", [server.first, server.then])
    assert server.answer in seen["answers"][1]
    assert children(proxy) == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_no_session_at_all(kind: str, start: Callable[..., Proxy], http: aiohttp.ClientSession) -> None:
    """So it is for one that names none, on the wire."""
    proxy, server = start(kind), KINDS[kind]
    caller = Caller(http, proxy.url)
    for name, arguments in (server.first, server.then):
        reply = await caller.call(name, arguments)
    assert server.answer in reply.text
    assert children(proxy) == 1


@pytest.mark.share(3)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("client", PINNED)
async def test_modern_clients(kind: str, client: str, start: Callable[..., Proxy], run: Run) -> None:
    """And for those that only speak the revision without sessions."""
    proxy, server = start(kind), KINDS[kind]
    (seen,) = await run.client(client, proxy.url, "ada", [server.first, server.then])
    assert server.answer in seen["answers"][1]
    assert children(proxy) == 1


@pytest.mark.share(2)
@pytest.mark.parametrize("client", FULL)
async def test_server_to_client_features(client: str, start: Callable[..., Proxy], run: Run) -> None:
    """Progress, logs, elicitation, sampling, roots and resource updates reach the client."""
    proxy = start("fastmcp-python")
    (seen,) = await run.client(client, proxy.url, "ada", EVERYTHING, full=True)
    check_everything(seen)


async def test_two_callers(start: Callable[..., Proxy], http: aiohttp.ClientSession) -> None:
    """Each has a process of its own, with its own variable, and neither sees the other's state."""
    proxy = start("memory", "--stdio-env-from-header", "X-Memory=MEMORY_FILE_PATH")
    home = Path(proxy.program.environment["HOME"])
    files = [str(home / "ada.json"), str(home / "bob.json")]
    # They show the same token, and are two callers all the same.
    caller, (ada, bob) = Caller(http, proxy.url), [{"X-Memory": file} for file in files]
    await caller.call(*KINDS["memory"].first, headers=ada)
    assert "Ada" in (await caller.call("read_graph", headers=ada)).text
    assert "Ada" not in (await caller.call("read_graph", headers=bob)).text
    assert sorted(environment_of(pid)["MEMORY_FILE_PATH"] for pid in pids(proxy)) == files


async def test_nothing_is_left(start: Callable[..., Proxy], http: aiohttp.ClientSession) -> None:
    """Every server ends with the proxy, which exits with 0 after SIGTERM; after SIGKILL they leave alone."""
    for end in (signal.SIGTERM, signal.SIGKILL):
        proxy = start("everything")
        for _ in range(3):
            await Caller(http, proxy.url).call("echo", {"message": "hello"})
        started = pids(proxy)
        assert len(started) == 3
        assert proxy.program.process is not None
        proxy.program.process.send_signal(end)
        status = proxy.program.process.wait(30)
        assert status == (0 if end == signal.SIGTERM else -signal.SIGKILL)
        async with asyncio.timeout(30):
            while any(Path(f"/proc/{pid}").exists() for pid in started):
                await asyncio.sleep(0.02)
