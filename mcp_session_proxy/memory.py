"""One budget of memory, and the shares that it is cut into.

What callers and servers send has to be kept for a while: heads until they end, bodies until they are
answered, answers until they are taken, events, lists and profiles until nobody can ask for them any more.
Each kind has a share of one budget. Whoever comes when a share is used up is refused (503), or does without
what need not be kept; whoever came before loses nothing, and the process lives. Only of heads that go on and
on the oldest is refused: nobody knows yet whose they are.

The shares count payload bytes. What Python makes of them (copies, objects, the garbage of a moment) is
some three times as much, which is why the budget is a quarter of the machine's memory by default.
"""

import contextlib
import os
import resource
import sys
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

from .bounds import (
    ANSWERS_PERCENT,
    BODIES_PERCENT,
    EVENTS_PERCENT,
    HEADS_PERCENT,
    LISTS_PERCENT,
    PROFILES_PERCENT,
    QUESTIONS_PERCENT,
    SMALL_BYTES,
    SMALL_PERCENT,
    SUBSCRIPTIONS_PERCENT,
)
from .errors import OverBudget

LEAST_BUDGET_BYTES: Final = 128 * 1024 * 1024
_PART_OF_MEMORY: Final = 4
# Limits of containers and services, version 2 and 1; "max" or a number beyond the machine's means none.
_CGROUPS: Final = Path("/sys/fs/cgroup")
_OWN_CGROUPS: Final = Path("/proc/self/cgroup")


class Share:
    """What one kind of thing may take. ``max_bytes`` may be changed at any time."""

    __slots__ = ("max_bytes", "name", "used_bytes")

    def __init__(self, name: str, max_bytes: int) -> None:
        self.name = name
        self.max_bytes = max_bytes
        self.used_bytes = 0

    def __repr__(self) -> str:
        return f"<Share {self.name} {self.used_bytes} of {self.max_bytes}>"

    def take(self, size_bytes: int, *, large: bool = False) -> None:
        """Take so much, to be given back. ``large``: it is part of something over ``SMALL_BYTES``.

        Raises:
            OverBudget: there is no room; nothing was taken.
        """
        limit = self.max_bytes * (100 - SMALL_PERCENT) // 100 if large else self.max_bytes
        if self.used_bytes + size_bytes > limit:
            raise OverBudget(
                f"The proxy has no memory left for more {self.name}. "
                "Try again shortly, or raise --memory-budget."
            )
        self.used_bytes += size_bytes

    def lend(self, size_bytes: int) -> "Loan":
        """Take so much for as long as somebody keeps what this gives. Raises OverBudget."""
        self.take(size_bytes, large=size_bytes > SMALL_BYTES)
        return Loan(self, size_bytes)

    @property
    def is_over(self) -> bool:
        """Whether more is there than there may be: what need not be kept should go."""
        return self.used_bytes > self.max_bytes

    def hold(self, size_bytes: int) -> None:
        """Count something that is there already; whoever keeps it sees to it that the share is kept to."""
        self.used_bytes += size_bytes

    def give_back(self, size_bytes: int) -> None:
        """Give back what was taken."""
        self.used_bytes -= size_bytes


class Loan:
    """A part of a share, given back when nobody keeps this any more: it lies beside what it was taken for."""

    __slots__ = ("__weakref__", "_share", "_size_bytes")

    def __init__(self, share: Share, size_bytes: int) -> None:
        self._share = share
        self._size_bytes = size_bytes

    def __del__(self) -> None:
        self._share.give_back(self._size_bytes)


# For whoever keeps no accounts.
UNBOUNDED: Final = Share("anything", sys.maxsize)


class Kept:
    """A text that many hold."""

    __slots__ = ("__weakref__", "_loan", "data")

    def __init__(self, data: bytes, loan: Loan) -> None:
        self.data = data
        self._loan = loan


