"""The two places in which state outlives the process: ``--state-dir`` and ``--store``.

Both are opened with the keys that seal their records, and tell whether the process of a member has ended.
"""

import asyncio
import secrets
import time
from pathlib import Path
from typing import Final, Literal, TypeAlias

from .. import events
from ..events import Observer
from ..sessions.store_trouble import StoreTrouble
from ..settings.cluster import cluster_keys, namespace_of
from ..settings.config import Settings
from ..store import state_dir
from ..store.address import StoreAddress
from ..store.engine import StoredMember, StoreFailure, StoreRefused
from ..store.sealing import KEY_BYTES, Keys, Unsealed
from ..store.sqlite import SqliteEngine
from ..store.sqlite_file import DamagedStore, NewerStore
from .sockets import CannotStart

# How long a store is waited for at the start, because it may have been started at the same time.
_PATIENCE_SECONDS: Final = 10.0
_RETRY_SECONDS: Final = 0.25
# The place for which what all members have in common is sealed.
_COMMON: Final = "common"


class CannotKeepState(CannotStart):
    """State cannot be kept where the settings say. The text says what to do."""

    def __init__(self, problem: str, advice: str, option: str = "--state-dir") -> None:
        super().__init__(f"{option}: {problem}. {advice}")


class DirectoryStore:
    """A directory on this machine, for all proxies here that have the same server."""

    kept: Final[Literal["disk"]] = "disk"
    option: Final = "--state-dir"
    of_its_own: Final = "a directory of its own"

    def __init__(self, path: Path, key: bytes, observe: Observer) -> None:
        self.directory = path
        self.keys = Keys(key)
        self.engine = SqliteEngine(path / state_dir.FILE)
        self.clock = self.engine.clock
        self._key = key
        self._observe = observe
        self._trouble = StoreTrouble(observe)
        self._member: str | None = None
        self._lock: state_dir.MemberLock | None = None

    def __str__(self) -> str:
        return str(self.directory)

    @classmethod
    async def open(cls, path: Path, observe: Observer) -> "DirectoryStore":
        """Open the directory, which is made if there is none. Raises CannotKeepState."""
        try:
            state_dir.prepare(path)
            was_here = state_dir.has_key(path)
            store = cls(path, state_dir.read_key(path), observe)
            if await store._open_file() and was_here:
                observe(events.StateMissing(file=str(path / state_dir.FILE)))
        except NewerStore as error:
            raise CannotKeepState(str(error), "Run that version, or choose another directory") from error
        except StoreFailure as error:
            raise CannotKeepState(
                str(error),
                "Choose another directory, or leave the option out to keep sessions in memory only",
            ) from error
        return store

    async def _open_file(self) -> bool:
        """Open the file, or a new one in place of one that is damaged; gives whether there was none.

        Raises:
            StoreFailure: it cannot be used.
        """
        told: list[events.Event] = []

        def set_aside(error: DamagedStore) -> None:
            aside = state_dir.set_aside(self.directory, int(time.time()))
            told.append(events.StateSetAside(problem=str(error), file=str(aside)))

        try:
            await self.engine.open(set_aside)
        finally:
            for event in told:
                self._observe(event)
        return self.engine.is_new and not told

    def join(self, member: str) -> None:
        """Take the lock that shows that this member is alive. Raises StoreFailure."""
        self._member = member
        self._lock = state_dir.take_lock(self.directory, member)

    def is_gone(self, other: StoredMember) -> bool:
        """Whether the process of a member has ended."""
        return state_dir.is_gone(self.directory, other.member)

    async def look_after(self) -> None:
        """Check that the file, the key and the lock are where the next process looks for them.

        To be called every now and then. If something was removed or replaced while it was in use, it is made
        anew. All that is in memory is written there with the next beat, as to a store that has come back
        empty.
        """
        if await asyncio.to_thread(self._is_in_place):
            self._trouble.end()
            return
        problem = f"{self} was damaged, or something in it was removed or replaced, while it was in use"
        try:
            await asyncio.to_thread(self._make_place)
            if not await asyncio.to_thread(self.engine.file.check):
                await self._open_file()
        except StoreFailure as failure:
            self._trouble.begin(StoreFailure(f"{problem}: {failure}"))
        else:
            self._trouble.begin(StoreFailure(f"{problem}; it was made anew"))

    def _is_in_place(self) -> bool:
        lock = self._lock
        return (
            self.engine.file.check()
            and state_dir.has_key(self.directory)
            and (self._member is None or (lock is not None and lock.is_in_place))
        )

    def _make_place(self) -> None:
        state_dir.prepare(self.directory)
        state_dir.restore_key(self.directory, self._key)
        former = self._lock
        if self._member is not None and (former is None or not former.is_in_place):
            self._lock = state_dir.take_lock(self.directory, self._member)
            if former is not None:
                former.close()

    async def close(self) -> None:
        """Close the file, and release the lock."""
        await self.engine.close()
        if self._lock is not None:
            self._lock.close()
            self._lock = None


