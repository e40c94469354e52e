"""Who hears what a server says of its own accord, and who answers what it asks."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from fakes import FakeServer, make_session, open_session, settle
from legacy_scene import NEWS, NOBODY_THERE, ROOTS, Scene

from mcp_session_proxy.protocol.jsonrpc import Notification, Request, Response
from mcp_session_proxy.sessions.client import Farewell
from mcp_session_proxy.sessions.identity import Profile
from mcp_session_proxy.upstream.question import refuse_request
from mcp_session_proxy.upstream.transport import NOBODY

pytestmark = pytest.mark.looptime


@pytest.fixture
async def at() -> AsyncIterator[Scene]:
    """The scene, with an open session."""
    server = FakeServer()
    async with open_session(server) as session:
        yield Scene(session, server)


# -- notifications ---------------------------------------------------------------------------------


async def test_everyone_behind_the_session_hears_its_news(at: Scene) -> None:
    """A notification is kept for every client of the session, whether it listens now or not."""
    clients = [at.client(), at.client(attached=False), at.client(listens=True)]
    at.delivery.route(at.session, NEWS)
    for client in clients:
        assert at.heard(client) == [{"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}]


PROMISES = {
    "protocolVersion": "2025-11-25",
    "capabilities": {"tools": {"listChanged": True}, "prompts": {}, "resources": {"listChanged": True}},
    "serverInfo": {"name": "fake", "version": "1"},
}
ALL_CHANGED = [
    {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"},
    {"jsonrpc": "2.0", "method": "notifications/resources/list_changed"},
    {"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": "a:1"}},
]


async def promising() -> Scene:
    """A scene whose server tells of changes, and was asked to tell of one resource."""
    server = FakeServer()
    server.initialize_result = PROMISES
    session = make_session(server)
    await session.open(NOBODY)
    session.record.journal.record("resources/subscribe", b'{"uri":"a:1"}')
    return Scene(session, server)


async def test_clients_of_a_session_that_was_opened_anew() -> None:
    """They hear that all they may know has changed, as far as they were told that they would hear of it."""
    at = await promising()
    clients = [at.client(), at.client(attached=False)]
    for client in clients:
        client.record.wishes = at.session.record.journal
    other = at.client()
    at.server.forget()
    at.server.initialize_result = PROMISES | {"capabilities": {}}  # what clients were told counts, too
    await at.session.revive(at.session.incarnation, "404", NOBODY)
    at.delivery.session_changed(at.session)
    assert [at.heard(client) for client in clients] == [ALL_CHANGED] * 2
    assert at.heard(other) == ALL_CHANGED[:-1]  # it has not subscribed
    at.session.abandon()


async def test_clients_of_a_session_that_was_closed() -> None:
    """They hear nothing: another session is found for them when they come back, and they are told then."""
    at = await promising()
    client, other = at.client(), await promising()
    at.session.abandon()
    at.delivery.session_changed(at.session)
    assert at.heard(client) == []
    client.record.wishes = at.session.record.journal
    at.delivery.moved(client, at.session, other.session)
    assert at.heard(client) == ALL_CHANGED
    other.session.abandon()


async def test_a_completed_elicitation(at: Scene) -> None:
    """Only the client hears of it that was asked for it, whichever way."""
    asked, told, other = at.client(listens=True), at.client(), at.client()
    params = b'{"mode":"url","elicitationId":"e-1","url":"https://a.example","message":"m"}'
    at.delivery.ask(asked, at.session, Request(b"1", "elicitation/create", params))
    at.delivery.note_elicitation(told, b'{"elicitationId":"e-2"}')
    for identifier in (b'"e-1"', b'"e-2"', b'"e-3"', b"3"):
        complete = b'{"elicitationId":%b}' % identifier
        at.delivery.route(at.session, Notification("notifications/elicitation/complete", complete))
    heard = [[event["params"]["elicitationId"] for event in at.heard(one)] for one in (asked, told, other)]
    assert heard == [["e-1"], ["e-2"], []]
    for number in range(200):
        at.delivery.note_elicitation(told, b'{"elicitationId":"%d"}' % number)
    questions = told.questions
    assert questions is not None
    assert [questions.has_elicited(str(number)) for number in range(200)] == [False] * 100 + [True] * 100


async def test_others_hear_nothing(at: Scene) -> None:
    """A client of another session, and one that has said goodbye, hear nothing."""
    other = make_session(FakeServer())
    gone = at.client()
    gone.farewell = Farewell.DELETED
    at.delivery.route(other, NEWS)
    at.delivery.route(at.session, NEWS)
    assert at.heard(gone) == []


async def test_nothing_is_kept_for_those_who_have_been_away_for_long(at: Scene) -> None:
    """Thousands of clients that never came back cost nothing; one whose stream is open always hears."""
    orphans = [at.client(attached=False) for _ in range(100)]
    listener = at.client(listens=True)
    await asyncio.sleep(601)
    back = at.client()
    at.delivery.route(at.session, NEWS)
    assert [len(at.heard(client)) for client in (listener, back)] == [1, 1]
    assert not any(at.heard(client) for client in orphans)


async def test_responses_on_the_stream_are_dropped(at: Scene) -> None:
    """A response that names no call is nobody's."""
    client = at.client()
    at.delivery.route(at.session, Response(b"99", result=b"{}"))
    assert at.heard(client) == []


