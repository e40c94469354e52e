"""Telling callers apart: principal, affinity key, profile."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from mcp_session_proxy.errors import BadRequest
from mcp_session_proxy.protocol import jsonrpc
from mcp_session_proxy.sessions.identity import (
    ANONYMOUS,
    Identifier,
    SessionKey,
    affinity_of_id,
    read_profile,
    sessionless_profile,
)
from mcp_session_proxy.settings.config import Settings

DEFAULTS = {name: field.default for name, field in Settings.model_fields.items()}


def make(**options):
    """An identifier with the program's own defaults."""
    chosen = {
        "credential_headers": DEFAULTS["credential_header"],
        "credential_query": DEFAULTS["credential_query"],
        "affinity_headers": DEFAULTS["affinity_header"],
        "affinity_meta": DEFAULTS["affinity_meta"],
        "secret": b"secret",
        **options,
    }
    return Identifier(**chosen)


def principal(*headers, query="", **options):
    return make(**options).principal(headers, query)


# -- principal -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "Authorization",
        "Cookie",
        "X-Auth-Request-Email",
        "X-Access-Token",
        "X-API-Key",
        "X-Client-Secret",
        "X-User-Id",
        "X-Tenant",
        "X-Account-Number",
        "X-MCP-Token",
    ],
)
def test_what_tells_callers_apart(name):
    """Each kind of credential header makes a principal, and its value tells which."""
    one, two = principal((name, "1")), principal((name, "2"))
    assert not one.anonymous
    assert one == principal((name, "1"))
    assert one != two


@pytest.mark.parametrize(
    "name",
    [
        "User-Agent",
        "Accept",
        "Mcp-Session-Id",
        "MCP-Protocol-Version",
        "X-Request-Id",
        "X-Forwarded-For",
        "Idempotency-Key",
        "X-User-Agent",
        "X-CSRF-Token",
    ],
)
def test_what_says_nothing_about_the_caller(name):
    """Headers that differ between requests of one caller do not make a principal."""
    assert principal((name, "1")) is ANONYMOUS


def test_nothing_shown_is_anonymous():
    """A caller without credential and query string is the principal ``anonymous``."""
    assert principal() == ANONYMOUS
    assert ANONYMOUS.anonymous
    assert ANONYMOUS.tag == "anonymous"


def test_header_names_ignore_case():
    """HTTP header names are the same in any case; values are not."""
    assert principal(("AUTHORIZATION", "a")) == principal(("authorization", "a"))
    assert principal(("Authorization", "a")) != principal(("Authorization", "A"))


def test_header_order_does_not_matter():
    """The same headers in another order are the same caller."""
    headers = [("Authorization", "a"), ("Cookie", "b"), ("X-Tenant", "c")]
    assert principal(*headers) == principal(*reversed(headers))


def test_every_credential_counts():
    """Callers that share one credential and differ in another are two."""
    assert principal(("Authorization", "a"), ("X-Tenant", "1")) != principal(
        ("Authorization", "a"), ("X-Tenant", "2")
    )
    assert principal(("Authorization", "a")) != principal(("Authorization", "a"), ("X-Tenant", "2"))


def test_parts_do_not_run_together():
    """No way of cutting the same text into headers makes two callers one."""
    assert principal(("Cookie", "ab"), ("Cookie", "c")) != principal(("Cookie", "a"), ("Cookie", "bc"))
    assert principal(("Cookie", "a"), ("Cookie", "b")) != principal(("Cookie", "a"))


def test_the_query_string_separates():
    """Callers with other query strings share nothing, but a query string makes nobody known."""
    assert principal(query="key=1") != principal(query="key=2")
    assert principal(query="key=1") != ANONYMOUS
    assert principal(query="key=1").anonymous
    assert principal(query="key=1", credential_query=False) == ANONYMOUS
    assert not principal(("Authorization", "a"), query="key=1").anonymous


def test_settings_separate():
    """So it is with headers that say how the server is to be."""
    one, two = principal(("X-MCP-Readonly", "true")), principal(("X-MCP-Readonly", "false"))
    assert one != two
    assert one.anonymous
    assert one.tag != "anonymous"


