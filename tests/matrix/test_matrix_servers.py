"""A share of the servers on the page, in the versions that are pinned."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.launch import Fleet

from matrix.server_page import ANSWERS, COMMAND, GOES_ON
from matrix.server_trial import pinned, standing
from matrix.servers import SERVERS, Server

pytestmark = pytest.mark.e2e

PINNED = [server for server in SERVERS if server.pinned]


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """The programs of one test."""
    running = Fleet(tmp_path)
    yield running
    running.stop()


@pytest.mark.share(5)
@pytest.mark.parametrize("server", PINNED, ids=lambda server: server.key)
def test_a_client_without_a_session(server: Server, fleet: Fleet, tmp_path: Path) -> None:
    """Nobody answers it and remembers, or nobody is there; through the proxy, what it has left is found."""
    with standing(server, pinned(server), fleet, tmp_path) as stands:
        direct, proxied = stands.play_both()
    assert proxied == (GOES_ON if server.shows else ANSWERS)
    assert direct == COMMAND if server.transport == "stdio" else direct != GOES_ON


def test_a_check_beside_the_proxy(fleet: Fleet, tmp_path: Path) -> None:
    """What the page has under `check`: of a server and the proxy before it, and of a command."""
    chosen = {server.name: server for server in SERVERS}
    over_http, command = chosen["Python SDK 1.x"], chosen["server-memory"]
    with standing(over_http, pinned(over_http), fleet, tmp_path) as stands:
        speaks, checked = stands.check()
    assert (speaks, checked) == ("2025-11-25", "4 of 7 kinds suffer, none from the proxy")
    with standing(command, pinned(command), fleet, tmp_path) as stands:
        speaks, checked = stands.check()
    assert (speaks, checked) == ("2025-11-25", "two at once work; leaves when its input is closed")
