"""Tokens that are refreshed, at servers with the libraries that most servers have."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Generator
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from mcp.types import ElicitResult

from .launch import SERVERS, Fleet, Program, accepts_connections, program_environment, python, unused_port
from .modern_wire import ModernCaller, accept
from .sdk import call, connected
from .wire import Caller

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

ISSUER = "https://issuer.example"
AUDIENCE = "https://mcp.example/mcp"
NUMBERS = itertools.count()
ENVIRONMENTS = {"mcp": "mcp-1.30", "fastmcp": "mcp-2"}


class Issuer:
    """Makes tokens. ``public`` is what the server is told."""

    def __init__(self, algorithm: str) -> None:
        self.algorithm = algorithm
        if algorithm == "HS256":
            self._key: Any = "a secret of thirty-two bytes or more, as it should be"
            self.public = self._key
        else:
            self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
            form = serialization.PublicFormat.SubjectPublicKeyInfo
            self.public = self._key.public_key().public_bytes(serialization.Encoding.PEM, form).decode()

    def token(self, subject: str = "alice", seconds: float = 600, **more: Any) -> str:
        """A token that differs from every other one."""
        claims = {
            "iss": ISSUER,
            "sub": subject,
            "aud": AUDIENCE,
            "client_id": "app",
            "exp": int(time.time() + seconds),
            "jti": str(next(NUMBERS)),
            **more,
        }
        return jwt.encode(claims, self._key, algorithm=self.algorithm)


class Stand:
    """A server that takes an issuer's tokens, and the proxy before it."""

    def __init__(self, issuer: Issuer, url: str, http: aiohttp.ClientSession) -> None:
        self.issuer = issuer
        self.url = url
        self._http = http

    def caller(self, kind: type[Caller] = Caller) -> Any:
        """Somebody with a token of alice's."""
        return kind(self._http, self.url, token=self.issuer.token())