@pytest.mark.parametrize(
    "value", ["", " ", "Bearer", "bearer ", "Bearer undefined", "Bearer null", "Bearer None", "null"]
)
def test_an_authorization_that_says_nothing(value):
    """What programs send for want of a token makes nobody known."""
    assert principal(("Authorization", value)) == ANONYMOUS


def test_configured_headers_replace_the_defaults():
    """``--credential-header`` names what counts, with ``*`` for anything."""
    options = {"credential_headers": ["x-caller-*"]}
    assert principal(("Authorization", "a"), **options) == ANONYMOUS
    assert not principal(("X-Caller-Name", "a"), **options).anonymous
    assert not principal(("Authorization", "a")).anonymous
    assert principal(("Authorization", "a"), credential_headers=[]) == ANONYMOUS


def test_the_hash_is_keyed():
    """A digest from one process says nothing in another, and the secret is random by default."""
    header = ("Authorization", "Bearer secret")
    assert principal(header, secret=b"1") != principal(header, secret=b"2")
    assert principal(header, secret=None) != principal(header, secret=None)


def test_no_credential_is_kept_or_shown():
    """Neither ``repr`` nor the tag holds the credential."""
    caller = principal(("Authorization", "Bearer hunter2"), query="key=hunter2")
    assert "hunter2" not in repr(caller) + caller.tag
    assert len(caller.tag) == 8


def test_bytes_that_are_not_text_are_taken():
    """Header values and queries that are not UTF-8 (surrogates) make a principal like any other."""
    assert principal(("Cookie", "\udcff")) != principal(("Cookie", "\udcfe"))
    assert principal(query="\udcff") != ANONYMOUS


@given(st.lists(st.tuples(st.sampled_from(["cookie", "x-user", "accept"]), st.text()), max_size=5), st.text())
def test_any_headers_make_the_same_principal_twice(headers, query):
    """The principal depends on nothing but what was sent."""
    one = make()
    assert one.principal(headers, query) == one.principal(headers, query)


# -- affinity --------------------------------------------------------------------------------------


def affinity(headers=None, meta=None, **options):
    raw = {name: json.dumps(value).encode() for name, value in (meta or {}).items()}
    return make(**options).affinity(CIMultiDict(headers or {}), raw)


@pytest.mark.parametrize("name", ["openai/session", "sessionID"])
def test_conversation_handles_in_meta(name):
    """The known conversation handles are affinity keys."""
    assert affinity(meta={name: "v1"}) == f"{name}=v1"
    assert affinity(meta={name: "v1"}) != affinity(meta={name: "v2"})


@pytest.mark.parametrize("meta", [{}, {"progressToken": 1}, {"sessionID": ""}, {"sessionID": None}])
def test_no_affinity(meta):
    """Without a conversation handle, or with an empty one, there is no affinity key."""
    assert affinity(meta=meta) is None


def test_handles_that_are_not_strings():
    """A handle may be any JSON value."""
    assert affinity(meta={"sessionID": 7}) == "sessionID=7"
    assert affinity(meta={"sessionID": {"a": 1}}) == 'sessionID={"a": 1}'


def test_the_same_value_from_another_source_is_another_key():
    """A conversation is named by where its handle came from as well."""
    assert affinity(meta={"openai/session": "v1"}) != affinity(meta={"sessionID": "v1"})
    assert affinity_of_id("v1") != affinity(meta={"sessionID": "v1"})


def test_affinity_headers():
    """``--affinity-header`` names headers, in any case; headers beat ``_meta``, earlier names later ones."""
    options = {"affinity_headers": ["X-One", "X-Two"]}
    assert affinity({"x-one": "a"}, **options) == "x-one=a"
    assert affinity({"X-Two": "b", "X-One": "a"}, **options) == "x-one=a"
    assert affinity({"X-Two": "b"}, {"sessionID": "c"}, **options) == "x-two=b"
    assert affinity({"X-One": ""}, {"sessionID": "c"}, **options) == "sessionID=c"


def test_affinity_keys_are_bounded():
    """A long handle is hashed; two long ones stay two."""
    long = "x" * 100_000
    assert len(affinity(meta={"sessionID": long})) < 100
    assert affinity(meta={"sessionID": long}) == affinity(meta={"sessionID": long})
    assert affinity(meta={"sessionID": long}) != affinity(meta={"sessionID": long + "y"})
    assert len(affinity_of_id(long)) < 100


