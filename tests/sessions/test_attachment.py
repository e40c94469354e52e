"""How a client session holds its upstream session: every state and event, and what is judged of clients."""

import itertools

import pytest
from session_fakes import PROFILE, key

from mcp_session_proxy.sessions.attachment import ATTACHED, TRANSITIONS, Attachment, AttachmentEvent, advance
from mcp_session_proxy.sessions.books import Usage
from mcp_session_proxy.sessions.client import ClientSession, Farewell
from mcp_session_proxy.sessions.identity import ANONYMOUS
from mcp_session_proxy.sessions.presence import Patience, judge
from mcp_session_proxy.sessions.record import ClientRecord, Contact
from mcp_session_proxy.upstream.life import IllegalTransition

D, A, U, W = Attachment.DETACHED, Attachment.ATTACHING, Attachment.IN_USE, Attachment.AWAITED
NEVER = None
TABLE = {
    #                          detached  attaching  in use   awaited
    AttachmentEvent.NEEDED: (A, NEVER, A, NEVER),
    AttachmentEvent.TAKEN: (U, U, NEVER, NEVER),
    AttachmentEvent.FAILED: (NEVER, D, NEVER, NEVER),
    AttachmentEvent.OPEN: (D, A, U, U),
    AttachmentEvent.SILENT: (D, A, W, W),
    AttachmentEvent.LEFT: (D, A, D, D),
}
EVERY = [
    pytest.param(before, event, after, id=f"{before}-{event}")
    for event, row in TABLE.items()
    for before, after in zip((D, A, U, W), row, strict=True)
]


@pytest.mark.parametrize(("before", "event", "after"), EVERY)
def test_every_state_and_event(before: Attachment, event: AttachmentEvent, after: Attachment | None) -> None:
    """Each event leads where this table says, or cannot happen in that state, which is a bug."""
    if after is NEVER:
        with pytest.raises(IllegalTransition, match=f"{event} cannot happen to .* {before}"):
            advance(before, event)
    else:
        assert advance(before, event) is after


def test_the_table_is_whole() -> None:
    """Every state is in it, every event in this test's, and every state can be reached and left."""
    assert set(TRANSITIONS) == set(Attachment)
    assert set(TABLE) == set(AttachmentEvent)
    for state in Attachment:
        assert set(TRANSITIONS[state].values()) - {state}
        assert any(state in row.values() for other, row in TRANSITIONS.items() if other is not state)


def test_only_a_client_session_with_nothing_open_is_waited_for() -> None:
    """What is open ends the waiting, and silence begins it only where a session is held."""
    for state in Attachment:
        assert advance(state, AttachmentEvent.OPEN) is not W
        silent = advance(state, AttachmentEvent.SILENT)
        assert (silent is W) == (state in ATTACHED)


# -- what is judged --------------------------------------------------------------------------------


def make(
    *,
    contact: Contact = Contact.CLAIMED,
    farewell: Farewell = Farewell.NONE,
    in_flight: int = 0,
    streams: int = 0,
    connections: int = 0,
) -> ClientSession:
    client = ClientSession(
        ClientRecord(
            id="a",
            tag="c00000000",
            principal=ANONYMOUS,
            key=key(),
            profile=PROFILE,
            usage=Usage.EXCLUSIVE,
            adopted=False,
            created=0.0,
            last_used=0.0,
            contact=contact,
        )
    )
    client.farewell, client.hung_up_at = farewell, 10.0
    client.in_flight, client.streams, client.connections = in_flight, streams, connections
    return client


def judged(client: ClientSession, *, now: float = 11.0, reconnect_seconds: float = 5.0) -> AttachmentEvent:
    return judge(client, lambda: now, Patience(reconnect_seconds, 60.0))


@pytest.mark.parametrize(("in_flight", "streams"), [(1, 0), (0, 1), (2, 3)])
def test_who_has_something_open_is_there(in_flight: int, streams: int) -> None:
    """Whatever else is known of it, goodbyes included."""
    for contact, farewell, reconnect_seconds in itertools.product(Contact, Farewell, (0.0, 5.0)):
        client = make(contact=contact, farewell=farewell, in_flight=in_flight, streams=streams)
        assert judged(client, reconnect_seconds=reconnect_seconds) is AttachmentEvent.OPEN


@pytest.mark.parametrize("farewell", [Farewell.DELETED, Farewell.FORGOTTEN])
def test_who_said_delete_or_is_forgotten_has_left(farewell: Farewell) -> None:
    """At whatever time, with however many connections."""
    for contact, connections in itertools.product(Contact, (0, 2)):
        client = make(contact=contact, farewell=farewell, connections=connections)
        assert judged(client, now=10_000.0) is AttachmentEvent.LEFT


@pytest.mark.parametrize(
    ("contact", "connections", "seconds", "event"),
    [
        (Contact.CLAIMED, 0, 2.9, AttachmentEvent.LEFT),
        (Contact.STREAMED, 0, 2.9, AttachmentEvent.LEFT),
        (Contact.CLAIMED, 0, 3.0, AttachmentEvent.SILENT),  # tidying up
        (Contact.CLAIMED, 1, 0.0, AttachmentEvent.SILENT),  # another connection stands
        (Contact.UNCLAIMED, 0, 0.0, AttachmentEvent.SILENT),  # it may be about to send its id
    ],
)
def test_closed_connections(
    contact: Contact, connections: int, seconds: float, event: AttachmentEvent
) -> None:
    """They are a goodbye when all are closed within a moment, by a client that is known to keep its id."""
    client = make(contact=contact, farewell=Farewell.HUNG_UP, connections=connections)
    assert judged(client, now=10.0 + seconds) is event


@pytest.mark.parametrize("contact", Contact)
def test_a_grace_of_nothing(contact: Contact) -> None:
    """With ``--reconnect-grace 0`` a client whose stream has closed has left; others are silent."""
    left = contact is Contact.STREAMED
    wanted = AttachmentEvent.LEFT if left else AttachmentEvent.SILENT
    assert judged(make(contact=contact), reconnect_seconds=0.0) is wanted
    assert judged(make(contact=contact)) is AttachmentEvent.SILENT


def test_how_long_each_is_waited_for() -> None:
    """By how it has shown itself; and nobody longer than the operator waits for anybody."""
    assert [Patience(8.0, 60.0).seconds_for(contact) for contact in Contact] == [5.0, 60.0, 8.0]
    assert Patience(8.0, 2.0).seconds_for(Contact.UNCLAIMED) == 2.0