# -- questions -------------------------------------------------------------------------------------


async def test_the_listening_client_is_asked(at: Scene) -> None:
    """A server's request goes to one client, under an id of ours, and the answer back under the server's."""
    at.client()
    older = at.client(listens=True)
    newer = at.client(listens=True)
    newer.record.last_used += 1
    at.delivery.route(at.session, ROOTS)
    assert at.heard(older) == []
    assert at.heard(newer) == [{"jsonrpc": "2.0", "id": 1, "method": "roots/list"}]
    await at.delivery.answer(newer, Response(b"1", result=b'{"roots":[]}'), NOBODY)
    assert at.answers == [("r-1", {"roots": []})]


async def test_client_answers_with_an_error(at: Scene) -> None:
    """The client's refusal reaches the server as it is."""
    client = at.client(listens=True)
    at.delivery.route(at.session, ROOTS)
    await at.delivery.answer(client, Response(b"1", error=b'{"code":-1,"message":"no"}'), NOBODY)
    assert at.answers == [("r-1", "no")]


@pytest.mark.parametrize("identifier", [b"2", b'"2"', b"-1", b"1.5", b"null", b"9" * 1000])
async def test_answers_to_nothing_are_dropped(at: Scene, identifier: bytes) -> None:
    """A client cannot answer what it was not asked."""
    client = at.client(listens=True)
    at.delivery.route(at.session, ROOTS)
    await at.delivery.answer(client, Response(identifier, result=b"{}"), NOBODY)
    await at.delivery.answer(at.client(), Response(b"1", result=b"{}"), NOBODY)
    assert at.answers == []


@pytest.mark.parametrize("identifier", [b'"1"', b"1.0"])
async def test_answer_under_our_number_written_otherwise(at: Scene, identifier: bytes) -> None:
    """Some clients give a number back as a string, or know floating numbers only: all these answer 1."""
    client = at.client(listens=True)
    at.delivery.route(at.session, ROOTS)
    await at.delivery.answer(client, Response(identifier, result=b"{}"), NOBODY)
    assert at.answers == [("r-1", {})]


async def test_a_question_is_answered_once(at: Scene) -> None:
    """A second answer to the same question is dropped."""
    client = at.client(listens=True)
    at.delivery.route(at.session, ROOTS)
    for _ in range(2):
        await at.delivery.answer(client, Response(b"1", result=b"{}"), NOBODY)
    assert len(at.answers) == 1


async def test_nobody_there(at: Scene) -> None:
    """With no client attached, the server gets an error at once: waiting would hold up a call."""
    at.client(attached=False)
    at.delivery.route(at.session, ROOTS)
    await settle()
    assert at.answers == [("r-1", NOBODY_THERE)]


