"""What several tests of the assembly need."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from http_server import HttpServer
from restart_bench import Restarts


@pytest.fixture
async def restarts(server: HttpServer, tmp_path: Path) -> AsyncIterator[Restarts]:
    """Proxies on one directory, one after another, before this server."""
    async with Restarts(server, tmp_path / "state") as ready:
        yield ready