MakeStand = Callable[..., Stand]


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """Many connections, no cookies."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield session


@pytest.fixture
def stand(owned: Fleet, tmp_path: Path, http: aiohttp.ClientSession) -> Any:
    """Starts the two, with further options of the proxy."""
    programs: list[Program] = []

    def start(library: str, algorithm: str, *options: str) -> Stand:
        issuer, port = Issuer(algorithm), unused_port()
        (tmp_path / "key").write_text(issuer.public)
        command = [python(ENVIRONMENTS[library]), str(SERVERS / "jwt_server.py"), "--port", str(port)]
        command += ["--library", library, "--algorithm", algorithm, "--key", str(tmp_path / "key")]
        command += ["--issuer", ISSUER, "--audience", AUDIENCE]
        home = tmp_path / "home"
        program = Program(
            name="jwt", command=command, log=tmp_path / "jwt.log", environment=program_environment(home)
        )
        program.start(lambda: accepts_connections(port))
        programs.append(program)
        return Stand(issuer, owned.new_proxy(f"http://127.0.0.1:{port}/mcp", *options).url, http)

    yield start
    for program in programs:
        program.terminate(timeout_seconds=3)


SERVERS_WITH_KEYS = [("mcp", "RS256"), ("mcp", "HS256"), ("fastmcp", "RS256"), ("fastmcp", "HS256")]


@pytest.mark.share(5)
@pytest.mark.parametrize(("library", "algorithm"), SERVERS_WITH_KEYS)
@pytest.mark.parametrize("sharing", ["handover", "isolated", "shared", "fresh"])
async def test_counts_go_on(stand: MakeStand, library: str, algorithm: str, sharing: str) -> None:
    """Over three tokens: a client session 1 to 6, and where they share, requests without one 1 to 6."""
    at = stand(library, algorithm, "--sharing", sharing)
    counts = []
    with_session, without = at.caller(), at.caller()
    session = await with_session.open(client="one", capabilities={})
    for _ in range(3):
        counts += [(await with_session.call("increment", session=session)).text for _ in range(2)]
        with_session.token = at.issuer.token()
    assert counts == list("123456")
    if sharing == "fresh":
        return
    without.token = at.issuer.token("bob")
    counts = []
    for _ in range(3):
        counts += [(await without.call("increment")).text for _ in range(2)]
        without.token = at.issuer.token("bob")
    assert counts == list("123456")


@pytest.mark.share(2)
@pytest.mark.parametrize(("library", "algorithm"), SERVERS_WITH_KEYS)
async def test_a_parked_call_is_answered_under_the_new_token(
    stand: MakeStand, library: str, algorithm: str
) -> None:
    """A modern call that asks, is answered by whoever its caller is by then; nobody else can."""
    at = stand(library, algorithm)
    caller = at.caller(ModernCaller)
    asked = (await caller.call_modern("elicit_name")).result
    (key,) = asked["inputRequests"]
    answers = {key: accept(name="Ada")}
    signed, _, _ = at.issuer.token().rpartition(".")
    for stranger in (at.issuer.token("bob"), f"{signed}.forged"):
        thief = ModernCaller(caller.http, at.url, token=stranger)
        reply = await thief.resume_call(asked, answers, "elicit_name")
        assert reply.status in (400, 401), reply
    caller.token = at.issuer.token()
    assert (await caller.resume_call(asked, answers, "elicit_name")).text == "accept:Ada"


@pytest.mark.parametrize(
    ("library", "algorithm", "sharing"),
    [
        ("mcp", "RS256", "handover"),
        ("mcp", "HS256", "isolated"),
        ("fastmcp", "RS256", "shared"),
        ("fastmcp", "HS256", "handover"),
    ],
)
async def test_modern_clients_go_on(stand: MakeStand, library: str, algorithm: str, sharing: str) -> None:
    """Modern requests count 1 to 6 over three tokens, each conversation 1 to 3, and a listener hears on."""
    at = stand(library, algorithm, "--sharing", sharing)
    caller = at.caller(ModernCaller)
    counts, talks = [], []
    async with caller.listen_modern(toolsListChanged=True) as stream:
        for _ in range(3):
            counts += [(await caller.call_modern("increment")).text for _ in range(2)]
            for name in ("one", "two"):
                meta = {"openai/session": name}
                talks.append((await caller.call_modern("increment", meta=meta)).text)
            await caller.call_modern("tools_changed")
            while (message := await stream.next()) is not None:
                if message.get("method") == "notifications/tools/list_changed":
                    break
            caller.token = at.issuer.token()
    assert counts == list("123456")
    assert talks == list("112233")


async def test_questions_go_on(stand: MakeStand) -> None:
    """A legacy client can be asked after its token was refreshed."""
    at = stand("mcp", "RS256")

    async def answer(_: object, params: Any) -> Any:
        return ElicitResult(action="accept", content={"name": "Ada"})

    class Refreshing(httpx.Auth):
        def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
            request.headers["Authorization"] = f"Bearer {at.issuer.token()}"
            yield request

    async with connected(at.url, auth=Refreshing(), elicitation_callback=answer) as session:
        for number in range(1, 4):
            assert await call(session, "increment") == str(number)
            assert await call(session, "elicit_name") == "accept:Ada"


async def test_tokens_of_two_seconds(stand: MakeStand) -> None:
    """Two users whose tokens last for two seconds, calling all the time: neither count ever falls back."""
    at = stand("mcp", "RS256")

    async def life(who: str) -> None:
        caller = Caller(at.caller().http, at.url, token=at.issuer.token(who, 2))
        session = await caller.open(client=who, capabilities={})
        tokens, count, refreshed = 0, 0, time.time()
        while tokens < 7:
            reply = await caller.call("increment", session=session)
            # On a busy machine a token may be over on its way: it was not executed, and a client refreshes.
            if reply.status == 401 or time.time() - refreshed > 0.9:
                caller.token, refreshed = at.issuer.token(who, 2), time.time()
                tokens += 1
            if reply.status != 401:
                count += 1
                assert reply.text == str(count)
        assert count >= tokens / 2

    await asyncio.gather(life("alice"), life("bob"))


async def test_everybody_refreshes_at_once(stand: MakeStand) -> None:
    """Two hundred callers with a new token each, all in the same moment: each goes on where it was."""
    at = stand("mcp", "HS256")
    callers = [Caller(at.caller().http, at.url, token=at.issuer.token(f"u{n}")) for n in range(200)]
    assert {(await each.call("increment")).text for each in callers} == {"1"}
    for count in ("2", "3"):
        for number, each in enumerate(callers):
            each.token = at.issuer.token(f"u{number}")
        replies = await asyncio.gather(*[each.call("increment") for each in callers])
        assert {reply.text for reply in replies} == {count}
