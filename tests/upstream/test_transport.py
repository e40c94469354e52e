"""The words of the transport."""

from mcp_session_proxy.upstream.http.streamable_http import NO_SESSION, SessionRef
from mcp_session_proxy.upstream.transport import NOBODY, Caller


def test_caller_hides_credentials() -> None:
    """Neither headers nor the query string of a caller are ever shown."""
    caller = Caller(headers=(("Authorization", "Bearer sesame"),), query="key=sesame")
    assert "sesame" not in repr(caller)
    assert "sesame" not in f"{caller}"


def test_nobody() -> None:
    """Nobody shows no credential, and no session has no id."""
    assert Caller(headers=(), query="") == NOBODY
    assert SessionRef(None, None) == NO_SESSION


def test_a_caller_under_newer_credentials() -> None:
    """What belongs to the one request stays, whether there is anything of it or not."""
    old, new = (Caller(headers=(("Authorization", token),), query=token) for token in ("old", "new"))
    request = Caller(headers=(("traceparent", "t"), *old.headers), query="old", reduced=old)
    assert request.renewed_by(new) == Caller(
        headers=(*new.headers, ("traceparent", "t")), query="new", reduced=new
    )
    assert old.renewed_by(new).headers == new.headers
    assert old.renewed_by(new).credentials == new
