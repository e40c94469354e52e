"""A hand-made MCP server that checks its callers' tokens, and the tokens that it takes or refuses.

:func:`token` makes a signed JWT (HS256, by hand: what is wrong with it is up to the test)::

    alice = token("alice")
    forged = token("alice", key=b"of somebody else")
"""

import asyncio
import base64
import hashlib
import hmac
import itertools
import json
import time
from typing import Any

from aiohttp import web
from http_server import HttpServer
from messages import call
from proxy_bench import Bench, until

ISSUER = "https://issuer.example"
KEY = b"the issuer's"
AUDIENCE = "https://mcp.example/mcp"
CHALLENGE = 'Bearer error="invalid_token", resource_metadata="https://mcp.example/.well-known/x"'
_NUMBERS = itertools.count()


def encode(part: object) -> str:
    """One part of a token."""
    data = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token(
    subject: str | None = "alice",
    *,
    key: bytes = KEY,
    seconds: float | None = 3600,
    alg: str = "HS256",
    **more: Any,
) -> str:
    """A token that differs from every other one; claims that are None are left out."""
    claims = {
        "iss": ISSUER,
        "sub": subject,
        "aud": AUDIENCE,
        "exp": None if seconds is None else time.time() + seconds,
        "jti": str(next(_NUMBERS)),
        **more,
    }
    said = {name: value for name, value in claims.items() if value is not None}
    text = f"{encode({'alg': alg, 'typ': 'JWT'})}.{encode(said)}"
    return f"{text}.{encode(hmac.digest(key, text.encode(), hashlib.sha256))}"


def unsigned(subject: str = "alice") -> str:
    """A token that says of itself that it has no signature, and has some bytes in its place all the same."""
    return token(subject, alg="none")


def bearer(text: str) -> dict[str, str]:
    """The header with this token."""
    return {"Authorization": f"Bearer {text}"}


class TokenServer(HttpServer):
    """Checks signature, issuer, audience and time, and whose session it is, as official servers do.

    ``checks`` turns all of that off; ``refuses_when`` holds back refusals, by header. ``owners``: who has
    opened each session. Tokens that are over are taken for ``leeway_seconds`` more, as clocks may differ.
    """

    def __init__(self) -> None:
        super().__init__()
        self.checks = True
        self.leeway_seconds = 0.0
        self.owners: dict[str, str] = {}
        self.refused: list[web.Request] = []
        self.refuses_when: dict[str, asyncio.Event] = {}

    def caller_of(self, request: web.Request) -> str | None:
        """Who has sent a request, if its token is good."""
        return _caller(
            request.headers.get("Authorization", ""), check=self.checks, leeway_seconds=self.leeway_seconds
        )

    async def answer(self, request: web.Request) -> web.StreamResponse:
        caller = self.caller_of(request)
        if caller is None:
            self.refused.append(request)
            if (moment := self.refuses_when.get(request.headers.get("Authorization", ""))) is not None:
                await moment.wait()
            return web.Response(status=401, headers={"WWW-Authenticate": CHALLENGE})
        session = request.headers.get("Mcp-Session-Id")
        if session is not None and self.owners.get(session, caller) != caller:
            self.refused.append(request)
            return web.Response(status=404)
        answer = await super().answer(request)
        if (opened := answer.headers.get("Mcp-Session-Id")) is not None:
            self.owners[opened] = caller
        return answer


def _caller(authorization: str, *, check: bool, leeway_seconds: float) -> str | None:
    scheme, _, text = authorization.partition(" ")
    if not check:
        return "somebody"
    if scheme.lower() != "bearer" or text.count(".") != 2:
        return None
    signed, _, signature = text.rpartition(".")
    claims = json.loads(base64.urlsafe_b64decode(signed.partition(".")[2] + "=="))
    right = encode(hmac.digest(KEY, signed.encode(), hashlib.sha256))
    if (
        signature != right
        or json.loads(base64.urlsafe_b64decode(signed.partition(".")[0] + "=="))["alg"] != "HS256"
    ):
        return None
    if claims["iss"] != ISSUER or claims.get("aud") != AUDIENCE:
        return None
    if "exp" in claims and claims["exp"] + leeway_seconds <= time.time():
        return None
    return f"{claims.get('sub')} {claims.get('tid')}"


async def count(bench: Bench, text: str, session: str | None = None) -> int:
    """One call of the counter by whoever has this token."""
    answer = await bench.post(call(), session=session, headers=bearer(text))
    assert answer.status == 200, answer.body
    counted: int = answer.json["result"]["count"]
    return counted


async def settled(bench: Bench) -> None:
    """The first token has been asked about, and so has what the server makes of a damaged signature."""
    await until(lambda: not bench.proxy.core.acceptances._founding)
