"""Tokens that the proxy checks itself, with the keys of whoever issued them (--token-identity jwks)."""

import time
from collections.abc import AsyncIterator
from typing import Any

import jwt
import pytest
from messages import call
from proxy_bench import Bench
from token_issuer import Issuer, key_of
from token_server import bearer

from mcp_session_proxy import events


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    """An issuer that runs."""
    async with Issuer() as issuer:
        yield issuer


async def count(bench: Bench, text: str) -> int:
    """One call of the counter by whoever has this token."""
    answer = await bench.post(call(), headers=bearer(text))
    counted: int = answer.json["result"]["count"]
    return counted


@pytest.fixture
async def start(bench: Bench, issuer: Issuer) -> Any:
    """Starts the proxy, which is told of the issuer. The server before which it is checks nothing."""

    async def start(**options: Any) -> None:
        chosen = {"token_issuer": issuer.origin, "token_audience": "us", **options}
        await bench.start(token_identity="jwks", **chosen)

    return start


async def test_good_tokens_count_by_their_claims(bench: Bench, issuer: Issuer, start: Any) -> None:
    """From the first on, without a handshake more than the session's; the keys are fetched once."""
    await start()
    assert [await count(bench, issuer.token()) for _ in range(3)] == [1, 2, 3]
    assert await count(bench, issuer.token("bob")) == 1
    assert len(bench.server.posts("initialize")) == 2
    assert issuer.fetched == ["/.well-known/oauth-authorization-server", "/keys"]


async def test_the_keys_may_be_named(bench: Bench, issuer: Issuer, start: Any) -> None:
    """Then no metadata are needed."""
    await start(token_issuer="", jwks_url=f"{issuer.origin}/keys")
    assert [await count(bench, issuer.token()) for _ in range(2)] == [1, 2]
    assert issuer.fetched == ["/keys"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"key": key_of("somebody else")},
        {"iss": "https://mine.example"},
        {"aud": "them"},
        {"aud": None},
        {"exp": 1},
        {"nbf": time.time() + 600},
    ],
)
async def test_wrong_tokens_count_by_their_bytes(
    bench: Bench, issuer: Issuer, start: Any, wrong: dict[str, Any]
) -> None:
    """Each is somebody else, even at a server that takes anything, and goes there all the same."""
    await start()
    assert await count(bench, issuer.token()) == 1
    forged = issuer.token(**wrong)
    assert [await count(bench, forged) for _ in range(2)] == [1, 2]
    assert await count(bench, issuer.token(**wrong)) == 1
    assert await count(bench, issuer.token()) == 2


async def test_shared_secrets_check_nothing(bench: Bench, issuer: Issuer, start: Any) -> None:
    """A symmetric key in the set would let everybody who can read it make tokens."""
    await start()
    assert await count(bench, issuer.token()) == 1
    claims = jwt.decode(issuer.token(), options={"verify_signature": False})
    forged = jwt.encode(claims, "secret" * 6, algorithm="HS256", headers={"kid": "shared"})
    assert await count(bench, forged) == 1


async def test_keys_that_are_made_up_are_not_fetched(bench: Bench, issuer: Issuer, start: Any) -> None:
    """An unknown key has the set fetched again, but not less than a minute after the last time."""
    await start()
    key = key_of("somebody else")
    assert await count(bench, issuer.token()) == 1
    for number in range(5):
        assert await count(bench, issuer.token(kid=f"made up {number}", key=key)) == 1
    assert issuer.fetched.count("/keys") == 1


async def test_an_issuer_that_is_away_is_told_once(bench: Bench, issuer: Issuer, start: Any) -> None:
    """Without keys, tokens count by their bytes, and requests are served."""
    issuer.there = False
    await start()
    told: list[object] = []
    bench.watch(told.append)
    assert [await count(bench, issuer.token()) for _ in range(3)] == [1, 1, 1]
    assert len([event for event in told if isinstance(event, events.KeysMissing)]) == 1
