"""What is read from /proc."""

import os
import subprocess
import sys

from bench import procfs
from bench.procfs import Stat, find_tree, parse_peak, parse_rollup, parse_stat

STAT = "42 (a) b (c)) S 7 42 42 0 -1 4194304 1 2 3 4 100 20 3 1 20 0 1 0 1 1 1 1"
ROLLUP = """\
55cd342bf000-7ffe090a5000 ---p 00000000 00:00 0                          [rollup]
Rss:                1764 kB
Pss:                 354 kB
Private_Clean:        40 kB
Private_Dirty:       112 kB
"""


def test_a_process_may_have_any_name() -> None:
    """Brackets and blanks in the name move no field; times of children that ended are in."""
    assert parse_stat(STAT) == Stat(pid=42, parent=7, ticks=124)


def test_memory_is_in_bytes() -> None:
    """The kernel writes kibibytes."""
    memory = parse_rollup(ROLLUP)
    assert (memory.pss, memory.private_dirty) == (354 * 1024, 112 * 1024)
    assert parse_peak("VmPeak:\t 9 kB\nVmHWM:\t  2048 kB\n") == 2048 * 1024


def test_a_tree_is_a_process_and_all_below() -> None:
    """Children of children, too; nobody else."""
    parents = {1: 0, 2: 1, 3: 2, 4: 2, 5: 1}
    stats = {pid: Stat(pid=pid, parent=parent, ticks=0) for pid, parent in parents.items()}
    assert sorted(find_tree(2, stats)) == [2, 3, 4]
    assert find_tree(99, stats) == []


def test_a_real_child_is_found_and_measured() -> None:
    """A child that has worked shows in its parent's tree."""
    code = "import sys; sum(range(10**7)); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert child.pid in procfs.tree_of(os.getpid())
        assert procfs.cpu_seconds(child.pid) > 0
        assert procfs.memory(child.pid).pss > 1024 * 1024
        procfs.forget_peak(child.pid)
        assert procfs.peak(child.pid) > 1024 * 1024
        child.communicate()
