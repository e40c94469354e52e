"""Two principals at work at the same proxy, as hard as they can: neither ever sees a trace of the other.

HAMMER_SECONDS says for how long, in each sharing mode; half as long where their tokens change every second.
"""

import asyncio
import base64
import contextlib
import itertools
import json
import os
import re
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest
from e2e.cluster import Clusters
from e2e.launch import Fleet, Proxy, Server
from e2e.modern_wire import ModernCaller, accept
from e2e.wire import Caller, Message, Reply
from selection import THOROUGH

from .conftest import SECRET

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

SECONDS = float(os.environ.get("HAMMER_SECONDS", "4"))
WORKERS = 4
# Sessions come and go.
LEAVING = ("--detach-after", "1s", "--idle-timeout", "2s", "--linger", "500ms")
# The variable in which a process finds who it is for.
CALLER = "CALLER"

TOKEN = re.compile(rb"[\w-]+\.([\w-]+)\.[\w-]+")


def signed(word: str, number: int, secret: str = SECRET) -> str:
    """A token that speaks for whoever has this word."""
    claims = {"iss": "https://issuer.example", "sub": word, "jti": str(number), "exp": int(time.time()) + 4}
    return jwt.encode(claims, secret, algorithm="HS256")


def speaks_for(authorization: str) -> str:
    """The word of whoever shows this."""
    text = authorization.removeprefix("Bearer ")
    if text.count(".") != 2:
        return text
    return str(jwt.decode(text, options={"verify_signature": False})["sub"])


class Party:
    """One principal: a word that occurs in everything it says, and the other's, which it must never hear.

    Its token is the word, or, if it ``rotates``, a signed one that is another one each second.
    """

    def __init__(
        self, http: aiohttp.ClientSession, url: str, word: str, foreign: str, *, rotates: bool
    ) -> None:
        self.http = http
        self.url = url
        self.word = word
        self.foreign = foreign.encode()
        self.rotates = rotates
        self.checked: Counter[str] = Counter()
        # Over pipes a server does not say in which call it asks, so its first question may reach another one.
        self.modern_turn: contextlib.AbstractAsyncContextManager[object] = contextlib.nullcontext()
        self.tokens: dict[int, str] = {}

    @property
    def authorization(self) -> str:
        """What it shows now."""
        if not self.rotates:
            return f"Bearer {self.word}"
        second = int(time.time())
        if second not in self.tokens:
            self.tokens[second] = signed(self.word, second)
        return f"Bearer {self.tokens[second]}"

    def caller(self) -> Caller:
        """A legacy caller of this principal."""
        return _Checked(self, Caller)(self.http, self.url)

    def modern(self) -> ModernCaller:
        """A modern one."""
        return _Checked(self, ModernCaller)(self.http, self.url)

    def is_told_of_itself(self, authorization: str) -> bool:
        """Whether the server has been shown a token of this very principal."""
        return speaks_for(authorization) == self.word

    def check(self, what: str, data: bytes) -> None:
        """Look for the other's word, in bytes, so that no form of a message is overlooked."""
        self.checked[what] += 1
        assert self.foreign not in data, (what, data)
        for token in TOKEN.finditer(data) if self.rotates else ():
            with contextlib.suppress(ValueError):
                claims = base64.urlsafe_b64decode(token[1] + b"=" * (-len(token[1]) % 4))
                assert self.foreign not in claims, (what, data)


def _Checked(party: Party, kind: Any) -> Any:
    """The caller's class, with every whole reply looked through."""

    class Checked(kind):  # type: ignore[misc]
        @property
        def authorization(self) -> str:
            return party.authorization

        async def send(self, method: str, **options: object) -> Reply:
            reply: Reply = await super().send(method, **options)
            head = json.dumps(dict(reply.headers)).encode()
            party.check(
                "error" if reply.status != 200 or b'"error"' in reply.body else "reply", head + reply.body
            )
            return reply

    return Checked


