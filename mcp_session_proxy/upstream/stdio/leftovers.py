"""What is left of children that nobody sees off any more.

A proxy that is killed takes nobody along: its children find their standard input closed, and most leave. For
those that do not, it keeps a *ledger* while it runs: an empty file for each, whose name says which process
group it is and whose. The next proxy of the same user ends what it finds there of proxies that are gone.

As process 1 of a container, a proxy is also the heir of processes that are not its children; nobody else can
take note of their end.
"""

import contextlib
import os
import signal
import stat
import tempfile
from collections.abc import Container
from pathlib import Path
from typing import Final, NamedTuple

_PROC: Final = Path("/proc")
_STDERR: Final = 2


class _Process(NamedTuple):
    """A process, by its number and the moment in which it began: numbers are given out again."""

    pid: int
    began: str

    @classmethod
    def find(cls, pid: int) -> "_Process | None":
        """The process that has this number now, if it has not ended."""
        try:
            text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        # The name, which may hold anything, is in brackets before the rest (proc_pid_stat(5)).
        state, *fields = text.rpartition(")")[2].split()
        return None if state == "Z" else cls(pid, fields[18])

    @property
    def is_there(self) -> bool:
        """Whether it has not ended."""
        return self == _Process.find(self.pid)


class Ledger:
    """The children of this proxy, as the next one finds them. Where it cannot be kept, there is none.

    ``directory`` is where all proxies of a user keep theirs.
    """

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._owner = _Process.find(os.getpid())
        self._kept: dict[int, Path] = {}

    def note(self, pid: int) -> None:
        """A child leads the group of this number."""
        child = _Process.find(pid)
        if self._directory is None or self._owner is None or child is None:
            return
        path = self._directory / f"{child.pid}.{child.began}.{self._owner.pid}.{self._owner.began}"
        with contextlib.suppress(OSError):
            path.touch()
            self._kept[pid] = path

    def strike(self, pid: int) -> None:
        """Nothing is left of it."""
        path = self._kept.pop(pid, None)
        if path is not None:
            with contextlib.suppress(OSError):
                path.unlink()

    def sweep(self, number: signal.Signals) -> int:
        """Signal the groups that proxies have left behind; gives how many those are."""
        if self._directory is None:
            return 0
        found = 0
        for path in _list(self._directory):
            try:
                pid, began, owner, owner_began = path.name.split(".")
                child, parent = _Process(int(pid), began), _Process(int(owner), owner_began)
            except ValueError:
                continue
            if parent.is_there:
                continue
            if child.is_there:
                found += 1
                with contextlib.suppress(OSError):
                    os.killpg(child.pid, number)
            else:
                with contextlib.suppress(OSError):
                    path.unlink()
        return found


def _list(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except OSError:
        return []


def own_directory() -> Path | None:
    """Where a user's proxies keep their ledgers on this machine; None if there is no place that is safe.

    Numbers of processes mean something on one machine and until it is started anew, so it is among what does
    not outlive that. Nobody else may write there: what stands there gets signals.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    base = Path(runtime) if runtime else Path(tempfile.gettempdir())
    directory = base / f"mcp-session-proxy-{os.getuid()}"
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        found = directory.lstat()
    except OSError:
        return None
    is_safe = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022
    return directory if is_safe else None


def keep_descriptors() -> None:
    """Let no child inherit what this process was started with, such as a socket that listens (systemd).

    What Python opens is kept from children anyway; the event loop closes nothing in them.
    """
    for name in os.listdir("/dev/fd"):
        with contextlib.suppress(OSError):  # the one that lists them is closed by now
            if int(name) > _STDERR:
                os.set_inheritable(int(name), False)


def bury_orphans(ours: Container[int]) -> None:
    """Take note of the end of processes that are not ``ours``, which the event loop waits for itself.

    Only process 1 is their heir; for any other, there are none.
    """
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is None or found.si_pid in ours:
                return  # those behind it come next time
            os.waitpid(found.si_pid, os.WNOHANG)
        except ChildProcessError:
            return
