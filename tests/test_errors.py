"""The error tree is as it is drawn, and every error says whose fault it is without telling secrets."""

import re
from dataclasses import dataclass

import pytest

from mcp_session_proxy import errors
from mcp_session_proxy.errors import (
    INTERNAL_ERROR,
    AcquireTimeout,
    BadRequest,
    ClientError,
    Fault,
    HandshakeRefused,
    InternalError,
    OverloadError,
    ProxyError,
    UnsupportedHttp,
    UpstreamError,
    UpstreamRejected,
)

FAMILIES = {ClientError, UpstreamError, OverloadError}
UNDRAWN = {InternalError}  # a bug, which is nobody's answer by design


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """One line of the drawing in the module's docstring."""

    cls: type[ProxyError]
    parent: type[ProxyError]
    status: int | None  # None: it depends
    code: int | None
    reason: str


def read_drawing() -> list[Drawn]:
    family, drawn = ProxyError, []
    for line in (errors.__doc__ or "").splitlines():
        match = re.fullmatch(r" {4}[│├└─ ]*([A-Z]\w+) +(.*)", line)
        if match is None or match[1] == "ProxyError":
            continue
        cls: type[ProxyError] = getattr(errors, match[1])
        if cls in FAMILIES:
            family = cls
            continue
        status, *code, reason = match[2].replace("its own", "-").split()
        drawn.append(
            Drawn(
                cls=cls,
                parent=family,
                status=read_number(status),
                code=read_number(code[0]) if code else INTERNAL_ERROR,
                reason=reason,
            )
        )
    return drawn


def read_number(word: str) -> int | None:
    return None if word == "-" else int(word)


DRAWING = read_drawing()


def all_errors() -> set[type[ProxyError]]:
    found = {
        item for item in vars(errors).values() if isinstance(item, type) and issubclass(item, ProxyError)
    }
    return found - FAMILIES - UNDRAWN - {ProxyError}


def test_every_error_is_drawn() -> None:
    """The drawing on top of the module has every error, each once."""
    assert len(DRAWING) == len({drawn.cls for drawn in DRAWING})
    assert {drawn.cls for drawn in DRAWING} == all_errors()


@pytest.mark.parametrize("drawn", DRAWING, ids=lambda drawn: drawn.cls.__name__)
def test_errors_are_as_they_are_drawn(drawn: Drawn) -> None:
    """Family, HTTP status, JSON-RPC code and reason are what the drawing says."""
    assert issubclass(drawn.cls, drawn.parent)
    assert drawn.cls.reason == drawn.reason
    if drawn.status is not None:
        assert drawn.cls.status == drawn.status
    if drawn.code is not None and drawn.cls is not UpstreamRejected:
        assert drawn.cls.code == drawn.code


def test_reasons_tell_errors_apart() -> None:
    """No two errors share a reason, and each can be a metrics label."""
    reasons = [drawn.reason for drawn in DRAWING]
    assert len(reasons) == len(set(reasons))
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", reason) for reason in reasons)


@pytest.mark.parametrize("cls", [drawn.cls for drawn in DRAWING])
def test_the_status_says_whose_fault_it_is(cls: type[ProxyError]) -> None:
    """A client's fault is never a 5xx, the server's or ours never a 4xx.

    But for another version of HTTP: that has a status of its own (RFC 9110, section 15.6.6).
    """
    if cls is UnsupportedHttp:
        assert cls.status == 505
    elif issubclass(cls, ClientError):
        assert cls.status < 500
    else:
        assert cls.status >= 500 or cls.status == 200


@pytest.mark.parametrize("seconds", [None, 7])
def test_retry_after(seconds: int | None) -> None:
    """Where waiting helps, the answer says for how long."""
    expected = {} if seconds is None else {"Retry-After": "7"}
    assert BadRequest("No.", retry_after_seconds=seconds).headers() == expected


def test_overload_always_says_when_to_come_back() -> None:
    """An error for lack of room has a Retry-After of its own."""
    assert AcquireTimeout("Full.").headers() == {"Retry-After": "1"}


def test_an_error_reads_as_its_message() -> None:
    """In a log an error is the sentence that the client got."""
    assert str(BadRequest("The message lacks an id.")) == "The message lacks an id."


@pytest.mark.parametrize(
    ("status", "in_json_rpc", "fault"),
    [
        (400, False, Fault.CLIENT),
        (401, False, Fault.CLIENT),
        (403, False, Fault.CLIENT),
        (422, False, Fault.CLIENT),
        (429, False, Fault.CLIENT),
        (404, False, Fault.UPSTREAM),
        (404, True, Fault.CLIENT),
        (405, False, Fault.UPSTREAM),
        (408, False, Fault.UPSTREAM),
        (302, False, Fault.UPSTREAM),
        (500, True, Fault.UPSTREAM),
        (503, False, Fault.UPSTREAM),
    ],
)
def test_a_refusal_is_the_callers_fault_unless_it_says_nothing_of_the_caller(status, in_json_rpc, fault):
    """4xx are about the request; where there is no endpoint at all, nobody's request will do."""
    raw_error = b'{"code":-32601,"message":"?"}' if in_json_rpc else None
    assert UpstreamRejected(status, b"", None, {}, raw_error).fault is fault


def test_whose_fault_the_families_are():
    """The label of each family, and of bugs."""
    assert BadRequest("?").fault is Fault.CLIENT
    assert UpstreamError("?").fault is Fault.UPSTREAM
    assert AcquireTimeout("?").fault is Fault.PROXY
    assert InternalError("?").fault is Fault.PROXY
    assert HandshakeRefused(b"{}", -32602).fault is Fault.CLIENT
    assert HandshakeRefused(b"{}", INTERNAL_ERROR).fault is Fault.UPSTREAM