async def legacy_life(party: Party, turn: int) -> None:
    """A client with a session: state, notifications on its stream, errors, lists, questions; then goodbye."""
    caller = party.caller()
    word = party.word
    session = await caller.open(
        client="hammer", capabilities={"elicitation": {}, "sampling": {}, "roots": {}}
    )
    uri = f"counter://{word}-{uuid.uuid4().hex}"  # the server tells closed sessions, too, and fails over it
    async with caller.listen(session) as stream:
        hearing = asyncio.create_task(listen_to(party, "get stream", stream.response))
        try:
            await caller.ask("resources/subscribe", {"uri": uri}, session=session)
            assert (await caller.call("touch", {"uri": uri}, session=session)).text >= "1"
            await caller.call("log", {"message": f"log {word}"}, session=session)
            await ask_back(party, caller, session)
            await common_calls(party, caller, session, turn)
            await caller.delete(session)
        finally:
            hearing.cancel()
            await asyncio.gather(hearing, return_exceptions=True)
    if hearing.done() and not hearing.cancelled() and hearing.exception() is not None:
        raise hearing.exception() or AssertionError


async def ask_back(party: Party, caller: Caller, session: str) -> None:
    """A call in whose course the server asks for a name: the question and its answer hold one's own word."""
    message = caller.request("tools/call", {"name": "elicit_name", "arguments": {}})
    async with caller.stream(message, session) as stream:
        question = await stream.next()
        assert question is not None
        party.check("question", json.dumps(question).encode())
        if question.get("method") == "elicitation/create":
            answer: Message = {"jsonrpc": "2.0", "id": question["id"], "result": accept(name=party.word)}
            assert (await caller.post(answer, session)).status == 202
            last = await stream.next()
            party.check("reply", json.dumps(last).encode())
            assert last is not None
            assert last["result"]["content"][0]["text"] == f"accept:{party.word}"


async def sessionless_life(party: Party, turn: int) -> None:
    """A client that sends no session id at all."""
    await common_calls(party, party.caller(), None, turn)


async def adopted_life(party: Party, turn: int) -> None:
    """A client that brings an id of its own. Both principals bring the very same ids."""
    await common_calls(party, party.caller(), f"conversation-{turn % 3}", turn)


async def common_calls(party: Party, caller: Caller, session: str | None, turn: int) -> None:
    """What every legacy client does."""
    word = party.word
    assert (await caller.call("echo", {"message": word}, session=session)).text == f"Echo: {word}"
    who = json.loads((await caller.call("whoami", session=session)).text)
    assert party.is_told_of_itself(who["authorization"])
    check_tools(party, await caller.ask("tools/list", session=session))
    failure = await caller.call("fail", {"message": f"failed {word}"}, session=session)
    assert word in json.dumps(failure.result)
    await caller.ask("resources/read", {"uri": f"counter://unknown-{word}"}, session=session)
    await caller.ask(f"no/such/{word}", session=session)
    meta = {"progressToken": f"token-{word}-{turn}"}
    await caller.call("progress", {"n": 3}, session=session, meta=meta)


def check_tools(party: Party, listed: Reply) -> None:
    """Each tool says for whom it was listed, now or a while ago."""
    for tool in listed.result["tools"]:
        assert party.is_told_of_itself(tool["description"].rpartition(" For ")[2].removesuffix("."))


async def modern_life(party: Party, turn: int) -> None:
    """A modern client: lists that are kept, a call that is parked, a listen stream."""
    caller, word = party.modern(), party.word
    uri = f"counter://{word}-{uuid.uuid4().hex}"
    for _ in range(2):
        check_tools(party, await caller.ask_modern("tools/list"))
    assert (await caller.call_modern("echo", {"message": word})).text == f"Echo: {word}"
    failed = await caller.call_modern("fail", {"message": f"failed {word}"})
    assert word in json.dumps(failed.result)
    await caller.call_modern(f"no-such-{word}")
    await caller.call_modern("log", {"message": word}, log_level="info", meta={"progressToken": word})
    asked = (await caller.call_modern("elicit_name")).result
    answers = {key: accept(name=word) for key in asked["inputRequests"]}
    assert (await caller.resume_call(asked, answers, "elicit_name")).text == f"accept:{word}"
    async with caller.listen_modern(toolsListChanged=True, resourceSubscriptions=[uri]) as stream:
        hearing = asyncio.create_task(listen_to(party, "listen stream", stream.response))
        await caller.call_modern("touch", {"uri": uri})
        await caller.call_modern("tools_changed")
        hearing.cancel()
        await asyncio.gather(hearing, return_exceptions=True)


