"""What is left of children that nobody sees off any more."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mcp_session_proxy.upstream.stdio import leftovers
from mcp_session_proxy.upstream.stdio.leftovers import Ledger, own_directory

SLEEP = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"]
KEEP = """
import os, sys, subprocess
from pathlib import Path
from mcp_session_proxy.upstream.stdio.leftovers import Ledger
child = subprocess.Popen(sys.argv[2:], stdout=subprocess.DEVNULL, start_new_session=True)
Ledger(Path(sys.argv[1])).note(child.pid)
print(child.pid, flush=True)
"""


def leave_behind(folder: Path) -> int:
    """What a proxy that has ended has left behind: the group of its child."""
    run = subprocess.run(
        [sys.executable, "-c", KEEP, str(folder), *SLEEP], stdout=subprocess.PIPE, text=True, check=True
    )
    return int(run.stdout)


def state_of(pid: int) -> str:
    """The state of a process, as a letter; nothing when there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def test_what_a_former_proxy_left_behind(tmp_path: Path) -> None:
    """It is ended, and its entry goes."""
    pid = leave_behind(tmp_path)
    ledger = Ledger(tmp_path)
    assert ledger.sweep(signal.SIGKILL) == 1
    while state_of(pid) not in ("", "Z"):
        pass
    assert ledger.sweep(signal.SIGKILL) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_living_proxys_children_are_left_alone(tmp_path: Path) -> None:
    """Several proxies of one user keep their ledgers in one place."""
    child = subprocess.Popen(SLEEP, start_new_session=True)
    mine = Ledger(tmp_path)
    mine.note(child.pid)
    assert Ledger(tmp_path).sweep(signal.SIGKILL) == 0
    assert child.poll() is None
    assert len(list(tmp_path.iterdir())) == 1
    child.kill()
    child.wait()
    mine.strike(child.pid)
    assert list(tmp_path.iterdir()) == []


def test_a_number_that_was_given_out_again(tmp_path: Path) -> None:
    """Somebody else has it by now: it is not the process that began then."""
    child = subprocess.Popen(SLEEP, start_new_session=True)
    (tmp_path / f"{child.pid}.1.{child.pid}.1").touch()
    assert Ledger(tmp_path).sweep(signal.SIGKILL) == 0
    assert child.poll() is None
    child.kill()
    child.wait()


@pytest.mark.parametrize("name", ["x", "1.2.3", "a.b.c.d", "-1.2.3.4", "1.2.3.4.5"])
def test_names_of_something_else(tmp_path: Path, name: str) -> None:
    """They are nobody's."""
    (tmp_path / name).touch()
    assert Ledger(tmp_path).sweep(signal.SIGKILL) == 0


def test_where_nothing_can_be_kept() -> None:
    """It is done without."""
    for nowhere in (None, Path("/proc/nowhere")):
        ledger = Ledger(nowhere)
        ledger.note(os.getpid())
        ledger.strike(os.getpid())
        assert ledger.sweep(signal.SIGTERM) == 0


def test_the_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the user's own; one in which others can write is not used."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    place = own_directory()
    assert place is not None
    assert place.parent == tmp_path
    assert place.stat().st_mode & 0o777 == 0o700
    place.chmod(0o777)
    assert own_directory() is None
    place.rmdir()
    place.symlink_to("/tmp")
    assert own_directory() is None


def test_descriptors_are_kept_from_children() -> None:
    """Whatever the process was started with."""
    read, write = os.pipe()
    os.set_inheritable(write, True)
    leftovers.keep_descriptors()
    assert not os.get_inheritable(write)
    assert os.get_inheritable(2)
    os.close(read)
    os.close(write)
