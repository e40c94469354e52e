"""Which session ids are adopted, and with which profile.

An id that a client brings may be unknown here: a platform chose it, it belonged to another principal, or we
minted it and have forgotten it since. To adopt it means to begin a client session under it. This module only
decides; ``binding`` begins the client session.
"""

from collections.abc import Callable

from ..errors import ProxyError
from . import minting
from .client import ClientSession
from .directory import Directory
from .identity import Profile
from .modes import UnknownSessionRule


class Adoption:
    """Decides about the ids that clients bring. ``rule`` may be replaced at any time.

    ``sessionless`` is the profile for an id of which nothing is known. ``profile_of`` reads the profile that
    an id of ours carries; it raises what it raises for a bad ``initialize``.
    """

    def __init__(
        self,
        *,
        directory: Directory,
        sessionless: Profile,
        profile_of: Callable[[bytes], Profile],
        rule: UnknownSessionRule,
    ) -> None:
        self.rule = rule
        self._directory = directory
        self._sessionless = sessionless
        self._profile_of = profile_of

    def adopts(self, identifier: str) -> bool:
        """Whether an id that the principal is not known by would be adopted."""
        return self.profile_for(identifier) is not None

    def profile_for(self, identifier: str) -> Profile | None:
        """The profile with which an id that the principal is not known by is adopted; None if it is not.

        An id that is known under another principal is most likely this client's own, from before its token
        was renewed. It proves too little to hand over a session or anything that is kept for it, but the
        profile goes with it, so that the server can go on asking. To a thief the profile is worth nothing:
        anybody may declare any capabilities.

        An id of ours is not adopted if its client could be asked something and nobody knows any more what.
        Adopted, the client would never be asked again and not know why; told 404, it starts anew
        (MCP 2025-11-25, basic/transports, "Session Management"). All other ids of ours are adopted, because
        most clients give up when they are told 404.
        """
        if self.rule is UnknownSessionRule.REJECT:
            return None
        known = self._directory.find_profile(identifier)
        if known is not None:
            return known
        if not minting.is_of_capable_client(identifier):
            return self._sessionless
        carried = minting.read_profile_of(identifier)
        try:
            return None if carried is None else self._profile_of(carried)
        except ProxyError:  # the id is forged, or there is no memory for another profile
            return None

    def takes_over(self, brought_id: str, known: ClientSession | None) -> bool:
        """Whether the client session of an ``initialize`` is known by the id that came with it from now on.

        That is so for ids that a platform chose. ``known`` is the client session that the principal has under
        this id, if it has one.
        """
        if self.rule is UnknownSessionRule.REJECT:
            return False
        return not minting.is_ours(brought_id) if known is None else known.record.adopted
