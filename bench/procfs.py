"""What Linux says about a process and its children: CPU time and memory. Reads `/proc`, nothing else."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, kw_only=True)
class Stat:
    """What matters of `/proc/PID/stat`; times in clock ticks, those of children that ended included."""

    pid: int
    parent: int
    ticks: int


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What matters of `/proc/PID/smaps_rollup`, in bytes."""

    pss: int
    private_dirty: int


def parse_stat(text: str) -> Stat:
    """Read `/proc/PID/stat`. The second field is a name in brackets that may hold anything."""
    before, _, after = text.rpartition(")")
    fields = after.split()
    return Stat(
        pid=int(before.split("(", 1)[0]),
        parent=int(fields[1]),
        ticks=sum(int(field) for field in fields[11:15]),
    )


def parse_rollup(text: str) -> Memory:
    """Read `/proc/PID/smaps_rollup`. Raises KeyError when a line is missing."""
    found = {}
    for line in text.splitlines()[1:]:
        name, _, rest = line.partition(":")
        found[name] = int(rest.split()[0]) * 1024
    return Memory(pss=found["Pss"], private_dirty=found["Private_Dirty"])


def parse_peak(text: str) -> int:
    """The highest resident size so far in `/proc/PID/status`, in bytes."""
    line = next(line for line in text.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def _all_stats() -> Iterator[Stat]:
    for entry in os.listdir(PROC):
        if entry.isdigit():
            try:
                yield parse_stat((PROC / entry / "stat").read_text())
            except (FileNotFoundError, ProcessLookupError):
                continue


def find_tree(root: int, stats: dict[int, Stat]) -> list[int]:
    """`root` and everything below it, among the processes given by their ids."""
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        if pid in stats:
            found.append(pid)
        waiting += [stat.pid for stat in stats.values() if stat.parent == pid]
    return found


def tree_of(root: int) -> list[int]:
    """The ids of a process and all that came of it and still run."""
    return find_tree(root, {stat.pid: stat for stat in _all_stats()})


def cpu_seconds(root: int) -> float:
    """User and system time of a process and all that came of it."""
    stats = {stat.pid: stat for stat in _all_stats()}
    return sum(stats[pid].ticks for pid in find_tree(root, stats)) / TICKS_PER_SECOND


def own_cpu_seconds(pid: int) -> float:
    """The same of a process alone."""
    stats = {stat.pid: stat for stat in _all_stats()}
    return stats[pid].ticks / TICKS_PER_SECOND


def memory(root: int) -> Memory:
    """The memory of a process and all that came of it."""
    each = [parse_rollup((PROC / str(pid) / "smaps_rollup").read_text()) for pid in tree_of(root)]
    return Memory(pss=sum(one.pss for one in each), private_dirty=sum(one.private_dirty for one in each))


def forget_peak(pid: int) -> None:
    """Let the highest resident size start over from the present one."""
    (PROC / str(pid) / "clear_refs").write_text("5")


def peak(pid: int) -> int:
    """The highest resident size since `forget_peak`, in bytes."""
    return parse_peak((PROC / str(pid) / "status").read_text())
