"""Servers that can have one session only, and whom that one serves."""

import asyncio
import json

import pytest
from session_fakes import SessionMaker, Stand, key, settle

from mcp_session_proxy.errors import (
    HandshakeRefused,
    OneSessionOnly,
    ProxyError,
    UpstreamProtocolError,
    UpstreamRejected,
)
from mcp_session_proxy.events import SessionOpenFailed
from mcp_session_proxy.sessions.books import Usage
from mcp_session_proxy.sessions.identity import read_profile
from mcp_session_proxy.sessions.sole import can_serve, refuses_another
from mcp_session_proxy.upstream.transport import NOBODY

pytestmark = pytest.mark.looptime

ROOTS = {"roots": {"listChanged": True}}
ALL = {**ROOTS, "sampling": {"tools": {}}, "elicitation": {"form": {}, "url": {}}}
TAKEN = b'{"code":-32600,"message":"Invalid Request: Server already initialized"}'


def profile(capabilities=None, name="c", version="2025-11-25"):
    """What a client says in its handshake; no capabilities at all for None."""
    told = {} if capabilities is None else {"capabilities": capabilities}
    return read_profile(
        json.dumps({"protocolVersion": version, "clientInfo": {"name": name}, **told}).encode()
    )


@pytest.mark.parametrize(
    ("error", "refuses"),
    [
        (HandshakeRefused(TAKEN), True),
        (UpstreamRejected(400, TAKEN, "application/json", {}, TAKEN), True),
        (UpstreamRejected(409, b"Session has already been initialised", None, {}, None), True),
        (UpstreamRejected(409, b"already initialised", None, {}, None), True),
        (UpstreamRejected(503, b"Only one session is allowed", None, {}, None), True),
        (UpstreamRejected(400, b"only a single client connection", None, {}, None), True),
        (UpstreamRejected(503, b"Too many open sessions", None, {}, None), False),
        (UpstreamRejected(400, b"Server not initialized", None, {}, None), False),
        (HandshakeRefused(b'{"code":-32602,"message":"Unsupported protocol version"}'), False),
        (UpstreamProtocolError("already initialized"), False),
    ],
)
def test_how_they_say_so(error: ProxyError, refuses: bool) -> None:
    """In the words of the official SDK, and some more; other refusals are about something else."""
    assert refuses_another(error) is refuses


@pytest.mark.parametrize(
    ("told", "client", "serves"),
    [
        ({}, {}, True),
        (None, None, True),
        ({}, ALL, True),
        (ROOTS, ALL, True),
        (ALL, ROOTS, False),
        (ROOTS, {}, False),
        ({"roots": {}}, ROOTS, True),
        (ROOTS, {"roots": {}}, False),
        (ROOTS, {"roots": {"listChanged": False}}, False),
        ({"roots": {"listChanged": False}}, {"roots": {}}, True),
        ({"sampling": {}}, {"sampling": {"tools": {}}}, True),
        ({"sampling": {}}, {"sampling": None}, False),
        ({"experimental": {"x": [1, 2]}}, {"experimental": {"x": [1, 2]}}, True),
        ({"experimental": {"x": [1, 2]}}, {"experimental": {"x": [2, 1]}}, False),
        ("nonsense", {}, False),
    ],
)
def test_whom_a_session_can_serve(told: object, client: object, serves: bool) -> None:
    """Who can do at least what the server was told of; name and version make no difference."""
    assert can_serve(profile(told), profile(client, name="other", version="2025-03-26")) is serves


def test_capabilities_that_are_nested_deeply() -> None:
    """They are compared as a whole below some levels."""
    deep = json.loads('{"x":' * 200 + "1" + "}" * 200)
    assert can_serve(profile(deep), profile(deep))
    assert not can_serve(profile(deep), profile({"x": {}}))


class OneSession(Stand):
    """A pool before a server that has one session at most."""

    def __init__(self, server, **limits):
        super().__init__(server, **limits)
        appeared = server.appeared

        def appear(session):
            if server.live:
                raise UpstreamRejected(400, TAKEN, "application/json", {}, TAKEN)
            appeared(session)

        server.appeared = appear

    async def lease(self, client, usage=Usage.JOINT, principal="p", affinity=None):
        deadline = asyncio.get_running_loop().time() + 10
        where = key(principal, affinity, client.digest)
        return await self.pool.acquire(where, client, usage, NOBODY, deadline)

    @property
    def handshakes(self):
        return sum(session.attempts for session in self.server.sessions)


async def one_session(**options):
    return OneSession(SessionMaker(**options))


async def test_one_session_serves_all_who_can_do_as_much() -> None:
    """Of one caller, whatever their names and conversations; the server is asked once."""
    stand = await one_session()
    first = await stand.lease(profile(ROOTS))
    second = await stand.lease(profile(ALL, name="other"))
    third = await stand.lease(profile(ROOTS, name="third"), affinity="a")
    assert first.slot is second.slot is third.slot
    assert stand.handshakes == 2
    assert not stand.told(SessionOpenFailed)
    for lease in (first, second, third):
        lease.release()
    stand.check()
    await stand.close_and_check()


async def test_it_does_not_serve_the_others() -> None:
    """Who can do less, who is somebody else, and who wants a session of its own."""
    stand = await one_session()
    first = await stand.lease(profile(ROOTS))
    for asking in (
        stand.lease(profile({})),
        stand.lease(profile(ROOTS), principal="q"),
        stand.lease(profile(ALL), Usage.EXCLUSIVE),
        stand.lease(profile(ALL), Usage.COMMON),
        stand.lease(profile(ALL), Usage.OWNED),
        stand.lease(profile(ALL), Usage.ONCE),
    ):
        with pytest.raises(OneSessionOnly, match="--sharing shared"):
            await asking
        stand.check()
    first.release()
    await stand.close_and_check()


async def test_when_it_is_gone_there_is_room_for_another() -> None:
    """Whatever the next client can do."""
    stand = await one_session()
    first = await stand.lease(profile(ALL))
    (await stand.lease(profile(ALL, name="other"))).release()
    first.retire("lost")
    await settle()
    second = await stand.lease(profile({}))
    assert second.slot is not first.slot
    second.release()
    await stand.close_and_check()


async def test_all_at_once() -> None:
    """Several kinds of client at a cold start: one is first, the others wait for its session."""
    stand = await one_session(open_seconds=1.0)
    clients = [profile(ROOTS, name=str(number)) for number in range(5)]
    leases = await asyncio.gather(*(stand.lease(client) for client in clients))
    assert len({lease.slot for lease in leases}) == 1
    for lease in leases:
        lease.release()
    stand.check()
    await stand.close_and_check()
