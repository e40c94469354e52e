"""An OAuth authorization server: clients register, their user signs in at once, and tokens are JWTs that
last for moments and can be refreshed.

    python authorization_server.py --port 8000 --algorithm RS256|HS256 --key FILE --seconds 2 --user ada

It is mcp's own (its routes and its checks), with everything in memory. ``GET /issued`` tells how many access
tokens there were, and how many of those were refreshed ones.
"""

import argparse
import itertools
import secrets
import time
from pathlib import Path
from typing import Any

import jwt
import uvicorn
from mcp.server.auth.provider import (
    AccessToken,
    AuthorizationCode,
    AuthorizationParams,
    OAuthAuthorizationServerProvider,
    RefreshToken,
    construct_redirect_uri,
)
from mcp.server.auth.routes import create_auth_routes
from mcp.server.auth.settings import ClientRegistrationOptions
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken
from pydantic import AnyHttpUrl
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


class Provider(OAuthAuthorizationServerProvider[AuthorizationCode, RefreshToken, AccessToken]):
    """Who is registered, and what was given out."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._issuer = f"http://127.0.0.1:{arguments.port}"
        self._algorithm: str = arguments.algorithm
        self._key: str = arguments.key.read_text()
        self._seconds: int = arguments.seconds
        self._user: str = arguments.user
        self._numbers = itertools.count()
        self._clients: dict[str, OAuthClientInformationFull] = {}
        self._codes: dict[str, AuthorizationCode] = {}
        self._refresh_tokens: dict[str, tuple[RefreshToken, str | None]] = {}
        self.issued = self.refreshed = 0

    async def get_client(self, client_id: str) -> OAuthClientInformationFull | None:
        """A client that has registered."""
        return self._clients.get(client_id)

    async def register_client(self, client_info: OAuthClientInformationFull) -> None:
        """Dynamic registration (RFC 7591)."""
        self._clients[client_info.client_id or ""] = client_info

    async def authorize(self, client: OAuthClientInformationFull, params: AuthorizationParams) -> str:
        """The user signs in without being asked: back to the client, with a code."""
        code = AuthorizationCode(
            code=secrets.token_urlsafe(),
            scopes=params.scopes or [],
            expires_at=time.time() + 60,
            client_id=client.client_id or "",
            code_challenge=params.code_challenge,
            redirect_uri=params.redirect_uri,
            redirect_uri_provided_explicitly=params.redirect_uri_provided_explicitly,
            resource=params.resource,
        )
        self._codes[code.code] = code
        return construct_redirect_uri(str(params.redirect_uri), code=code.code, state=params.state)

    async def load_authorization_code(
        self, client: OAuthClientInformationFull, authorization_code: str
    ) -> AuthorizationCode | None:
        """A code that was given out and not used yet."""
        return self._codes.get(authorization_code)

    async def exchange_authorization_code(
        self, client: OAuthClientInformationFull, authorization_code: AuthorizationCode
    ) -> OAuthToken:
        """Tokens for the resource that the code was asked for."""
        del self._codes[authorization_code.code]
        return self._issue(client, authorization_code.scopes, authorization_code.resource)

    async def load_refresh_token(
        self, client: OAuthClientInformationFull, refresh_token: str
    ) -> RefreshToken | None:
        """One that was given out and not used yet."""
        known = self._refresh_tokens.get(refresh_token)
        return None if known is None else known[0]

    async def exchange_refresh_token(
        self, client: OAuthClientInformationFull, refresh_token: RefreshToken, scopes: list[str]
    ) -> OAuthToken:
        """Another access token, and another refresh token in place of the one that was used."""
        _, resource = self._refresh_tokens.pop(refresh_token.token)
        self.refreshed += 1
        return self._issue(client, scopes, resource)

    def _issue(
        self, client: OAuthClientInformationFull, scopes: list[str], resource: str | None
    ) -> OAuthToken:
        self.issued += 1
        client_id = client.client_id or ""
        claims: dict[str, Any] = {
            "iss": self._issuer,
            "sub": self._user,
            "client_id": client_id,
            "aud": resource,
            "iat": int(time.time()),
            # Whole seconds, and later than the client is told: its time begins when it has the token.
            "exp": int(time.time()) + self._seconds + 2,
            "jti": str(next(self._numbers)),
        }
        refresh = RefreshToken(token=secrets.token_urlsafe(), client_id=client_id, scopes=scopes)
        self._refresh_tokens[refresh.token] = (refresh, resource)
        return OAuthToken(
            access_token=jwt.encode(claims, self._key, algorithm=self._algorithm),
            expires_in=self._seconds,
            refresh_token=refresh.token,
            scope=" ".join(scopes),
        )

    async def load_access_token(self, token: str) -> AccessToken | None:
        """The resource checks them itself."""
        return None

    async def revoke_token(self, token: AccessToken | RefreshToken) -> None:
        """Nobody asks for that."""


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--algorithm", default="RS256")
    parser.add_argument("--key", type=Path, required=True)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--user", default="ada")
    arguments = parser.parse_args()
    provider = Provider(arguments)

    async def issued(_: Request) -> JSONResponse:
        return JSONResponse({"issued": provider.issued, "refreshed": provider.refreshed})

    routes = create_auth_routes(
        provider,
        AnyHttpUrl(f"http://127.0.0.1:{arguments.port}"),
        client_registration_options=ClientRegistrationOptions(enabled=True),
    )
    uvicorn.run(
        Starlette(routes=[*routes, Route("/issued", issued)]),
        host="127.0.0.1",
        port=arguments.port,
        log_level="warning",
        timeout_graceful_shutdown=1,
    )


if __name__ == "__main__":
    main()
