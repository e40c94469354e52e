"""A stateful MCP server that is its own authorization server: clients register, sign in, and get tokens.

    python signin_server.py --port 8000 [--name https://mcp.example] [--check-audience]

It knows itself by its own address, unless ``--name`` gives it another one. With ``--check-audience`` it lets
in only tokens that were asked for by that name (RFC 8707). The user's part, a page with a button, is a
redirect here, by way of ``/login``, so that a test can follow it without a browser.
"""

import argparse
import secrets
import time
from urllib.parse import urlencode

import uvicorn
from mcp.server.auth.provider import (
    AccessToken,
    AuthorizationCode,
    AuthorizationParams,
    OAuthAuthorizationServerProvider,
    RefreshToken,
    construct_redirect_uri,
)
from mcp.server.auth.settings import AuthSettings, ClientRegistrationOptions, RevocationOptions
from mcp.server.fastmcp import Context, FastMCP
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken
from pydantic import AnyHttpUrl
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

TOKEN_SECONDS = 3600


class Provider(OAuthAuthorizationServerProvider[AuthorizationCode, RefreshToken, AccessToken]):
    """Keeps everything in memory, and everybody signs in at once."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._clients: dict[str, OAuthClientInformationFull] = {}
        self._waiting: dict[str, AuthorizationParams] = {}
        self._codes: dict[str, AuthorizationCode] = {}
        self._tokens: dict[str, AccessToken] = {}

    async def get_client(self, client_id: str) -> OAuthClientInformationFull | None:
        """A client that has registered."""
        return self._clients.get(client_id)

    async def register_client(self, client_info: OAuthClientInformationFull) -> None:
        """Dynamic registration (RFC 7591)."""
        self._clients[client_info.client_id or ""] = client_info

    async def authorize(self, client: OAuthClientInformationFull, params: AuthorizationParams) -> str:
        """Where the user goes next: to the page for signing in, by this server's name for itself."""
        ticket = secrets.token_urlsafe()
        self._waiting[ticket] = params
        return f"{self._name}/login?{urlencode({'ticket': ticket, 'client_id': client.client_id or ''})}"

    def login(self, ticket: str, client_id: str) -> str:
        """The user has signed in: back to the client, with a code, and with who gives it (RFC 9207)."""
        params = self._waiting.pop(ticket)
        code = AuthorizationCode(
            code=secrets.token_urlsafe(),
            scopes=params.scopes or [],
            expires_at=time.time() + 60,
            client_id=client_id,
            code_challenge=params.code_challenge,
            redirect_uri=params.redirect_uri,
            redirect_uri_provided_explicitly=params.redirect_uri_provided_explicitly,
            resource=params.resource,
        )
        self._codes[code.code] = code
        return construct_redirect_uri(
            str(params.redirect_uri), code=code.code, state=params.state, iss=f"{self._name}/"
        )

    async def load_authorization_code(
        self, client: OAuthClientInformationFull, authorization_code: str
    ) -> AuthorizationCode | None:
        """A code that was given out and not used yet."""
        return self._codes.get(authorization_code)

    async def exchange_authorization_code(
        self, client: OAuthClientInformationFull, authorization_code: AuthorizationCode
    ) -> OAuthToken:
        """A token for the resource that the code was asked for."""
        del self._codes[authorization_code.code]
        token = AccessToken(
            token=secrets.token_urlsafe(),
            client_id=client.client_id or "",
            scopes=authorization_code.scopes,
            expires_at=int(time.time()) + TOKEN_SECONDS,
            resource=authorization_code.resource,
        )
        self._tokens[token.token] = token
        return OAuthToken(access_token=token.token, expires_in=TOKEN_SECONDS)

    async def load_access_token(self, token: str) -> AccessToken | None:
        """A token that was given out."""
        return self._tokens.get(token)

    async def load_refresh_token(
        self, client: OAuthClientInformationFull, refresh_token: str
    ) -> RefreshToken | None:
        """There are none."""
        return None

    async def exchange_refresh_token(
        self, client: OAuthClientInformationFull, refresh_token: RefreshToken, scopes: list[str]
    ) -> OAuthToken:
        """Never asked for."""
        raise NotImplementedError

    async def revoke_token(self, token: AccessToken | RefreshToken) -> None:
        """Forget a token (RFC 7009)."""
        self._tokens.pop(token.token, None)


def build(name: str, *, check_audience: bool) -> FastMCP[None]:
    """The server, with one tool that counts by session."""
    provider = Provider(name)
    auth = AuthSettings(
        issuer_url=AnyHttpUrl(name),
        resource_server_url=AnyHttpUrl(f"{name}/mcp"),
        validate_token_resource=check_audience,
        client_registration_options=ClientRegistrationOptions(enabled=True),
        revocation_options=RevocationOptions(enabled=True),
    )
    mcp = FastMCP("sign-in", auth=auth, auth_server_provider=provider)
    counts: dict[int, int] = {}

    @mcp.tool()
    async def increment(context: Context) -> str:  # type: ignore[type-arg]
        """Count the calls of this session."""
        session = id(context.session)
        counts[session] = counts.get(session, 0) + 1
        return str(counts[session])

    @mcp.custom_route("/login", methods=["GET"])
    async def login(request: Request) -> Response:
        """The page on which a person would press a button."""
        query = request.query_params
        return RedirectResponse(provider.login(query["ticket"], query["client_id"]), status_code=302)

    return mcp


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--name", default="")
    parser.add_argument("--check-audience", action="store_true")
    arguments = parser.parse_args()
    name = arguments.name or f"http://localhost:{arguments.port}"
    mcp = build(name, check_audience=arguments.check_audience)
    uvicorn.run(
        mcp.streamable_http_app(),
        host="127.0.0.1",
        port=arguments.port,
        log_level="warning",
        timeout_graceful_shutdown=1,
    )


if __name__ == "__main__":
    main()
