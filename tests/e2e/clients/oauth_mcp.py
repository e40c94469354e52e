"""mcp 1's client with its own OAuth: signs in, and counts for a while. Usage: oauth_mcp.py URL SECONDS MODE

Prints a JSON object: `counts`, what each call of `increment` gave, and `tokens`, how many it was given.
"""

import asyncio
import json
import sys
import time
from urllib.parse import parse_qs, urlsplit

import httpx
from mcp import ClientSession
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from mcp.types import TextContent
from pydantic import AnyUrl

CALLBACK = "http://localhost:3334/oauth/callback"


class Storage:
    """Keeps what the client learns, in memory, and counts the tokens."""

    def __init__(self) -> None:
        self.tokens: OAuthToken | None = None
        self.client: OAuthClientInformationFull | None = None
        self.given = 0

    async def get_tokens(self) -> OAuthToken | None:
        """The tokens that there are."""
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        """New tokens."""
        self.tokens = tokens
        self.given += 1

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        """What the client is known by."""
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        """The client has registered."""
        self.client = client_info


class User:
    """Follows the way of the browser."""

    def __init__(self) -> None:
        self._code: tuple[str, str | None] = ("", None)

    async def sign_in(self, url: str) -> None:
        """To the authorization server, and back to the client."""
        async with httpx.AsyncClient() as browser:
            back = (await browser.get(url)).headers["Location"]
        told = parse_qs(urlsplit(back).query)
        self._code = told["code"][0], told["state"][0]

    async def returned(self) -> tuple[str, str | None]:
        """What the browser brought back."""
        return self._code


async def main(url: str, seconds: float) -> None:
    """Count until the time is over."""
    storage, user = Storage(), User()
    provider = OAuthClientProvider(
        server_url=url,
        client_metadata=OAuthClientMetadata(client_name="oauth", redirect_uris=[AnyUrl(CALLBACK)]),
        storage=storage,
        redirect_handler=user.sign_in,
        callback_handler=user.returned,
    )
    counts: list[str] = []
    async with (
        httpx.AsyncClient(auth=provider, timeout=30) as http,
        streamable_http_client(url, http_client=http) as (read, write, _),
        ClientSession(read, write) as session,
    ):
        await session.initialize()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            [content] = (await session.call_tool("increment")).content
            assert isinstance(content, TextContent)
            counts.append(content.text)
            await asyncio.sleep(0.05)
    print(json.dumps({"counts": counts, "tokens": storage.given}))


asyncio.run(main(sys.argv[1], float(sys.argv[2])))
