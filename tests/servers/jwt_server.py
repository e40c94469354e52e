"""A stateful MCP server whose callers show JWTs: mcp's FastMCP with PyJWT, or fastmcp with its verifier.

python jwt_server.py --port 8000 --library mcp|fastmcp --algorithm RS256|HS256 --key FILE
                     --issuer URL --audience URL [--public URL]

With ``--public``, it tells clients that its name is this, and that the issuer is where they sign in.
"""

import argparse
import asyncio
from pathlib import Path
from typing import Any

import uvicorn
from pydantic import AnyHttpUrl, BaseModel


class Name(BaseModel):
    """What `elicit_name` asks for."""

    name: str


def build_mcp(arguments: argparse.Namespace, key: str) -> tuple[Any, Any]:
    """The official library's server, and its application."""
    import jwt
    from mcp.server.auth.provider import AccessToken
    from mcp.server.auth.settings import AuthSettings
    from mcp.server.fastmcp import FastMCP

    class Verifier:
        async def verify_token(self, token: str) -> AccessToken | None:
            try:
                claims = jwt.decode(
                    token,
                    key,
                    algorithms=[arguments.algorithm],
                    issuer=arguments.issuer,
                    audience=arguments.audience,
                )
            except jwt.PyJWTError:
                return None
            return AccessToken(
                token=token,
                client_id=claims.get("client_id", claims["sub"]),
                scopes=[],
                expires_at=int(claims["exp"]),
                subject=claims["sub"],
                claims=claims,
            )

    origin = arguments.public or f"http://127.0.0.1:{arguments.port}"
    settings = AuthSettings(
        issuer_url=AnyHttpUrl(arguments.issuer), resource_server_url=AnyHttpUrl(f"{origin}/mcp")
    )
    mcp = FastMCP("jwt", auth=settings, token_verifier=Verifier(), host="127.0.0.1", port=arguments.port)
    return mcp, mcp.streamable_http_app


def build_fastmcp(arguments: argparse.Namespace, key: str) -> tuple[Any, Any]:
    """The other library's server, and its application."""
    from fastmcp import FastMCP
    from fastmcp.server.auth import RemoteAuthProvider
    from fastmcp.server.auth.providers.jwt import JWTVerifier

    verifier = JWTVerifier(
        public_key=key, issuer=arguments.issuer, audience=arguments.audience, algorithm=arguments.algorithm
    )
    auth: Any = verifier
    if arguments.public:
        issuers = [AnyHttpUrl(arguments.issuer)]
        auth = RemoteAuthProvider(verifier, authorization_servers=issuers, base_url=arguments.public)
    mcp = FastMCP("jwt", auth=auth)
    return mcp, mcp.http_app


def _declare_changes(mcp: Any) -> None:
    """The 1.x SDK says that its tools never change."""
    from mcp import types

    plain = mcp._mcp_server.get_capabilities

    def capabilities(*args: Any) -> Any:
        found = plain(*args)
        found.tools = types.ToolsCapability(listChanged=True)
        return found

    mcp._mcp_server.get_capabilities = capabilities


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--library", choices=["mcp", "fastmcp"], default="mcp")
    parser.add_argument("--algorithm", default="RS256")
    parser.add_argument("--key", type=Path, required=True)
    parser.add_argument("--issuer", required=True)
    parser.add_argument("--audience", required=True)
    parser.add_argument("--public", default="")
    arguments = parser.parse_args()
    build = build_mcp if arguments.library == "mcp" else build_fastmcp
    mcp, make_app = build(arguments, arguments.key.read_text())
    if arguments.library == "mcp":
        from mcp.server.fastmcp import Context
    else:
        from fastmcp import Context
    counts: dict[str, int] = {}

    async def increment(ctx: Context) -> str:  # type: ignore[type-arg,valid-type]
        """Count the calls of this session."""
        session = ctx.session_id if arguments.library == "fastmcp" else str(id(ctx.session))
        counts[session] = counts.get(session, 0) + 1
        return str(counts[session])

    async def elicit_name(ctx: Context) -> str:  # type: ignore[type-arg,valid-type]
        """Ask the client's user for a name."""
        answer = await ctx.elicit("What is your name?", Name)
        return f"{answer.action}:{answer.data.name if answer.action == 'accept' else ''}"

    async def tools_changed(ctx: Context) -> str:  # type: ignore[type-arg,valid-type]
        """Tell this session that the tools have changed."""
        await ctx.session.send_tool_list_changed()
        return "told"

    for tool in (increment, elicit_name, tools_changed):
        mcp.tool()(tool)
    if arguments.library == "mcp":
        _declare_changes(mcp)
    server = uvicorn.Server(
        uvicorn.Config(
            make_app(),
            host="127.0.0.1",
            port=arguments.port,
            log_level="warning",
            timeout_graceful_shutdown=1,
        )
    )
    asyncio.run(server.serve())


if __name__ == "__main__":
    main()
