"""The directory of ``--state-dir``: whether it can be used, its key, and which processes use it.

Each process that uses it holds a lock there. The system releases the lock as soon as the process is killed,
even if it ran in another container on the same machine.
"""

import contextlib
import fcntl
import os
import secrets
import stat
from pathlib import Path
from typing import Final

from .engine import StoreFailure
from .sealing import KEY_BYTES

FILE: Final = "state.db"
_KEY: Final = "key"
_LOCKS: Final = "lock-"
_MOUNTS: Final = Path("/proc/self/mounts")
# File systems on which locks or mapped memory do not work as SQLite's journal needs them to.
_NETWORK: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "ceph", "glusterfs", "fuse.glusterfs", "fuse.sshfs", "afs", "9p"}
)


class UnusableDirectory(StoreFailure):
    """No state can be kept in the directory. The text says why, and what to do."""


def prepare(path: Path, *, mounts: Path = _MOUNTS) -> None:
    """Make the directory if there is none, for this user alone, and check that state can be kept in it.

    Raises:
        UnusableDirectory: it cannot.
    """
    if not _is_text(path):
        raise UnusableDirectory(f"{os.fsencode(path)!r} is no UTF-8, and other processes are told its name")
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.stat()
    except OSError as error:
        raise UnusableDirectory(f"{path} cannot be made ({error.strerror})") from error
    _check_owner(path, found)
    if found.st_mode & stat.S_IWOTH:
        raise UnusableDirectory(f"everybody can write to {path}: chmod o-w it")
    if (kind := filesystem_of(path.resolve(), mounts)) in _NETWORK:
        raise UnusableDirectory(
            f"{path} is on a network file system ({kind}), where locks cannot be relied on"
        )
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise UnusableDirectory(f"{path} cannot be written to")
    # Files of another user can neither be read nor trusted.
    for name in (FILE, f"{FILE}-wal", f"{FILE}-shm", _KEY):
        with contextlib.suppress(OSError):
            _check_owner(path / name, (path / name).stat())


def _check_owner(path: Path, found: os.stat_result) -> None:
    if found.st_uid != os.geteuid():
        raise UnusableDirectory(
            f"{path} belongs to another user (uid {found.st_uid}), and we are {os.geteuid()}"
        )


def _is_text(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def filesystem_of(path: Path, mounts: Path = _MOUNTS) -> str | None:
    """The kind of file system that a path is on; None if that is not known."""
    try:
        lines = mounts.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return None
    found, longest = None, -1
    for line in lines:
        fields = line.split()
        if len(fields) < 3:
            continue
        # Blanks are written as \040 there.
        point = fields[1].replace("\\040", " ")
        # A later mount on the same place hides the one before.
        if len(point) >= longest and path.is_relative_to(point):
            found, longest = fields[2], len(point)
    return found


def read_key(path: Path) -> bytes:
    """The directory's key, which is made if there is none.

    Raises:
        UnusableDirectory: it cannot be read or made, or what is there is no key.
    """
    _put_key(path, secrets.token_bytes(KEY_BYTES))
    return find_key(path)


def restore_key(path: Path, key: bytes) -> None:
    """Write the key again that was read before, if the file has been removed.

    Raises:
        UnusableDirectory: it cannot be written, or another key is there.
    """
    _put_key(path, key)
    if find_key(path) != key:
        raise UnusableDirectory(f"{path / _KEY} is not the key that was there when this process began")


def _put_key(path: Path, key: bytes) -> None:
    file = path / _KEY
    try:
        with contextlib.suppress(FileExistsError):
            _make_key(file, key)
    except OSError as error:
        raise UnusableDirectory(f"{file} cannot be made ({error.strerror})") from error


def has_key(path: Path) -> bool:
    """Whether there is a key, which means that state was kept there before."""
    return (path / _KEY).exists()


def find_key(path: Path) -> bytes:
    """The directory's key. Raises UnusableDirectory if there is none that can be read."""
    file = path / _KEY
    try:
        text = file.read_text("ascii", errors="replace").strip()
    except OSError as error:
        raise UnusableDirectory(f"{file} cannot be read ({error.strerror})") from error
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise UnusableDirectory(
            f"{file} holds no key; without the one that it held, {path / FILE} is of no use"
        )
    return key


def _make_key(file: Path, key: bytes) -> None:
    """Write the key, whole or not at all. A key that is there already stays."""
    if file.exists():
        return
    draft = file.with_name(f"{_KEY}.{secrets.token_hex(4)}.tmp")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as opened:
            opened.write(key.hex() + "\n")
            opened.flush()
            os.fsync(opened.fileno())
        os.link(draft, file)  # fails if another process was faster
    finally:
        draft.unlink()


class MemberLock:
    """The lock of one member. It is held until ``close``, or until the process ends."""

    def __init__(self, path: Path, member: str) -> None:
        self._file = path / f"{_LOCKS}{member}"
        self._descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            os.close(self._descriptor)
            raise

    @property
    def is_in_place(self) -> bool:
        """Whether the file at the path is the one that is locked.

        If not, others believe that nobody is here.
        """
        try:
            return os.path.samestat(self._file.stat(), os.fstat(self._descriptor))
        except OSError:
            return False

    def close(self) -> None:
        """Release the lock and remove its file. A file that was put in its place stays."""
        if self.is_in_place:
            with contextlib.suppress(OSError):
                self._file.unlink()
        os.close(self._descriptor)


def take_lock(path: Path, member: str) -> MemberLock:
    """Take the lock by which others see that this member is alive. Raises UnusableDirectory."""
    try:
        return MemberLock(path, member)
    except OSError as error:
        raise UnusableDirectory(f"{path} cannot be written to ({error.strerror})") from error


def is_held(path: Path, member: str) -> bool:
    """Whether a process holds this member's lock."""
    try:
        descriptor = os.open(path / f"{_LOCKS}{member}", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def is_gone(path: Path, member: str) -> bool:
    """Whether no process holds this member's lock any more. If so, the file that it has left is removed."""
    if is_held(path, member):
        return False
    with contextlib.suppress(OSError):
        (path / f"{_LOCKS}{member}").unlink()
    return True


def set_aside(path: Path, when: int) -> Path:
    """Move a damaged file and its journal aside, so that people can examine it; gives its new path.

    ``when`` is in seconds since 1970, and becomes part of its name.

    Raises:
        UnusableDirectory: it cannot be moved.
    """
    aside = path / f"{FILE}.damaged-{when}"
    while aside.exists():
        when += 1
        aside = path / f"{FILE}.damaged-{when}"
    try:
        (path / FILE).rename(aside)
        for suffix in ("-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                (path / f"{FILE}{suffix}").rename(f"{aside}{suffix}")
    except OSError as error:
        raise UnusableDirectory(f"{path / FILE} is damaged and cannot be moved ({error.strerror})") from error
    return aside