async def test_client_that_is_about_to_listen(at: Scene) -> None:
    """An attached client has a moment to open its stream; the question waits there."""
    client = at.client()
    at.delivery.route(at.session, ROOTS)
    await asyncio.sleep(1)
    at.delivery.mailbox(client).standalone.take_over(0)
    await asyncio.sleep(5)
    assert at.answers == []
    assert [message["method"] for message in at.heard(client)] == ["roots/list"]
    await at.delivery.answer(client, Response(b"1", result=b"{}"), NOBODY)
    assert at.answers == [("r-1", {})]


async def test_capable_client_that_listens_late(at: Scene) -> None:
    """One that has declared what it is asked for has longer, as long as it is there."""
    client, gone = at.client(), at.client()
    for number, one in enumerate((client, gone)):
        one.record.profile = Profile(digest="p", client_name="t", params=b'{"capabilities":{"roots":{}}}')
        one.record.last_used += 1 + number
        at.delivery.route(at.session, ROOTS)
    await asyncio.sleep(7)
    assert at.answers == []
    gone.lease = None
    await asyncio.sleep(2)
    assert at.answers == [("r-1", NOBODY_THERE)]
    at.delivery.mailbox(client).standalone.take_over(0)
    await asyncio.sleep(60)
    assert len(at.answers) == 1
    assert [message["method"] for message in at.heard(client)] == ["roots/list"]


async def test_capable_client_that_never_listens(at: Scene) -> None:
    """The server is not kept waiting for ever."""
    client = at.client()
    client.record.profile = Profile(digest="p", client_name="t", params=b'{"capabilities":{"roots":{}}}')
    at.delivery.route(at.session, ROOTS)
    await asyncio.sleep(20)
    assert at.answers == [("r-1", NOBODY_THERE)]


async def test_client_that_never_listens(at: Scene) -> None:
    """When the moment is over the server gets its error, and a late answer is dropped."""
    client = at.client()
    at.delivery.route(at.session, ROOTS)
    await asyncio.sleep(3)
    assert at.answers == [("r-1", NOBODY_THERE)]
    await at.delivery.answer(client, Response(b"1", result=b"{}"), NOBODY)
    assert len(at.answers) == 1


async def test_forgotten_client_leaves_no_open_question(at: Scene) -> None:
    """What a client was asked is refused when it is forgotten, and its streams end."""
    client = at.client(listens=True)
    at.delivery.route(at.session, ROOTS)
    mailbox = at.delivery.mailbox(client)
    client.farewell = Farewell.FORGOTTEN
    client.close()
    client.close()
    await settle()
    assert at.answers == [("r-1", NOBODY_THERE)]
    assert mailbox.standalone.closed
    assert (client.mailbox, client.questions) == (None, None)


async def test_client_that_was_forgotten_in_the_course_of_a_request(at: Scene) -> None:
    """Whatever still happens for a forgotten client, nothing is kept for it."""
    client = at.client()
    client.farewell = Farewell.FORGOTTEN
    at.delivery.mailbox(client).standalone.append(b"{}")
    await at.delivery.answer(client, Response(b"1", result=b"{}"), NOBODY)
    at.delivery.withdraw(client, 1)
    at.delivery.end_stream(client)
    at.delivery._give_up_if_alone(client, 1, 0.0)
    assert (client.mailbox, client.questions) == (None, None)


async def test_questions_are_bounded(at: Scene) -> None:
    """A server that asks and asks gets an error for its oldest question."""
    client = at.client(listens=True)
    for number in range(105):
        at.delivery.route(at.session, Request(b"%d" % number, "roots/list"))
        await settle()
    assert [identifier for identifier, _ in at.answers] == [0, 1, 2, 3, 4]
    await at.delivery.answer(client, Response(b"105", result=b"{}"), NOBODY)
    assert at.answers[-1] == (104, {})


