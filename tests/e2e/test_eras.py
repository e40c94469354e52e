"""Real clients of both eras before real servers of both eras: state is kept, and who falls back can work."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .launch import SERVERS, Fleet, Program, accepts_connections, program_environment, python, unused_port
from .run import Run

pytestmark = pytest.mark.e2e

CALLS: list[tuple[str, object]] = [("increment", {}), ("increment", {})]
StartServer = Callable[..., str]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[StartServer]:
    """Starts a server of the SDK that is named, and gives its URL."""
    programs: list[Program] = []

    def begin(kind: str, *words: str) -> str:
        port = unused_port()
        program = Program(
            name=f"both-eras {kind}",
            command=[python("mcp-2"), str(SERVERS / "both_eras_server.py"), str(port), kind, *words],
            log=tmp_path / f"both-eras-{kind}.log",
            environment=program_environment(tmp_path / kind),
        )
        program.start(lambda: accepts_connections(port))
        programs.append(program)
        return f"http://127.0.0.1:{port}/mcp"

    yield begin
    for program in programs:
        program.terminate()


async def counts(run: Run, client: str, url: str) -> list[object]:
    """What two connections counted, and the protocol that they agreed on."""
    seen = await run.client(client, url, client, CALLS, connections=2)
    return [seen[0]["protocol"], *(number for connection in seen for number in connection["answers"])]


@pytest.mark.share(2)
@pytest.mark.parametrize("kind", ["mcp", "fastmcp"])
async def test_state_is_kept_before_a_stateful_server(
    start: StartServer, owned: Fleet, run: Run, kind: str
) -> None:
    """A client that may choose speaks modern and counts on, as one that keeps to sessions does."""
    proxy = owned.new_proxy(start(kind))
    assert await counts(run, "mcp-2-auto", proxy.url) == ["2026-07-28", "1", "2", "3", "4"]
    assert await counts(run, "mcp-2-legacy", proxy.url) == ["2025-11-25", "1", "2", "3", "4"]


@pytest.mark.share(2)
@pytest.mark.parametrize("kind", ["mcp", "fastmcp"])
async def test_a_server_without_sessions_needs_no_help(
    start: StartServer, owned: Fleet, run: Run, kind: str
) -> None:
    """It keeps nothing for anybody, and gets modern requests as they are."""
    proxy = owned.new_proxy(start(kind, "stateless"))
    assert await counts(run, "mcp-2-auto", proxy.url) == ["2026-07-28", "1", "1", "1", "1"]


@pytest.mark.share(3)
@pytest.mark.parametrize("client", ["mcp-2-auto", "fastmcp-auto", "openai-agents"])
async def test_clients_that_may_choose_fall_back(
    start: StartServer, owned: Fleet, run: Run, client: str
) -> None:
    """Where only sessions are served, a client that would speak either revision speaks the earlier one."""
    proxy = owned.new_proxy(start("mcp"), "--serve-eras", "legacy")
    seen = await run.client(client, proxy.url, client, CALLS, connections=2)
    assert [connection["answers"] for connection in seen] == [["1", "2"], ["3", "4"]]
    assert all(connection.get("protocol", "2025-11-25") == "2025-11-25" for connection in seen)


async def test_modern_clients_where_only_they_are_served(start: StartServer, owned: Fleet, run: Run) -> None:
    """They notice nothing."""
    proxy = owned.new_proxy(start("mcp"), "--serve-eras", "modern")
    assert await counts(run, "mcp-2-auto", proxy.url) == ["2026-07-28", "1", "2", "3", "4"]
