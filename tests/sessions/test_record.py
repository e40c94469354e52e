"""A client session's record: to JSON and back, and what is refused."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_session_proxy.errors import OverBudget
from mcp_session_proxy.memory import Share
from mcp_session_proxy.sessions.books import Usage
from mcp_session_proxy.sessions.client import ClientSession, new_tag
from mcp_session_proxy.sessions.identity import (
    Principal,
    SessionKey,
    affinity_of_id,
    read_profile,
    sessionless_profile,
)
from mcp_session_proxy.sessions.minting import mint_id
from mcp_session_proxy.sessions.profiles import Profiles
from mcp_session_proxy.sessions.record import (
    MAX_RECORD_BYTES,
    ClientRecord,
    Contact,
    UnreadableRecord,
    read_record,
    write_record,
)
from mcp_session_proxy.upstream.journal import Journal

ME = Principal(digest="0123456789abcdef" * 2, anonymous=False)
PROFILES = [
    read_profile(b'{"protocolVersion":"2025-11-25","capabilities":{"roots":{"listChanged":true}}}'),
    read_profile(
        b'{"protocolVersion":"2025-06-18","clientInfo":{"name":"\\u00e9 \\ud83d\\ude00"},"x":[1, 2]}'
    ),
    sessionless_profile("1.0"),
]


def record(affinity: str | None = None, *, principal=ME, profile=PROFILES[0], **facts) -> ClientRecord:
    usual = {
        "id": mint_id(capable=True),
        "tag": new_tag(),
        "principal": principal,
        "key": SessionKey(principal.digest, affinity, profile.digest),
        "profile": profile,
        "usage": Usage.EXCLUSIVE,
        "adopted": False,
        "created": 1.25,
        "last_used": 7.5,
    }
    return ClientRecord(**{**usual, **facts})


def change(**members) -> bytes:
    """A record's JSON with other members."""
    return json.dumps({**json.loads(write_record(record())), **members}).encode()


def wishes(*uris: str, level: str | None = None) -> Journal:
    journal = Journal()
    for uri in uris:
        journal.record("resources/subscribe", json.dumps({"uri": uri}).encode())
    if level is not None:
        journal.record("logging/setLevel", json.dumps({"level": level}).encode())
    return journal


NO_CONTROLS = st.characters(exclude_categories=("Cc", "Cs"))
TIMES = st.floats(0, 1e12, allow_nan=False)


RECORDS = st.builds(
    record,
    id=st.text(NO_CONTROLS, min_size=1, max_size=300),
    profile=st.sampled_from(PROFILES),
    usage=st.sampled_from([usage for usage in Usage if usage is not Usage.ONCE]),
    adopted=st.booleans(),
    created=TIMES,
    last_used=TIMES,
    contact=st.sampled_from(list(Contact)),
    requests=st.integers(0, 2**60),
    version=st.none() | st.text(NO_CONTROLS, max_size=30),
    wishes=st.none()
    | st.builds(wishes, st.text(NO_CONTROLS), st.text(NO_CONTROLS), level=st.none() | st.text(NO_CONTROLS)),
    affinity=st.none() | st.text(st.characters(), max_size=300),
    principal=st.builds(Principal, digest=st.sampled_from(["anonymous", "ab" * 16]), anonymous=st.booleans()),
)


@given(RECORDS)
def test_a_record_is_the_same_after_it_was_stored(before: ClientRecord):
    """Whatever a client session may be, its record comes back equal, and so does its profile's every byte."""
    after = read_record(write_record(before))
    assert after == before
    assert after.profile.params == before.profile.params
    assert after.profile.version_is_free == before.profile.version_is_free


def test_every_field_is_stored():
    """A field that is new in the record and forgotten in the JSON would be lost at each restart."""
    told = record(
        affinity_of_id("platform"),
        profile=PROFILES[2],
        usage=Usage.COMMON,
        adopted=True,
        contact=Contact.STREAMED,
        requests=3,
        version="2025-06-18",
        wishes=wishes("file:///a", level="debug"),
    )
    usual = record()
    after = read_record(write_record(told))
    for name in ClientRecord.__struct_fields__:
        if name not in ("principal", "created", "last_used"):
            assert getattr(after, name) != getattr(usual, name), name
        assert getattr(after, name) == getattr(told, name), name


def test_another_clock():
    """A process whose clock shows something else reads the same ages."""
    before = record(created=100.0, last_used=130.0)
    assert before.moved(-90.0) == msgspec.structs.replace(before, created=10.0, last_used=40.0)