class Keeper:
    """Keeps texts, each once for all that hold an equal one, for as long as somebody does."""

    def __init__(self, share: Share) -> None:
        self._share = share
        self._kept: weakref.WeakValueDictionary[bytes, Kept] = weakref.WeakValueDictionary()

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, data: bytes) -> Kept:
        """What holds this text. Raises OverBudget."""
        kept = self._kept.get(data)
        if kept is None:
            kept = self._kept[data] = Kept(data, self._share.lend(len(data)))
        return kept


UNCOUNTED: Final = Keeper(UNBOUNDED)


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """What there is, in bytes, and how much of it requests' bodies may take, where the operator says so."""

    total_bytes: int
    bodies_bytes: int | None = None


class Memory:
    """The whole budget, cut into shares. ``rules`` is what there is; what was taken stays taken."""

    def __init__(self, rules: Budget) -> None:
        self.heads = Share("requests' heads", 0)
        self.bodies = Share("request bodies", 0)
        self.answers = Share("answers", 0)
        self.events = Share("events kept for clients", 0)
        self.lists = Share("lists", 0)
        self.profiles = Share("client profiles", 0)
        self.subscriptions = Share("subscriptions", 0)
        self.questions = Share("questions", 0)
        self.rules = rules

    @property
    def rules(self) -> Budget:
        """The budget."""
        return self._rules

    @rules.setter
    def rules(self, rules: Budget) -> None:
        self._rules = rules
        part = rules.total_bytes // 100
        self.heads.max_bytes = part * HEADS_PERCENT
        self.bodies.max_bytes = part * BODIES_PERCENT if rules.bodies_bytes is None else rules.bodies_bytes
        self.answers.max_bytes = part * ANSWERS_PERCENT
        self.events.max_bytes = part * EVENTS_PERCENT
        self.lists.max_bytes = part * LISTS_PERCENT
        self.profiles.max_bytes = part * PROFILES_PERCENT
        self.subscriptions.max_bytes = part * SUBSCRIPTIONS_PERCENT
        self.questions.max_bytes = part * QUESTIONS_PERCENT

    @property
    def max_bytes(self) -> int:
        """What all shares together may take."""
        return sum(share.max_bytes for share in self.shares.values())

    @property
    def shares(self) -> Mapping[str, Share]:
        """All of them, by the name of their kind."""
        return {
            "heads": self.heads,
            "bodies": self.bodies,
            "answers": self.answers,
            "events": self.events,
            "lists": self.lists,
            "profiles": self.profiles,
            "subscriptions": self.subscriptions,
            "questions": self.questions,
        }


def default_budget_bytes() -> int:
    """A quarter of what the process, its container or the machine may have, but not less than 128 MiB."""
    return max(LEAST_BUDGET_BYTES, _memory_bytes() // _PART_OF_MEMORY)


def _memory_bytes() -> int:
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *_limits_of_process(), *_limits_of_groups(_CGROUPS, _OWN_CGROUPS)])


def _limits_of_process() -> Iterator[int]:
    """What this process may have at most: its address space, and what of that can be written to."""
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        limit, _ = resource.getrlimit(kind)
        if limit != resource.RLIM_INFINITY:
            yield limit


def _limits_of_groups(root: Path, own: Path) -> Iterator[int]:
    """What its control groups may have: in a container, the root is its own; a service is further down.

    See cgroups(7), "/proc files". A group is bound by those around it, too.
    """
    places = [(root, "memory.max"), (root / "memory", "memory.limit_in_bytes")]
    with contextlib.suppress(OSError, ValueError):  # there are none here
        for line in own.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                group, name = root, "memory.max"
            elif "memory" in controllers.split(","):
                group, name = root / "memory", "memory.limit_in_bytes"
            else:
                continue
            for part in Path(path).parts[1:]:
                group = group / part
                places.append((group, name))
    for group, name in places:
        if (limit := _read_limit(group / name)) is not None:
            yield limit


def _read_limit(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
