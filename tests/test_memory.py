"""The budget of memory and its shares."""

import gc
import subprocess
import sys
from pathlib import Path

import pytest

from mcp_session_proxy.errors import OverBudget
from mcp_session_proxy.memory import Budget, Keeper, Memory, Share, _limits_of_groups


def test_the_shares_are_all_there_is() -> None:
    """They come to the whole budget, less what does not divide."""
    assert 0.99 * 1_000_000 <= Memory(Budget(total_bytes=1_000_000)).max_bytes <= 1_000_000


@pytest.mark.slow
def test_equal_texts_are_kept_once() -> None:
    """However many hold one, it counts once, and no longer than somebody holds it."""
    share = Share("texts", 100)
    keeper = Keeper(share)
    first, second = keeper.keep(b"x" * 60), keeper.keep(b"x" * 60)
    assert first is second
    assert share.used_bytes == 60
    with pytest.raises(OverBudget):
        keeper.keep(b"y" * 60)
    del first, second
    gc.collect()
    assert (len(keeper), share.used_bytes) == (0, 0)


def test_limits_of_a_service(tmp_path: Path) -> None:
    """A control group's limit counts wherever it is, and that of those around it, in both versions."""
    own, root = tmp_path / "own", tmp_path / "root"
    slice_, memory = root / "system.slice" / "proxy.service", root / "memory" / "pods" / "one"
    slice_.mkdir(parents=True)
    memory.mkdir(parents=True)
    (slice_ / "memory.max").write_text("1000\n")
    (slice_.parent / "memory.max").write_text("max\n")
    (memory / "memory.limit_in_bytes").write_text("2000\n")
    (memory.parent / "memory.limit_in_bytes").write_text("3000\n")
    own.write_text("0::/system.slice/proxy.service\n")
    assert list(_limits_of_groups(root, own)) == [1000]
    own.write_text("9:name=systemd:/a:b\n4:memory:/pods/one\n3:cpu,cpuacct:/\n")
    assert sorted(_limits_of_groups(root, own)) == [2000, 3000]


def test_limits_of_a_container(tmp_path: Path) -> None:
    """There the root is its own, whatever it is called outside."""
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "own").write_text("0::/\n")
    assert list(_limits_of_groups(tmp_path, tmp_path / "own")) == [1000]
    assert list(_limits_of_groups(tmp_path, tmp_path / "none")) == [1000]


def test_limits_of_the_process() -> None:
    """What ``prlimit`` says counts, too."""
    limit = 800 * 1024 * 1024
    program = f"""
import resource
from mcp_session_proxy.memory import default_budget_bytes
resource.setrlimit(resource.RLIMIT_DATA, ({limit}, {limit}))
print(default_budget_bytes())
"""
    ran = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert int(ran.stdout) == limit // 4
