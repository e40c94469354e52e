"""What goes for exchanges goes for them over every transport."""

import pytest
from fakes import FakeServer
from pipe_server import PipeServer

TRANSPORTS = {"http": FakeServer, "pipe": PipeServer}


@pytest.fixture(params=TRANSPORTS.values(), ids=TRANSPORTS.keys())
def a_server(request: pytest.FixtureRequest) -> FakeServer:
    """A server behind each transport in turn; for what is about HTTP's own ways, behind that only."""
    server: FakeServer = request.param()
    return server


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Statuses, event ids and a connection for each message are HTTP's: no other transport has them."""
    items[:] = [item for item in items if not (_is_http_only(item) and _runs_elsewhere(item))]


def _is_http_only(item: pytest.Item) -> bool:
    return item.get_closest_marker("http_only") is not None


def _runs_elsewhere(item: pytest.Item) -> bool:
    callspec = getattr(item, "callspec", None)
    return callspec is not None and callspec.params.get("a_server", FakeServer) is not FakeServer
