"""Whose tokens a server is known to check. Pure."""

from collections import OrderedDict

from ..bounds import KNOWN_ISSUERS


class CheckedIssuers:
    """The issuers of whose tokens a server has refused one for its signature, having taken it with the right
    one.
    """

    def __init__(self) -> None:
        self._issuers: OrderedDict[str, None] = OrderedDict()

    def __contains__(self, issuer: str) -> bool:
        return issuer in self._issuers

    def add(self, issuer: str) -> None:
        """It has."""
        if len(self._issuers) >= KNOWN_ISSUERS:
            self._issuers.popitem(last=False)
        self._issuers[issuer] = None

    def forget(self) -> None:
        """The server was away: what comes back may be another one."""
        self._issuers.clear()
