"""Clients' profiles: each kept once, for as long as somebody needs it, within a share of the memory.

Every client session and every upstream session holds on to a profile, and most clients of a kind send the
very same one. Equal means equal in every byte: a profile holds what its client said of itself, so two
callers share one object only where there is nothing to tell them apart.
"""

import weakref
from collections import OrderedDict
from dataclasses import replace

from ..bounds import REMEMBERED_PROFILE_BYTES, REMEMBERED_PROFILES
from ..memory import Share
from ..protocol import lowering
from .identity import Profile, read_profile


class Profiles:
    """All profiles that are in use."""

    def __init__(self, share: Share) -> None:
        self._share = share
        self._kept: weakref.WeakValueDictionary[tuple[bytes, bool], Profile] = weakref.WeakValueDictionary()
        # Modern clients send their capabilities with every request; what is usual is looked up, not read.
        self._usual: OrderedDict[tuple[bytes, bytes | None], Profile] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def of_initialize(self, params: bytes | None) -> Profile:
        """The profile of a legacy client's ``initialize``.

        Raises:
            BadRequest, InvalidParams: as ``read_profile``.
            OverBudget: there is no memory for one more.
        """
        return self._keep(read_profile(params))

    def _keep(self, profile: Profile) -> Profile:
        known = self._kept.get((profile.params, profile.version_is_free))
        if known is not None:
            return known
        size_bytes = len(profile.params)
        # Large ones leave a part of the share to others: else one caller's would keep every other client out.
        self._share.take(size_bytes, large=size_bytes > REMEMBERED_PROFILE_BYTES)
        # At the end of the process nobody counts any more.
        weakref.finalize(profile, self._share.give_back, size_bytes).atexit = False
        self._kept[profile.params, profile.version_is_free] = profile
        return profile

    def of_modern(self, capabilities: bytes, client_info: bytes | None) -> Profile:
        """The profile of a modern request, by what its ``_meta`` says. Raises as ``of_initialize``."""
        said = (capabilities, client_info)
        profile = self._usual.get(said)
        if profile is not None:
            return profile
        lowered = read_profile(lowering.lower_initialize(capabilities, client_info))
        profile = self._keep(replace(lowered, version_is_free=True))
        if len(capabilities) + len(client_info or b"") <= REMEMBERED_PROFILE_BYTES:
            self._usual[said] = profile
            if len(self._usual) > REMEMBERED_PROFILES:
                self._usual.popitem(last=False)
        return profile