def test_a_client_session_is_made_of_a_record():
    """It is as one that was detached: known, and attached with its first request."""
    stored = read_record(write_record(record(contact=Contact.STREAMED)))
    client = ClientSession(stored)
    assert (client.id, client.key, client.had_stream) == (stored.id, stored.key, True)
    assert not client.busy
    assert client.lease is None


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b'{"id":"a"',
        b"[" * 100_000,
        b'{"id":' * 100_000,
        b" " * (MAX_RECORD_BYTES + 1),
    ],
    ids=lambda data: repr(data[:9]),
)
def test_what_is_no_record(data: bytes):
    """Text that is cut off, deep, large or something else is refused, and nothing worse happens."""
    with pytest.raises(UnreadableRecord):
        read_record(data)


@pytest.mark.parametrize(
    "members",
    [
        {"id": ""},
        {"id": "a\r\nSet-Cookie: x"},
        {"id": "a\n"},
        {"id": "x" * 9000},
        {"id": 7},
        {"tag": "c0"},
        {"tag": "<script>"},
        {"tag": "c00000000\n"},
        {"principal": {"digest": "", "anonymous": False}},
        {"principal": {"digest": "../x", "anonymous": False}},
        {"principal": {"digest": "a" * 65, "anonymous": False}},
        {"principal": {"digest": "aa", "anonymous": "no"}},
        {"principal": None},
        {"affinity": "not base64!"},
        {"affinity": "/w=="},  # no UTF-8
        {"profile": {"params": {}, "version_is_free": False}},
        {"profile": {"params": None, "version_is_free": False}},
        {"profile": {"params": [1], "version_is_free": False}},
        {"profile": {"params": {"protocolVersion": "x" * 300}, "version_is_free": False}},
        {"profile": {"params": {"protocolVersion": "1", "x": "y" * 70_000}, "version_is_free": False}},
        {"usage": "once"},
        {"usage": "mine"},
        {"adopted": 1},
        {"created": "now"},
        {"created": None},
        {"last_used": [0]},
        {"contact": "friend"},
        {"requests": -1},
        {"requests": 0.5},
        {"version": 1},
        {"wishes": {"subscriptions": []}},
        {"wishes": {"log_level": None, "subscriptions": {}}},
        {"lease": "mine"},
    ],
    ids=str,
)
def test_what_no_client_session_can_be(members: dict[str, object]):
    """Each fact is one that a client could have brought about, or the whole is refused."""
    with pytest.raises(UnreadableRecord):
        read_record(change(**members))


@pytest.mark.parametrize("time", ["1e999", "-1e999", "NaN", "Infinity"])
def test_times_that_are_none(time: str):
    """They would make a client session that never expires, or always."""
    data = write_record(record(created=1.25)).replace(b'"created":1.25', b'"created":%s' % time.encode())
    with pytest.raises(UnreadableRecord):
        read_record(data)


def test_wishes_are_bounded():
    """More than a client could have asked for is not taken over."""
    many = {"log_level": {"level": "x" * 200}, "subscriptions": [{"uri": f"a:{n}"} for n in range(1100)]}
    read = read_record(change(wishes=many)).wishes
    assert read is not None
    assert len(read.subscriptions) == 1000
    assert read.log_level is None
    odd = {"log_level": 7, "subscriptions": [None, [], {}, {"uri": 5}]}
    assert read_record(change(wishes=odd)).wishes == Journal()


def test_profiles_that_are_read_have_their_share_of_the_memory():
    """They are kept once, and refused where there is no room: that is no fault of the record."""
    share = Share("client profiles", 1000)
    profiles = Profiles(share)
    data = write_record(record())
    one, two = (read_record(data, profiles.of_initialize) for _ in range(2))
    assert one.profile is two.profile
    assert share.used_bytes == len(one.profile.params)
    share.max_bytes = 0
    del one, two
    with pytest.raises(OverBudget):
        read_record(data, profiles.of_initialize)


def test_wishes_that_are_read_have_their_share_of_the_memory():
    """Those that find no room are left out, as they would be if they were asked for now."""
    share = Share("subscriptions", 30)
    asked = {"log_level": None, "subscriptions": [{"uri": "file:///a"}, {"uri": "file:///b"}]}
    wishes = read_record(change(wishes=asked), room=share).wishes
    assert wishes is not None
    assert list(wishes.subscriptions) == ["file:///a"]
    assert 0 < share.used_bytes <= 30
