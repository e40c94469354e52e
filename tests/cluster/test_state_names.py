"""State directories by any name: members meet there on unix sockets, whose names are short."""

from pathlib import Path

import pytest
from several_bench import open_several, written

from mcp_session_proxy.assembly import state_check

pytestmark = pytest.mark.slow

ME = {"Authorization": "Bearer me"}


@pytest.mark.parametrize("name", ["a b%20c?d#é", "x" * 200, "linked"])
async def test_names_of_directories(tmp_path: Path, name: str) -> None:
    """Members meet there, and state lies there, whatever it is called and however long the way to it is."""
    path = tmp_path / name
    if name == "linked":
        (tmp_path / "real").mkdir(0o700)
        path.symlink_to(tmp_path / "real")
    async with open_several(path) as several:
        one, _ = await several.start(2)
        assert [await several.count(headers=ME) for _ in range(4)] == [1, 2, 3, 4]
        await written(several.owner())
        found = state_check.inspect(path)
        assert found.problems == []
        assert found.facts[0] == "1 upstream sessions and 0 client sessions of 1 callers"
        await several.stop(one)
        assert await several.count(headers=ME) == 5