async def test_question_of_a_session_that_was_lost(at: Scene) -> None:
    """The answer to a question of a lost session is not given to the new one, which has not asked."""
    client = at.client(listens=True)
    at.delivery.route(at.session, ROOTS)
    at.server.forget()
    await at.session.revive(at.session.incarnation, "404", NOBODY)
    await at.delivery.answer(client, Response(b"1", result=b"{}"), NOBODY)
    assert at.answers == []


async def test_withdrawn_question(at: Scene) -> None:
    """A question that could not be put after all is refused."""
    client = at.client()
    asked = at.delivery.ask(client, at.session, ROOTS)
    assert asked is not None
    number, data = asked
    assert json.loads(data)["id"] == number == 1
    at.delivery.withdraw(client, number)
    at.delivery.withdraw(client, number)
    await settle()
    assert at.answers == [("r-1", NOBODY_THERE)]


async def test_server_withdraws_its_question(at: Scene) -> None:
    """A server's cancellation names the question as the client knows it, and only to the one asked."""
    other, client = at.client(listens=True), at.client(listens=True)
    client.record.last_used += 1
    at.delivery.route(at.session, ROOTS)
    cancelled = Notification("notifications/cancelled", b'{"requestId":"r-1","reason":"late"}')
    at.delivery.route(at.session, cancelled)
    assert at.heard(client)[1]["params"] == {"requestId": 1, "reason": "late"}
    assert at.heard(other) == []
    await at.delivery.answer(client, Response(b"1", result=b"{}"), NOBODY)
    assert at.answers == []


@pytest.mark.parametrize("params", [None, b"[]", b"{}", b'{"requestId":"unknown"}'])
async def test_cancellation_of_nothing_is_dropped(at: Scene, params: bytes | None) -> None:
    """A cancellation that names none of the client's questions would only confuse it."""
    client = at.client(listens=True)
    at.delivery.route(at.session, Notification("notifications/cancelled", params))
    assert at.delivery.rewrite(None, at.session, Notification("notifications/cancelled", params)) is None
    assert at.heard(client) == []


async def test_refuse_request(at: Scene) -> None:
    """A request that nobody will answer is answered with an error."""
    refuse_request(at.session, ROOTS)
    await settle()
    assert at.answers == [("r-1", NOBODY_THERE)]


# -- from the client -------------------------------------------------------------------------------


async def test_notifications_of_the_client_are_forwarded(at: Scene) -> None:
    """What the client says goes to its upstream session, if that lives."""
    client = at.client()
    await at.delivery.forward(client, Notification("notifications/roots/list_changed", b'{"x":1}'), NOBODY)
    assert at.server.transcript[-1] == "notifications/roots/list_changed @s1"
    cast(Any, client.home).usable = False
    await at.delivery.forward(client, NEWS, NOBODY)
    client.home = None
    await at.delivery.forward(client, NEWS, NOBODY)
    assert len(at.server.posts(NEWS.method)) == 0


async def test_end_stream(at: Scene) -> None:
    """A client that says goodbye hears the end of its stream; its mailbox stays."""
    client = at.client(listens=True)
    at.delivery.end_stream(client)
    stream = at.delivery.mailbox(client).standalone
    assert not stream.followed
    assert not stream.closed


async def test_questions_have_a_share_of_the_memory(at: Scene) -> None:
    """Over it the server is told at once, and the client is not asked; an answer makes room."""
    client = at.client(listens=True)
    at.room.max_bytes = 200
    params = b'{"message":"%s"}' % (b"x" * 130)
    for identifier in (b"1", b"2"):
        at.delivery.route(at.session, Request(identifier, "elicitation/create", params))
    await settle()
    assert len(at.heard(client)) == 1
    assert at.answers == [(2, NOBODY_THERE)]
    await at.delivery.answer(client, Response(b"1", result=b'{"action":"decline"}'), NOBODY)
    assert at.room.used_bytes == 0
    at.delivery.route(at.session, Request(b"3", "elicitation/create", params))
    assert len(at.heard(client)) == 2
    client.close()
    assert at.room.used_bytes == 0