def test_a_foreign_session_id_is_an_affinity_key():
    """A session id that is not ours names a conversation."""
    assert affinity_of_id("abc") == "mcp-session-id=abc"


# -- profile ---------------------------------------------------------------------------------------


def params(**members):
    """Raw ``initialize`` parameters."""
    whole = {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "client", "version": "1"},
        **members,
    }
    return json.dumps(whole).encode()


def test_equal_profiles():
    """Key order, spacing, the client's version and ``_meta`` make no difference."""
    one = read_profile(params(capabilities={"roots": {"listChanged": True}, "sampling": {}}))
    two = read_profile(
        b'{ "clientInfo" : {"version":"2","name":"client"}, "_meta": {"progressToken": 9},'
        b' "capabilities":{"sampling":{},"roots":{"listChanged":true}}, "protocolVersion":"2025-11-25"}'
    )
    assert one == two


@pytest.mark.parametrize(
    "change",
    [
        {"protocolVersion": "2025-03-26"},
        {"capabilities": {"sampling": {}}},
        {"clientInfo": {"name": "another"}},
    ],
)
def test_different_profiles(change):
    """Version, capabilities and client name each make another profile."""
    assert read_profile(params()) != read_profile(params(**change))


def test_a_profile_keeps_the_parameters_as_they_came():
    """What a server is told is what the client said, numbers and unknown members included, less ``_meta``."""
    raw = params(capabilities={"x": 1}, other=[1.0, 10**30], _meta={"progressToken": 1})
    kept = jsonrpc.read_object(read_profile(raw).params)
    assert kept["other"] == b"[1.0, 1000000000000000000000000000000]"
    assert kept["capabilities"] == b'{"x": 1}'
    assert "_meta" not in kept


@pytest.mark.parametrize(
    "raw",
    [
        None,
        b"{}",
        b"[]",
        b"7",
        b"not json",
        params(protocolVersion=""),
        params(protocolVersion=7),
        params(protocolVersion=None),
        params(protocolVersion="9" * 1000),
        b'{"protocolVersion":"\\ud800"}',
    ],
)
def test_bad_parameters_are_the_clients_fault(raw):
    """``initialize`` without a usable protocol version is refused as a bad request."""
    with pytest.raises(BadRequest, match="protocolVersion"):
        read_profile(raw)


@pytest.mark.parametrize("info", [None, 7, [], {}, {"name": None}, {"name": 7}])
def test_odd_client_info_is_taken(info):
    """A client without a proper name is served all the same."""
    assert read_profile(params(clientInfo=info)).client_name == ""


def test_client_names_are_bounded():
    """A long client name is cut."""
    assert len(read_profile(params(clientInfo={"name": "n" * 10_000})).client_name) == 200


def test_capabilities_may_be_missing():
    """Missing capabilities are no capabilities."""
    assert read_profile(b'{"protocolVersion":"v"}') == read_profile(
        b'{"protocolVersion":"v","capabilities":{}}'
    )


def test_the_sessionless_profile():
    """Requests without a session share one profile: the latest legacy version, no capabilities."""
    profile = sessionless_profile("1.2.3")
    assert profile == sessionless_profile("1.2.3")
    told = json.loads(profile.params)
    assert told["protocolVersion"] == "2025-11-25"
    assert told["capabilities"] == {}
    assert told["clientInfo"] == {"name": "mcp-session-proxy", "version": "1.2.3"}


def test_profiles_do_not_show_their_parameters():
    """``repr`` holds no parameters: clients put all sorts of things there."""
    assert "hunter2" not in repr(read_profile(params(secret="hunter2")))


# -- session key -----------------------------------------------------------------------------------


def test_session_keys_show_a_tag_only():
    """A key's principal is shown as a short tag."""
    digest = principal(("Cookie", "a")).digest
    assert SessionKey(digest, None, "p").principal_tag == digest[:8]
    assert SessionKey(ANONYMOUS.digest, None, "p").principal_tag == "anonymous"