class NetworkStore:
    """A Valkey or Redis, for all proxies of a cluster, wherever they are."""

    kept: Final[Literal["store"]] = "store"
    option: Final = "--store"
    # Members on other machines have clocks of their own.
    clock = staticmethod(time.time)
    of_its_own: Final = "a --cluster of its own"
    # Its members may be on other machines.
    directory: Final = None

    def __init__(self, settings: Settings, address: StoreAddress, observe: Observer) -> None:
        from ..store.valkey import ValkeyEngine  # loads what only the extra valkey installs

        self.address = address
        self.engine = ValkeyEngine(address, namespace_of(settings))
        self.keys: Keys
        self._keys = cluster_keys(settings)
        self._observe = observe

    def __str__(self) -> str:
        return str(self.address)

    @classmethod
    async def open(cls, settings: Settings, address: StoreAddress, observe: Observer) -> "NetworkStore":
        """Connect to the store, and read the root that all its members make callers' names of.

        Raises:
            ConfigError: the key of the cluster cannot be read.
            CannotKeepState: it cannot be reached, or is sealed with another key.
        """
        store = cls(settings, address, observe)
        try:
            await store._agree()
        except BaseException:
            await store.engine.close()
            raise
        return store

    async def _agree(self) -> None:
        """Read the root of all names, which the first member has made.

        It is kept in the store, sealed, and is not made of the key: when the key is changed, callers keep
        their names.
        """
        key, *older = self._keys
        seals = Keys(key, tuple(older))
        found = await self._reach(seals.seal(_COMMON, secrets.token_bytes(KEY_BYTES)))
        try:
            root = seals.open(_COMMON, found)
        except Unsealed:
            raise CannotKeepState(
                f"what lies in {self} for this cluster was sealed with another key",
                "Give all proxies of a cluster the same --cluster-key-file, or choose another --cluster",
                self.option,
            ) from None
        if older:
            # Sealed anew with the newest key, so that it can be opened when the older ones are gone.
            await self._reach(seals.seal(_COMMON, root), found)
        self.keys = self.engine.keys = Keys(key, tuple(older), root=root)

    async def _reach(self, offered: bytes, instead_of: bytes = b"") -> bytes:
        deadline, told = time.monotonic() + _PATIENCE_SECONDS, False
        while True:
            try:
                return await self.engine.agree(offered, instead_of)
            except StoreRefused as error:
                advice = (
                    "Check the user, its password, and that it may use keys msp:*, scripts, reads and writes"
                )
                raise CannotKeepState(str(error), advice, self.option) from error
            except StoreFailure as error:
                if time.monotonic() > deadline:
                    advice = (
                        "A proxy starts when its store answers: only there is written whose callers are whose"
                    )
                    raise CannotKeepState(str(error), advice, self.option) from error
                if not told:
                    self._observe(events.StoreFailed(problem=str(error)))
                    told = True
                await asyncio.sleep(_RETRY_SECONDS)

    def join(self, member: str) -> None:
        """Do nothing: the member's lease shows that it is alive."""

    def is_gone(self, other: StoredMember) -> bool:  # noqa: ARG002
        """False: nothing but its lease shows whether a member on another machine is alive."""
        return False

    async def look_after(self) -> None:
        """Do nothing: the store is looked after by whoever runs it."""

    async def close(self) -> None:
        """Close the connections."""
        await self.engine.close()


KeptStore: TypeAlias = DirectoryStore | NetworkStore


async def open_store(settings: Settings, observe: Observer) -> KeptStore | None:
    """The store that the settings name; None if state is kept in memory only.

    Raises:
        ConfigError: the key of the cluster cannot be read.
        CannotKeepState: it cannot be used.
    """
    if settings.store is not None:
        return await NetworkStore.open(settings, settings.store, observe)
    path = settings.state_directory
    return None if path is None else await DirectoryStore.open(path, observe)
