"""What a listener asks to hear of."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_session_proxy.errors import InvalidParams
from mcp_session_proxy.protocol import revisions
from mcp_session_proxy.protocol.subscriptions import (
    FIELDS_BY_METHOD,
    LIST_FIELDS,
    Filter,
    read_filter,
    wholes,
)


def read(value: object) -> Filter:
    return read_filter(json.dumps(value).encode())


def test_filter() -> None:
    """What is true is wanted; URIs are wanted once each, in their order; what nobody knows is ignored."""
    wanted = read(
        {
            "toolsListChanged": True,
            "promptsListChanged": False,
            "resourceSubscriptions": ["b", "a", "b"],
            "more": 1,
        }
    )
    assert wanted == Filter(frozenset({"toolsListChanged"}), ("b", "a"))
    assert read({}) == Filter(frozenset(), ())


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        "x",
        {"toolsListChanged": 1},
        {"promptsListChanged": None},
        {"resourcesListChanged": "true"},
        {"resourceSubscriptions": "a"},
        {"resourceSubscriptions": {}},
        {"resourceSubscriptions": [1]},
        {"resourceSubscriptions": [None]},
        {"resourceSubscriptions": ["x"] * 1001},
    ],
)
def test_malformed_filters(value: object) -> None:
    """A filter of the wrong form is a bad parameter."""
    with pytest.raises(InvalidParams):
        read(value)


def test_missing_filter() -> None:
    """A listener must say what it wants."""
    with pytest.raises(InvalidParams):
        read_filter(None)


@given(
    lists=st.sets(st.sampled_from(sorted(LIST_FIELDS))),
    uris=st.lists(st.text(max_size=8), unique=True, max_size=4),
)
def test_filters_are_written_as_they_are_read(lists: set[str], uris: list[str]) -> None:
    """What is promised is written in the form in which it was asked for."""
    wanted = Filter(frozenset(lists), tuple(uris))
    assert read_filter(wanted.write()) == wanted


def test_members_are_named_as_in_the_specification() -> None:
    """Each list has a member that asks for its change (2026-07-28, schema, "SubscriptionFilter")."""
    assert FIELDS_BY_METHOD == {
        revisions.TOOLS_CHANGED: "toolsListChanged",
        revisions.PROMPTS_CHANGED: "promptsListChanged",
        revisions.RESOURCES_CHANGED: "resourcesListChanged",
    }


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("a:/b/c", ["a:/b/c", "a:", "a:/", "a:/b", "a:/b/"]),
        ("x?y#z", ["x?y#z", "x", "x?y"]),
        ("plain", ["plain"]),
        ("", [""]),
    ],
)
def test_a_part_belongs_to_wholes(uri: str, expected: list[str]) -> None:
    """With and without the slash at its end."""
    assert list(wholes(uri)) == expected


def test_a_hostile_uri_has_few_wholes() -> None:
    """However many slashes it has, and none but itself when it is huge."""
    assert len(list(wholes("/" * 8000))) <= 129
    assert len(list(wholes("/" * 8193))) == 1
