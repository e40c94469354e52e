"""Which headers travel: request headers to the MCP endpoint, and both ways through the pass-through."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from mcp_session_proxy.protocol.headers import (
    end_to_end_request_headers,
    end_to_end_response_headers,
    explaining_response_headers,
    forward_request_headers,
    writable,
)

HOP_BY_HOP = [
    "Connection",
    "Keep-Alive",
    "Proxy-Authenticate",
    "Proxy-Authorization",
    "Proxy-Connection",
    "TE",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
]

names = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=20)
header_lists = st.lists(st.tuples(names, st.text("abc, ", max_size=10))).map(CIMultiDict)


def underscored(name: str) -> str:
    """As servers that make variables of headers read it, too."""
    return name.replace("-", "_")


@pytest.mark.parametrize(
    "name",
    [
        "Authorization",
        "Cookie",
        "X-Api-Key",
        "X-MCP-Tenant",
        "User-Agent",
        "Referer",
        "Traceparent",
        "X-Forwarded-For",
    ],
)
def test_end_to_end_headers_reach_the_server(name: str) -> None:
    """Credentials and everything else of the client's own reach the server as they came."""
    assert forward_request_headers([(name, "v")]) == [(name, "v")]


@pytest.mark.parametrize(
    "name",
    [
        *HOP_BY_HOP,
        "Host",
        "Content-Length",
        "Content-Type",
        "Content-Encoding",
        "Content-Digest",
        "Accept",
        "Accept-Encoding",
        "Origin",
        "Expect",
        "Mcp-Session-Id",
        "MCP-Protocol-Version",
        "Last-Event-ID",
        "Sec-Fetch-Mode",
        "Mcp-Method",
        "Mcp-Name",
        "Mcp-Param-Region",
    ],
)
@pytest.mark.parametrize("spell", [str, str.lower, str.upper, underscored])
def test_what_is_ours_stays(name: str, spell: Callable[[str], str]) -> None:
    """Headers of this hop, and those that the proxy writes itself, are not forwarded in any spelling."""
    assert forward_request_headers([(spell(name), "v")]) == []


def test_connection_names_further_headers() -> None:
    """Headers that ``Connection`` names are of this hop, however it is written and repeated."""
    headers = CIMultiDict(
        [
            ("X-One", "1"),
            ("Connection", "close, x-ONE"),
            ("x-two", "2"),
            ("connection", " X-Two "),
            ("X-Three", "3"),
        ]
    )
    assert forward_request_headers(headers.items()) == [("X-Three", "3")]
    assert end_to_end_response_headers(headers.items()) == [("X-Three", "3")]


def test_repeated_headers_stay_repeated_and_in_order() -> None:
    """A header sent twice arrives twice, in the same order."""
    pairs = [("X-Key", "a"), ("Cookie", "b"), ("X-Key", "c")]
    assert forward_request_headers(pairs) == pairs


@given(header_lists)
def test_selection_never_invents(headers: "CIMultiDict[str]") -> None:
    """Whatever is forwarded was sent, with the same value and in the same order."""
    sent = list(headers.items())
    for forwarded in (forward_request_headers(headers.items()), end_to_end_response_headers(headers.items())):
        remaining = iter(sent)
        assert all(pair in remaining for pair in forwarded)


def test_passed_through_requests_keep_nearly_everything() -> None:
    """The pass-through replaces ``Host`` and drops only what belongs to this hop."""
    headers = CIMultiDict(
        [
            ("Host", "proxy.example"),
            ("Origin", "https://app.example"),
            ("Accept-Encoding", "gzip"),
            ("Content-Type", "text/plain"),
            ("Content-Length", "3"),
            ("Expect", "100-continue"),
            ("TE", "trailers"),
            ("Mcp-Session-Id", "s"),
        ]
    )
    assert end_to_end_request_headers(headers.items(), "127.0.0.1:8000") == [
        ("Host", "127.0.0.1:8000"),
        ("Origin", "https://app.example"),
        ("Accept-Encoding", "gzip"),
        ("Content-Type", "text/plain"),
        ("Content-Length", "3"),
        ("Mcp-Session-Id", "s"),
    ]


@pytest.mark.parametrize("coding", ["identity", "gzip", "br", "gzip, gzip"])
def test_a_body_keeps_what_describes_it(coding: str) -> None:
    """A body is passed through as it came, so its encoding and length travel with it."""
    headers = CIMultiDict({"Content-Encoding": coding, "Content-Length": "30"})
    assert end_to_end_request_headers(headers.items(), "h")[1:] == list(headers.items())


def test_responses_keep_set_cookie_and_length() -> None:
    """Repeated cookies stay apart, and the length of the body stays known."""
    pairs = [
        ("Set-Cookie", "a=1"),
        ("Content-Length", "5"),
        ("Set-Cookie", "b=2"),
        ("Content-Encoding", "gzip"),
    ]
    assert end_to_end_response_headers([*pairs, ("Keep-Alive", "timeout=5")]) == pairs


def test_refusals_keep_what_explains_them() -> None:
    """Of a refusal's headers only those travel that tell the client what to do."""
    headers = CIMultiDict(
        [
            ("WWW-Authenticate", 'Bearer realm="x"'),
            ("Content-Type", "text/plain"),
            ("Set-Cookie", "secret"),
            ("Retry-After", "3"),
            ("www-authenticate", "Basic"),
            ("RateLimit", "r=0"),
            ("RateLimit-Policy", "q=1"),
            ("X-RateLimit-Reset", "60"),
            ("X-Rate-Limit-Limit", "9"),
            ("Mcp-Session-Id", "throwaway"),
        ]
    )
    assert explaining_response_headers(headers.items()) == {
        "WWW-Authenticate": 'Bearer realm="x", Basic',
        "Retry-After": "3",
        "RateLimit": "r=0",
        "RateLimit-Policy": "q=1",
        "X-RateLimit-Reset": "60",
        "X-Rate-Limit-Limit": "9",
    }


def test_what_explains_a_refusal_has_one_spelling() -> None:
    """Many servers write all names small; a challenge is rewritten, and a time to wait is added, by name."""
    headers = [("www-authenticate", "Bearer"), ("WWW-AUTHENTICATE", "Basic"), ("retry-AFTER", "3")]
    assert explaining_response_headers(headers) == {"WWW-Authenticate": "Bearer, Basic", "Retry-After": "3"}


@pytest.mark.parametrize(("value", "expected"), [("a", "a"), ("é", "é"), ("caf\udce9", "café"), ("", "")])
def test_values_can_be_written(value: str, expected: str) -> None:
    """A value in UTF-8 stays itself; one in Latin-1 is re-coded instead of breaking the request."""
    assert writable(value) == expected


@given(st.binary())
def test_any_value_can_be_written(raw: bytes) -> None:
    """Whatever bytes a value has, what is made of it can be encoded."""
    writable(raw.decode("utf-8", "surrogateescape")).encode()
