"""The soak, cut to a third of a minute: SOAK_SECONDS chooses another length."""

import os
from pathlib import Path

import pytest
from e2e.launch import Fleet

from .soak import soak

SECONDS = float(os.environ.get("SOAK_SECONDS", "20"))


@pytest.mark.e2e
@pytest.mark.timeout(SECONDS + 600)
async def test_soak(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Mixed clients of all eras: memory and descriptors are flat after warm-up, and nothing stays at rest."""
    fleet = Fleet(tmp_path)
    try:
        result = await soak(fleet, SECONDS)
    finally:
        fleet.stop()
    with capsys.disabled():
        print(f"\n{result.table()}")
    (tmp_path / "soak.svg").write_text(result.plot())
    assert not result.growth()
    assert result.bugs == 0
    assert result.exit_status == 0
