"""Who may change something through the admin listener. Pure.

Reading is free, as it is on every exporter of metrics. Whoever wants to change something shows the token, if
there is one; without one, only this machine may. And nobody may be made to by a web page: a request that
changes something must have what a page of another origin cannot send without asking first (Fetch, "CORS").
"""

import hmac
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Final

from ...protocol import revisions

_CHALLENGE: Final = 'Bearer realm="mcp-session-proxy"'
_SCHEME: Final = "bearer"
_OWN_SITE: Final = ("same-origin", "none")
_ASK_HEADER: Final = "X-Requested-With"
_HOW_TO_ASK: Final = (
    f'Send the header "{_ASK_HEADER}: mcp-session-proxy", or "Content-Type: {revisions.JSON}".'
)
_HOW_TO_ALLOW: Final = (
    "The admin listener can be reached by other machines and has no token. Set MCP_SESSION_PROXY_ADMIN_TOKEN "
    "(or --admin-token), or listen on loopback with --admin-listen 127.0.0.1:9090."
)


class Changes(StrEnum):
    """Who may change something: anybody who can connect, who shows the token, or nobody."""

    OPEN = "open"
    TOKEN = "token"
    REFUSED = "refused"


class NotAllowed(Exception):
    """The answer to a request that may not do what it wants: a status, a reason word and a sentence."""

    def __init__(
        self, status: int, reason: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message
        self.headers: Mapping[str, str] = headers or {}


class Access:
    """The rules for one listener. ``token`` gives what operators have to show now, if anything."""

    def __init__(self, token: Callable[[], str | None], *, listens_on_loopback: bool) -> None:
        self._token = token
        self._listens_on_loopback = listens_on_loopback

    @property
    def changes(self) -> Changes:
        """Who may change something now."""
        if self._token() is not None:
            return Changes.TOKEN
        return Changes.OPEN if self._listens_on_loopback else Changes.REFUSED

    def check(self, headers: Mapping[str, str]) -> None:
        """Judge a request that would change something by its headers (found whatever their case).

        Raises:
            Refusal: 403 where nobody may or the request may be a web page's doing, 401 without the token.
        """
        if self.changes is Changes.REFUSED:
            raise NotAllowed(403, "changes-refused", _HOW_TO_ALLOW)
        if headers.get("Sec-Fetch-Site", "none") not in _OWN_SITE:
            raise NotAllowed(403, "foreign-page", "Another site's page may not change anything here.")
        if (token := self._token()) is not None:
            _check_token(headers.get("Authorization"), token.encode())
        elif not _is_deliberate(headers):
            raise NotAllowed(403, "header-missing", f"A web page could have sent this. {_HOW_TO_ASK}")


def _check_token(authorization: str | None, token: bytes) -> None:
    """A page of another origin can send no ``Authorization``, so the token is proof of intent, too."""
    if authorization is None:
        raise NotAllowed(
            401,
            "token-required",
            'Show the admin token: "Authorization: Bearer ...".',
            {"WWW-Authenticate": _CHALLENGE},
        )
    scheme, _, shown = authorization.partition(" ")
    # Bytes that are no UTF-8 come as surrogates; no token has any.
    if scheme.lower() != _SCHEME or not hmac.compare_digest(
        shown.strip().encode(errors="surrogateescape"), token
    ):
        raise NotAllowed(
            401,
            "wrong-token",
            "This is not the admin token.",
            {"WWW-Authenticate": f'{_CHALLENGE}, error="invalid_token"'},
        )


def _is_deliberate(headers: Mapping[str, str]) -> bool:
    content_type = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return bool(headers.get(_ASK_HEADER)) or content_type == revisions.JSON
