"""Directories in which nothing can be kept, and why."""

import os
import stat
from pathlib import Path

import pytest

from mcp_session_proxy.store import state_dir
from mcp_session_proxy.store.state_dir import UnusableDirectory


def mounts(folder: Path, *lines: str) -> Path:
    file = folder / "mounts"
    file.write_text("".join(f"{line} rw 0 0\n" for line in lines))
    return file


def test_it_is_made_for_us_alone(tmp_path: Path) -> None:
    """With all that is above it; nobody else may look in."""
    path = tmp_path / "a" / "b"
    state_dir.prepare(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o700


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs"])
def test_network_file_systems_are_refused(tmp_path: Path, kind: str) -> None:
    """The nearest mount counts, the last one of several on a place, and blanks in its name are no trouble."""
    path = tmp_path / "our state"
    written = str(path).replace(" ", "\\040")
    others = ("/dev/a / ext4", f"server:/ {tmp_path} {kind}", f"none {written}x tmpfs", "broken")
    with pytest.raises(UnusableDirectory, match=kind):
        state_dir.prepare(path, mounts=mounts(tmp_path, *others))
    state_dir.prepare(path, mounts=mounts(tmp_path, *others, f"/dev/b {written} ext4"))
    state_dir.prepare(path, mounts=tmp_path / "no such file")


def test_a_directory_of_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names both users."""
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(UnusableDirectory, match="belongs to another user"):
        state_dir.prepare(tmp_path)


def test_a_directory_for_everybody(tmp_path: Path) -> None:
    """Where everybody can write, anybody could put a file of his own there."""
    tmp_path.chmod(0o777)
    with pytest.raises(UnusableDirectory, match="everybody can write"):
        state_dir.prepare(tmp_path)


def test_what_is_no_directory(tmp_path: Path) -> None:
    """A file in its place is told as such."""
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(UnusableDirectory, match="cannot be made"):
        state_dir.prepare(file)


@pytest.mark.parametrize("name", ["state.db", "state.db-wal", "key"])
def test_files_of_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """What another user's process has left there can be neither read nor trusted: the message names it."""
    (tmp_path / name).touch()
    own = Path.stat
    other = os.stat_result((0o600, 0, 0, 1, os.geteuid() + 1, 0, 0, 0, 0, 0))
    monkeypatch.setattr(Path, "stat", lambda path, **how: other if path.name == name else own(path, **how))
    with pytest.raises(UnusableDirectory, match=f"{name} belongs to another user"):
        state_dir.prepare(tmp_path)


def test_a_directory_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the system has it of a read-only mount, or of modes; an existing one is left as it is."""
    monkeypatch.setattr(os, "access", lambda _, mode: not mode & os.W_OK)
    with pytest.raises(UnusableDirectory, match="cannot be written to"):
        state_dir.prepare(tmp_path)


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    """It could not be told to other processes."""
    path = tmp_path / os.fsdecode(b"a\xff")
    with pytest.raises(UnusableDirectory, match="no UTF-8"):
        state_dir.prepare(path)


def test_a_key_that_somebody_removes(tmp_path: Path) -> None:
    """It is laid there again; another one is left alone, and told."""
    key = state_dir.read_key(tmp_path)
    (tmp_path / "key").unlink()
    state_dir.restore_key(tmp_path, key)
    assert state_dir.read_key(tmp_path) == key
    (tmp_path / "key").write_text("ab" * 32)
    with pytest.raises(UnusableDirectory, match="is not the key"):
        state_dir.restore_key(tmp_path, key)
    assert state_dir.find_key(tmp_path) == b"\xab" * 32


def test_files_that_are_set_aside(tmp_path: Path) -> None:
    """Two of one second are both there afterwards."""
    for content in ("one", "two"):
        (tmp_path / "state.db").write_text(content)
        state_dir.set_aside(tmp_path, 7)
    assert sorted(file.read_text() for file in tmp_path.iterdir()) == ["one", "two"]


def test_the_key_is_made_once(tmp_path: Path) -> None:
    """It is the same from then on, and for nobody else to read."""
    key = state_dir.read_key(tmp_path)
    assert state_dir.read_key(tmp_path) == key
    assert [(file.name, stat.S_IMODE(file.stat().st_mode)) for file in tmp_path.iterdir()] == [("key", 0o600)]


def test_who_lives_holds_a_lock(tmp_path: Path) -> None:
    """It is free when its holder lets go, and then nothing is left of it."""
    assert state_dir.is_gone(tmp_path, "m")
    lock = state_dir.take_lock(tmp_path, "m")
    assert not state_dir.is_gone(tmp_path, "m")
    lock.close()
    assert state_dir.is_gone(tmp_path, "m")
    (tmp_path / "lock-n").touch()
    assert state_dir.is_gone(tmp_path, "n")
    assert not list(tmp_path.iterdir())