async def steal(party: Party, other: Party) -> None:
    """What one has been given is of no use to the other: session ids, states of parked calls."""
    theirs, mine = party.modern(), other.modern()
    asked = (await theirs.call_modern("elicit_name")).result
    answers = {key: accept(name=other.word) for key in asked["inputRequests"]}
    refused = await mine.resume_call(asked, answers, "elicit_name")
    assert refused.error["data"]["reason"] == "request-state-refused"
    done = {key: accept(name=party.word) for key in asked["inputRequests"]}
    assert (await theirs.resume_call(asked, done, "elicit_name")).text == f"accept:{party.word}"
    session = await party.caller().open(client="hammer")
    who = json.loads((await other.caller().call("whoami", session=session)).text)
    assert other.is_told_of_itself(who["authorization"])
    await other.caller().delete(session)
    await party.caller().delete(session)


async def forge(party: Party, other: Party, turn: int) -> None:
    """A token that claims to be the other's, signed with something else, gets nothing of the other's."""
    session = await other.caller().open(client="hammer")
    asked = (await other.modern().call_modern("elicit_name")).result
    forged = ModernCaller(
        party.http, party.url, token=signed(other.word, turn, "of a forger, and long enough too")
    )
    answers = {key: accept(name=party.word) for key in asked["inputRequests"]}
    assert (await forged.resume_call(asked, answers, "elicit_name")).status in (400, 401)
    for brought in (session, None):
        reply = await Caller(party.http, party.url, token=forged.token).call("whoami", session=brought)
        party.check("refusal", reply.body)
        assert reply.status == 401
    done = {key: accept(name=other.word) for key in asked["inputRequests"]}
    assert (await other.modern().resume_call(asked, done, "elicit_name")).text == f"accept:{other.word}"
    await other.caller().delete(session)


async def listen_to(party: Party, what: str, response: aiohttp.ClientResponse) -> None:
    """Look through a stream as long as it lasts."""
    with contextlib.suppress(aiohttp.ClientError):  # it is over when its client leaves
        async for line in response.content:
            if line.strip():
                party.check(what, line)


LIVES = (legacy_life, sessionless_life, adopted_life, modern_life)


def who_was_on(seen: list[Message]) -> dict[str, set[str]]:
    """Of each session at the server, the words of all that have sent something on it."""
    owners: dict[str, set[str]] = {}
    for request in seen:
        if session := request["headers"].get("mcp-session-id"):
            owners.setdefault(session, set()).add(speaks_for(request["headers"]["authorization"]))
    return owners


def check_judgements(parties: list[Party], log: str, judged: Message) -> None:
    """Both are known, by all of their tokens; the forged ones were refused, and none is in the log."""
    texts = [text for party in parties for text in party.tokens.values()]
    assert not any(part in log for text in texts for part in text.split("."))
    assert (judged["callers"], judged["not_believed"]) == (2, 0)
    assert judged["accepted"] >= len(parties[0].tokens)
    assert judged["refused"] > 0


def two_parties(http: aiohttp.ClientSession, proxy: Proxy, *, rotates: bool) -> list[Party]:
    """Two principals, each of whom listens for the other's word."""
    words = [f"principal{uuid.uuid4().hex}" for _ in range(2)]
    return [
        Party(http, proxy.url, word, foreign, rotates=rotates)
        for word, foreign in zip(words, reversed(words), strict=True)
    ]


