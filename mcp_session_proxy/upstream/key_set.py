"""The public keys with which an issuer's tokens are checked: where they are, and when they are fetched.

RFC 7517 (JWK sets), RFC 8414 (the metadata of authorization servers), OpenID Connect Discovery 1.0.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import aiohttp
from yarl import URL

from ..bounds import ISSUER_KEYS, METADATA_BYTES
from ..protocol.hosts import is_trustworthy

_FETCH_SECONDS: Final = 10.0
# An unknown key may be a new one, or made up: who makes up many has the set fetched no more often.
_AGAIN_SECONDS: Final = 60.0
# Keys that were withdrawn are forgotten by then.
_FRESH_SECONDS: Final = 3600.0
# The asymmetric ones. With others, whoever could check a token could make one.
_KINDS: Final = frozenset({"RSA", "EC", "OKP"})

Fetch = Callable[[URL], Awaitable[Mapping[str, Any]]]
Key = Mapping[str, Any]


class KeysUnavailable(Exception):
    """The issuer's keys cannot be had now. The text says why, for the operator."""


class KeySet:
    """An issuer's keys, fetched when first needed. ``fetch`` gives a JSON object or raises KeysUnavailable.

    They are at ``url``, or where the metadata of ``issuer`` say.
    """

    def __init__(
        self,
        fetch: Fetch,
        *,
        url: str | None,
        issuer: str | None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch = fetch
        self._url = url
        self._issuer = issuer
        self._now = now
        self._keys: Sequence[Key] | None = None
        self._tried_at: float | None = None
        self._fetched_at = 0.0
        self._problem = ""
        self._fetching = asyncio.Lock()

    async def find(self, identifier: str | None) -> Sequence[Key]:
        """The keys that a token with this key id may have been signed with.

        Raises:
            KeysUnavailable: there are none yet, and they cannot be had now.
        """
        found = self._matching(identifier)
        if not found or self._now() - self._fetched_at > _FRESH_SECONDS:
            async with self._fetching:
                # Whoever had the lock before may have fetched what is missing.
                found = self._matching(identifier)
                if not found or self._now() - self._fetched_at > _FRESH_SECONDS:
                    await self._renew()
                    found = self._matching(identifier)
        if self._keys is None:
            raise KeysUnavailable(self._problem)
        return found

    def _matching(self, identifier: str | None) -> Sequence[Key]:
        keys = self._keys or ()
        return keys if identifier is None else [key for key in keys if key.get("kid") == identifier]

    async def _renew(self) -> None:
        """Fetch the set, unless that was tried less than a minute ago. Those of before stay if it fails."""
        now = self._now()
        if self._tried_at is not None and now - self._tried_at < _AGAIN_SECONDS:
            return
        # A try that fails counts, too: an issuer in trouble is not asked for each token.
        self._tried_at = now
        try:
            keys = (await self._fetch(await self._find_url())).get("keys")
            if not isinstance(keys, list):
                raise KeysUnavailable("What is at the URL of the keys is no JWK set.")
        except KeysUnavailable as error:
            self._problem = str(error)
            return
        self._fetched_at = now
        self._keys = [key for key in keys if isinstance(key, dict) and _signs(key)][:ISSUER_KEYS]

    async def _find_url(self) -> URL:
        """Where the keys are. A document is believed that names the very issuer (RFC 8414, section 3.3)."""
        if self._url is not None:
            return URL(self._url)
        assert self._issuer is not None
        problem = ""
        for document in _documents_of(URL(self._issuer)):
            try:
                metadata = await self._fetch(document)
            except KeysUnavailable as error:
                problem = problem or str(error)
                continue
            place = metadata.get("jwks_uri")
            if metadata.get("issuer") == self._issuer and isinstance(place, str) and _is_safe(place):
                return URL(place)
        raise KeysUnavailable(problem or "The issuer's metadata name no keys, or another issuer.")


def _signs(key: Key) -> bool:
    return key.get("kty") in _KINDS and key.get("use", "sig") == "sig"


def _documents_of(issuer: URL) -> Sequence[URL]:
    path = issuer.raw_path.rstrip("/")
    return (
        issuer.with_path(f"/.well-known/oauth-authorization-server{path}", encoded=True),
        issuer.with_path(f"{path}/.well-known/openid-configuration", encoded=True),
    )


def _is_safe(place: str) -> bool:
    try:
        url = URL(place)
    except ValueError:
        return False
    return is_trustworthy(url.scheme, url.host)


def open_key_session() -> aiohttp.ClientSession:
    """A client session for ``fetch_json``; whoever opens it closes it.

    The issuer is somewhere on the internet, so what is trusted there is what the system trusts.
    """
    return aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())


async def fetch_json(http: aiohttp.ClientSession, url: URL) -> Mapping[str, Any]:
    """The JSON object at this URL, within a bound. Redirects are not followed. Raises KeysUnavailable."""
    try:
        timeout = aiohttp.ClientTimeout(total=_FETCH_SECONDS)
        async with http.get(url, timeout=timeout, allow_redirects=False) as answer:
            if answer.status != 200:
                raise KeysUnavailable(f"{url.origin()} answers {answer.status}.")
            body = await _read(answer.content)
        read = json.loads(body)
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError, RecursionError) as error:
        raise KeysUnavailable(f"{url.origin()}: {type(error).__name__}") from error
    if not isinstance(read, dict):
        raise KeysUnavailable(f"{url.origin()} answers with no JSON object.")
    return read


async def _read(content: aiohttp.StreamReader) -> bytes:
    body = bytearray()
    async for chunk in content.iter_any():
        body += chunk
        if len(body) > METADATA_BYTES:
            raise KeysUnavailable(f"The answer has more than {METADATA_BYTES} bytes.")
    return bytes(body)
