"""Whoever issues tokens, for a proxy that checks them itself: metadata, keys, and signed JWTs."""

import json
import time
from functools import cache
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa
from http_server import HttpServer


@cache
def key_of(name: str) -> rsa.RSAPrivateKey:
    """A key, the same one for the same name: to make one costs as much as all the rest of a test."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


class Issuer(HttpServer):
    """Whoever issues tokens: metadata and keys; ``fetched`` are the paths that were asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.keys: dict[str, Any] = {}
        self.fetched: list[str] = []
        self.there = True
        self.add_key("first")

    @property
    def origin(self) -> str:
        return self.url.removesuffix("/mcp")

    def add_key(self, kid: str) -> None:
        self.keys[kid] = key_of(kid)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.fetched.append(request.path)
        if not self.there:
            return web.Response(status=500)
        if request.path == "/.well-known/oauth-authorization-server":
            return web.json_response({"issuer": self.origin, "jwks_uri": f"{self.origin}/keys"})
        if request.path == "/keys":
            sets = [
                json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key())) | {"kid": kid}
                for kid, key in self.keys.items()
            ]
            return web.json_response(
                {
                    "keys": [
                        *sets,
                        {
                            "kty": "oct",
                            "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0",
                            "kid": "shared",
                        },
                    ]
                }
            )
        return web.Response(status=404)

    def token(self, subject: str = "alice", *, kid: str = "first", key: Any = None, **more: Any) -> str:
        claims = {
            "iss": self.origin,
            "sub": subject,
            "aud": "us",
            "exp": time.time() + 600,
            "jti": str(time.time_ns()),
        }
        said = {name: value for name, value in {**claims, **more}.items() if value is not None}
        return jwt.encode(said, key or self.keys[kid], algorithm="RS256", headers={"kid": kid})