async def live_side_by_side(parties: list[Party], seconds: float) -> Counter[str]:
    """Both lead all lives at once, and try to get at what is the other's; gives how many of each."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    lives: Counter[str] = Counter()

    async def work(party: Party, number: int) -> None:
        for turn in itertools.count(number):
            if loop.time() > until:
                return
            life = LIVES[turn % len(LIVES)]
            async with party.modern_turn if life is modern_life else contextlib.nullcontext():
                await life(party, turn)
            lives[life.__name__] += 1

    async def intrude() -> None:
        for turn in itertools.count():
            if loop.time() > until:
                return
            async with parties[0].modern_turn, parties[1].modern_turn:
                await steal(parties[turn % 2], parties[1 - turn % 2])
            lives["steal"] += 1
            if parties[0].rotates:
                await forge(parties[turn % 2], parties[1 - turn % 2], turn)
                lives["forge"] += 1

    async with asyncio.TaskGroup() as tasks:
        for party in parties:
            for number in range(WORKERS):
                tasks.create_task(work(party, number))
        tasks.create_task(intrude())
    return lives


@pytest.mark.share(3)
@pytest.mark.parametrize("sharing", ["handover", "isolated", "shared"])
async def test_two_principals_before_commands(
    sharing: str, fleet: Fleet, http: aiohttp.ClientSession, figures: Callable[[str], None]
) -> None:
    """The same where each upstream session is a process of its own, which knows whose it is."""
    server = str(Path(__file__).parent / "recording_server.py")
    command = (sys.executable, server, "--record", "executions.txt", "--stdio")
    names = ("--stdio-env-from-header", f"Authorization={CALLER}")
    proxy = fleet.new_stdio_proxy(command, "--sharing", sharing, *LEAVING, *names)
    parties = two_parties(http, proxy, rotates=False)
    for party in parties:
        party.modern_turn = asyncio.Lock()
    lives = await live_side_by_side(parties, SECONDS)
    checked = parties[0].checked + parties[1].checked
    started = proxy.metrics()["children_started_total"]
    figures(
        f"--sharing {sharing}, commands: {sum(lives.values())} client lives in {SECONDS:.0f} s, "
        f"{started:.0f} processes; looked through: {dict(checked)}"
    )
    assert {"reply", "error", "question", "get stream", "listen stream"} <= set(checked)


async def hammer(parties: list[Party], server: Server, proxy: Proxy, seconds: float) -> str:
    """Have both live side by side, and see that they have never met; what there was."""
    lives = await live_side_by_side(parties, seconds)
    async with parties[0].http.get(f"{server.origin}/requests") as response:
        seen = await response.json()
    owners = who_was_on(seen)
    mixed = {session: who for session, who in owners.items() if len(who) != 1}
    checked = parties[0].checked + parties[1].checked
    assert not mixed
    assert {"reply", "error", "question", "get stream", "listen stream"} <= set(checked)
    assert proxy.metrics()["bugs_total"] == 0
    return (
        f"{sum(lives.values())} client lives in {seconds:.0f} s, {len(seen)} requests on {len(owners)} "
        f"sessions at the server, {len(mixed)} of them of both principals; looked through: {dict(checked)}"
    )


@pytest.mark.parametrize("tokens", ["opaque", "rotating"])
@pytest.mark.parametrize("sharing", ["handover", "isolated", "shared", "fresh"])
async def test_two_principals(
    sharing: str, tokens: str, fleet: Fleet, http: aiohttp.ClientSession, figures: Callable[[str], None]
) -> None:
    """In every sharing mode: no reply, error, list, notification, question or stream tells of the other."""
    rotates = tokens == "rotating"
    server = fleet.new_server("recording-tokens" if rotates else "recording")
    proxy = fleet.new_proxy(server.url, "--sharing", sharing, *LEAVING)
    parties = two_parties(http, proxy, rotates=rotates)
    seconds = SECONDS / 2 if rotates else SECONDS
    told = await hammer(parties, server, proxy, seconds)
    figures(f"--sharing {sharing}, {tokens} tokens: {told}")
    log = proxy.program.log.read_text()
    assert not any(party.word in log for party in parties)
    if rotates:
        check_judgements(parties, log, proxy.json("/api/v1/status")["tokens"])


@pytest.mark.cluster
@pytest.mark.skipif(not THOROUGH, reason="takes a while: `make cluster`")
@pytest.mark.parametrize("sharing", ["handover", "isolated", "shared", "fresh"])
async def test_two_principals_at_three_proxies(
    sharing: str, fleet: Fleet, tmp_path: Path, http: aiohttp.ClientSession, figures: Callable[[str], None]
) -> None:
    """Nor where each of their requests comes to another proxy."""
    (tmp_path / "store").mkdir()
    with contextlib.closing(Clusters(fleet, tmp_path / "store")) as clusters:
        server = fleet.new_server("recording")
        proxy = clusters.new(server.url, "--sharing", sharing, *LEAVING)
        parties = two_parties(http, proxy, rotates=False)
        told = await hammer(parties, server, proxy, SECONDS)
        figures(f"--sharing {sharing}, three proxies: {told}, {proxy.forwards():.0f} were sent on")
        for member in proxy.members:
            log = member.program.log.read_text()
            assert not any(party.word in log for party in parties)
