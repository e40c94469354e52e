"""Signing in through the proxy, at a server that knows nothing of it, with the official client.

The client may reach the public address only: whatever leads it elsewhere fails the test.
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from mcp import ClientSession
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from mcp.types import TextContent
from pydantic import AnyUrl

from .launch import SERVERS, Fleet, Program, Proxy, accepts_connections, program_environment, unused_port

pytestmark = pytest.mark.e2e

CALLBACK = "http://localhost:3334/oauth/callback"


class Storage:
    """Keeps what the client learns, in memory."""

    def __init__(self) -> None:
        self.tokens: OAuthToken | None = None
        self.client: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        """The tokens that there are."""
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        """New tokens."""
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        """What the client is known by."""
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        """What the client has been registered as."""
        self.client = client_info


class Public(httpx.AsyncHTTPTransport):
    """A network in which there is one origin."""

    def __init__(self, origin: str) -> None:
        super().__init__()
        self.origin = origin
        self.answers: list[tuple[str, int]] = []  # of which path, with which status

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, if it is for that origin."""
        origin = f"{request.url.scheme}://{request.url.netloc.decode()}"
        assert origin == self.origin, f"the client was led to {request.url}"
        answer = await super().handle_async_request(request)
        self.answers.append((request.url.path, answer.status_code))
        return answer


class User:
    """Somebody with a client, and a browser that comes as far as the client does."""

    def __init__(self, origin: str) -> None:
        self.network = Public(origin)
        self.pages: list[str] = []
        self.issuer: str | None = None
        self._code: tuple[str, str | None] = ("", None)

    async def open_browser(self, url: str) -> None:
        """Follow redirects until they lead back to the client."""
        async with httpx.AsyncClient(transport=self.network) as browser:
            while not url.startswith(CALLBACK):
                self.pages.append(urlsplit(url).path)
                answer = await browser.get(url)
                assert answer.status_code == 302, answer.text
                url = answer.headers["Location"]
        told = parse_qs(urlsplit(url).query)
        self.issuer = told["iss"][0]
        self._code = told["code"][0], told["state"][0]

    async def returned(self) -> tuple[str, str | None]:
        """What the browser brought back."""
        return self._code

    async def count(self) -> list[str]:
        """Sign in, and call a tool twice."""
        provider = OAuthClientProvider(
            server_url=f"{self.network.origin}/mcp",
            client_metadata=OAuthClientMetadata(client_name="test", redirect_uris=[AnyUrl(CALLBACK)]),
            storage=Storage(),
            redirect_handler=self.open_browser,
            callback_handler=self.returned,
        )
        async with (
            httpx.AsyncClient(auth=provider, transport=self.network, timeout=20) as http,
            streamable_http_client(f"{self.network.origin}/mcp", http_client=http) as (read, write, _),
            ClientSession(read, write) as session,
        ):
            await session.initialize()
            texts = []
            for _ in range(2):
                [content] = (await session.call_tool("increment")).content
                assert isinstance(content, TextContent)
                texts.append(content.text)
            return texts


Stand = Callable[..., Proxy]


@pytest.fixture
def stand(owned: Fleet, tmp_path: Path) -> Iterator[Stand]:
    """Starts a server with its options, and a proxy before it that is public at an address of its own."""
    running: list[Program] = []

    def start(*options: str, named: bool = False) -> Proxy:
        inner, outer = unused_port(), unused_port()
        public = f"http://localhost:{outer}"
        name = ("--name", public) if named else ()
        program = Program(
            name="sign-in",
            command=[
                sys.executable,
                str(SERVERS / "signin_server.py"),
                "--port",
                str(inner),
                *name,
                *options,
            ],
            log=tmp_path / "server.log",
            environment=program_environment(tmp_path / "home"),
        )
        running.append(program)
        program.start(lambda: accepts_connections(inner))
        return owned.new_proxy(
            f"http://127.0.0.1:{inner}/mcp", "--public-url", public, listen=f"127.0.0.1:{outer}"
        )

    yield start
    for program in running:
        program.kill()


async def test_signing_in_ends_at_the_public_address(stand: Stand) -> None:
    """Discovery, registration, the browser's way, the token, and then the calls: all by the public name."""
    origin = stand().origin.replace("127.0.0.1", "localhost")
    user = User(origin)
    assert await user.count() == ["1", "2"]
    assert user.pages == ["/authorize", "/login"]
    assert user.issuer == f"{origin}/"
    assert {("/register", 201), ("/token", 200), ("/mcp", 401), ("/mcp", 200)} <= set(user.network.answers)


async def test_a_server_that_checks_the_audience_has_to_know_its_name(stand: Stand) -> None:
    """The token is for the public name, so a server that was told of it lets the caller in."""
    origin = stand("--check-audience", named=True).origin.replace("127.0.0.1", "localhost")
    assert await User(origin).count() == ["1", "2"]


async def test_a_server_that_does_not_know_its_name_refuses_the_token(stand: Stand) -> None:
    """What the proxy cannot mend: 401 after a sign-in that worked."""
    origin = stand("--check-audience").origin.replace("127.0.0.1", "localhost")
    user = User(origin)
    with pytest.raises(ExceptionGroup):
        await user.count()
    assert ("/token", 200) in user.network.answers
    assert {status for path, status in user.network.answers if path == "/mcp"} == {401}
