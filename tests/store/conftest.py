"""What runs for the tests of stores ends with them."""

from collections.abc import Iterator

import pytest
from engine_world import SERVERS


@pytest.fixture(scope="session", autouse=True)
def _servers() -> Iterator[None]:
    with SERVERS:
        yield
