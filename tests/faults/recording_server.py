"""The counter server with a memory that outlives it: what was executed is appended to a file at once.

    python recording_server.py --port 8000 --record executions.txt [--signed-with SECRET]

More tools: `record(key, seconds)` writes `key` to the file, sleeps and answers; `recall()` tells whose it is.
Its lists name the caller: the description of every tool holds the Authorization that asked for it. With
``--signed-with``, callers need JWTs that are signed so (HS256), and are who these say.
"""

import argparse
import os
import sys
from collections import deque
from pathlib import Path
from typing import Any

import anyio

sys.path.insert(0, str(Path(__file__).parent.parent / "servers"))
import counter_server
from mcp.server.fastmcp import Context, FastMCP

plain_build = counter_server.build


def build(arguments: argparse.Namespace) -> FastMCP:
    """The counter server with more tools."""
    mcp = plain_build(arguments)
    counter_server.ledger.requests = deque(maxlen=200_000)
    file = os.open(RECORD, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    @mcp.tool()
    async def record(key: str, ctx: Context, seconds: float = 0.0) -> str:
        """Write `key` down, sleep, answer with it."""
        os.write(file, f"{key}\n".encode())
        counter_server.ledger.calls["record"] += 1
        await anyio.sleep(seconds)
        return key

    server = mcp._mcp_server

    @server.list_tools()
    async def list_tools() -> Any:
        request = server.request_context.request
        known = os.environ if request is None else request.headers
        caller = known.get(counter_server.CALLER if request is None else "authorization", "-")
        tools = await mcp.list_tools()
        for tool in tools:
            tool.description = f"{tool.description} For {caller}."
        return tools

    return mcp


def check_tokens(secret: str) -> Any:
    """What makes mcp's server check its callers' tokens."""
    import jwt
    from mcp.server.auth.provider import AccessToken
    from mcp.server.auth.settings import AuthSettings
    from pydantic import AnyHttpUrl

    class Verifier:
        async def verify_token(self, token: str) -> AccessToken | None:
            try:
                claims = jwt.decode(token, secret, algorithms=["HS256"])
            except jwt.PyJWTError:
                return None
            subject = claims["sub"]
            return AccessToken(token=token, client_id=subject, scopes=[], subject=subject, claims=claims)

    def options(arguments: argparse.Namespace) -> dict[str, Any]:
        origin = AnyHttpUrl(f"http://127.0.0.1:{arguments.port}")
        return {
            "token_verifier": Verifier(),
            "auth": AuthSettings(issuer_url=origin, resource_server_url=origin),
        }

    return options


parser = argparse.ArgumentParser(add_help=False)
parser.add_argument("--record", required=True)
parser.add_argument("--signed-with", default="")
mine, rest = parser.parse_known_args()
RECORD = mine.record
if __name__ == "__main__":
    if mine.signed_with:
        counter_server._auth_options = check_tokens(mine.signed_with)
        rest += ["--auth", "whoever is signed for"]
    sys.argv[1:] = rest
    counter_server.build = build
    counter_server.main()
