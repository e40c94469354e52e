"""When an issuer's keys are fetched, and from where."""

from collections.abc import Mapping
from typing import Any

import pytest
from yarl import URL

from mcp_session_proxy.upstream.key_set import KeySet, KeysUnavailable

ISSUER = "https://issuer.example/tenant"
KEYS = "https://keys.example/set"
OAUTH = "https://issuer.example/.well-known/oauth-authorization-server/tenant"
OPENID = "https://issuer.example/tenant/.well-known/openid-configuration"


class Web:
    """Documents by URL, what was fetched, and a clock."""

    def __init__(self, **documents: Any) -> None:
        self.documents: dict[str, Any] = documents
        self.fetched: list[str] = []
        self.now = 1000.0

    async def fetch(self, url: URL) -> Mapping[str, Any]:
        self.fetched.append(str(url))
        if str(url) not in self.documents:
            raise KeysUnavailable("nobody there")
        found: Mapping[str, Any] = self.documents[str(url)]
        return found

    def keys(self, *, url: str | None = None, issuer: str | None = ISSUER) -> KeySet:
        return KeySet(self.fetch, url=url, issuer=issuer, now=lambda: self.now)

    def offer(self, *kids: str) -> None:
        self.documents[KEYS] = {"keys": [{"kty": "RSA", "kid": kid} for kid in kids]}


async def found(keys: KeySet, kid: str | None) -> list[Any]:
    return [key["kid"] for key in await keys.find(kid)]


@pytest.mark.parametrize("document", [OAUTH, OPENID])
async def test_metadata_say_where(document: str) -> None:
    """OAuth's document or OpenID's: both have the path in the place that their standard gives it."""
    web = Web()
    web.documents[document] = {"issuer": ISSUER, "jwks_uri": KEYS}
    web.offer("a")
    assert await found(web.keys(), "a") == ["a"]


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://mine.example", "jwks_uri": KEYS},
        {"issuer": ISSUER, "jwks_uri": "http://keys.example/set"},
        {"issuer": ISSUER, "jwks_uri": 5},
        {"issuer": ISSUER},
    ],
)
async def test_metadata_that_are_not_believed(metadata: Mapping[str, Any]) -> None:
    """Another issuer's, or keys that anybody on the way could replace."""
    web = Web()
    web.documents[OAUTH] = metadata
    web.offer("a")
    with pytest.raises(KeysUnavailable):
        await web.keys().find("a")


async def test_once_a_minute() -> None:
    """An unknown key is looked for again after a minute; a known one costs nothing."""
    web = Web()
    web.offer("a")
    keys = web.keys(url=KEYS)
    assert await found(keys, "a") == ["a"]
    web.offer("a", "b")
    assert await found(keys, "b") == []
    web.now += 61
    assert await found(keys, "b") == ["b"]
    assert await found(keys, None) == ["a", "b"]
    assert web.fetched == [KEYS, KEYS]


async def test_keys_of_before_stay_while_new_ones_cannot_be_had() -> None:
    """An issuer that is away for a while makes nobody a stranger."""
    web = Web()
    web.offer("a")
    keys = web.keys(url=KEYS)
    assert await found(keys, "a") == ["a"]
    del web.documents[KEYS]
    web.now += 4000
    assert await found(keys, "a") == ["a"]


async def test_withdrawn_keys_are_forgotten() -> None:
    """Within an hour of a token that is asked about."""
    web = Web()
    web.offer("a", "b")
    keys = web.keys(url=KEYS)
    assert await found(keys, "a") == ["a"]
    web.offer("b")
    web.now += 4000
    assert await found(keys, "a") == []


async def test_keys_that_sign_nothing_are_left_out() -> None:
    """Shared secrets, keys for encryption, and what is no key."""
    web = Web()
    web.documents[KEYS] = {
        "keys": [
            {"kty": "oct", "kid": "a"},
            {"kty": "RSA", "use": "enc", "kid": "b"},
            5,
            {"kty": "EC", "kid": "c"},
        ]
    }
    assert await found(web.keys(url=KEYS), None) == ["c"]


async def test_no_set() -> None:
    """What is there is something else."""
    web = Web()
    web.documents[KEYS] = {"keys": "none"}
    with pytest.raises(KeysUnavailable, match="no JWK set"):
        await web.keys(url=KEYS).find(None)
