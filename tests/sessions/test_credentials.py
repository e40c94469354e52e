"""Which headers tell callers apart, and what their values say."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_session_proxy.sessions.credentials import (
    DEFAULT_PATTERNS,
    Credentials,
    Weight,
    read_credential,
    sounds_like_identity,
)

DEFAULTS = Credentials(DEFAULT_PATTERNS)

# What clients, authenticating proxies, clouds and meshes send to say who is calling.
IN_THE_FIELD = """
Authorization Cookie DPoP Api-Key ApiKey X-Api-Key X-Access-Token X-Auth-Token Private-Token Token
Ocp-Apim-Subscription-Key X-RapidAPI-Key X-Functions-Key X-Goog-Api-Key X-Goog-Iap-Jwt-Assertion
X-Goog-Authenticated-User-Email X-Ms-Client-Principal X-Ms-Client-Principal-Id
X-Ms-Token-Aad-Id-Token X-Amzn-Oidc-Data X-Amzn-Oidc-Identity X-Amzn-Oidc-Accesstoken
Cf-Access-Jwt-Assertion Cf-Access-Client-Id Cf-Access-Authenticated-User-Email Remote-User
Remote-Email Remote-Groups X-Forwarded-User X-Forwarded-Email X-Forwarded-Preferred-Username
X-Forwarded-Groups X-Auth-Request-User X-Authentik-Username X-Pomerium-Jwt-Assertion
X-Pomerium-Claim-Email X-Forwarded-Client-Cert X-SSL-Client-S-DN X-Client-Cert Client-Cert
Tailscale-User-Login X-Consumer-Id X-Consumer-Username X-Credential-Identifier X-WebAuth-User
SM_USER OIDC_CLAIM_sub OpenAI-Organization X-Org-Id X-Tenant-Id X-Account-Id X-Customer-Id
X-Workspace-Id X-Email X-Id-Token Impersonate-User X-Vault-Token X-Gitlab-Token X-Login X-Identity
X-Principal X-Subject-Token X-Scope-OrgID X-ARR-ClientCert X-SSL-Cert X-Client-CN IFTTT-Service-Key
iv-creds X-Remote-Group Impersonate-Group X-Bearer X-GitHub-PAT eppn X-UPN client_id org_id X_API_KEY
X-Request-Identity X-Organisation-Id X-Cookie
"""


SAYING_NOTHING = """
User-Agent X-User-Agent User_Agent X_User_Agent Idempotency-Key Idempotency_Key X_Request_Id
If-None-Match ETag X-Idempotency-Key X-Request-Id X-Correlation-Id Traceparent
X-Amzn-Trace-Id Sec-WebSocket-Key Proxy-Authorization X-CSRF-Token X-Signature X-Auth-Timestamp
X-Auth-Nonce Accept Accept-Language Content-Type Host Origin Referer Mcp-Session-Id
MCP-Protocol-Version Last-Event-Id X-Forwarded-For X-Real-Ip Remote-Addr Keep-Alive Connection
X-Stainless-Retry-Count
"""


@pytest.mark.parametrize("name", IN_THE_FIELD.split())
def test_names_in_the_field_count(name):
    """Every header by which a caller is named in the field identifies, in any case."""
    assert DEFAULTS.weigh(name) is Weight.IDENTIFIES
    assert DEFAULTS.weigh(name.swapcase()) is Weight.IDENTIFIES


@pytest.mark.parametrize(
    "name",
    SAYING_NOTHING.split(),
)
def test_names_that_say_nothing(name):
    """What differs between the requests of one caller, or says nothing of it, does not count."""
    assert DEFAULTS.weigh(name) is Weight.NOTHING


def test_a_name_that_is_spelt_out_counts():
    """The operator knows better than the list of what a wildcard must not take."""
    assert Credentials(["user-agent"]).weigh("User-Agent") is Weight.IDENTIFIES
    assert Credentials(["*agent*"]).weigh("User-Agent") is Weight.NOTHING
    assert Credentials([]).weigh("Authorization") is Weight.NOTHING


def test_a_name_counts_however_it_is_spelt():
    """To some servers, dashes and underscores are one: who is named by either is named by both."""
    for spelt in ("x-caller", "X_Caller"):
        assert Credentials([spelt]).weigh("X_CALLER") is Weight.IDENTIFIES
        assert Credentials([spelt]).weigh("X-Caller") is Weight.IDENTIFIES
    assert DEFAULTS.weigh("X_MCP_Readonly") is Weight.SEPARATES


def test_settings_only_separate():
    """What a caller sets for itself proves nothing, unless its name is a credential's."""
    assert DEFAULTS.weigh("X-MCP-Readonly") is Weight.SEPARATES
    assert DEFAULTS.weigh("X-MCP-Toolsets") is Weight.SEPARATES
    assert DEFAULTS.weigh("X-MCP-Api-Key") is Weight.IDENTIFIES


def test_what_sounds_like_identity():
    """Names are known that the operator left out, and some that no list has."""
    assert sounds_like_identity("X-Caller")
    assert sounds_like_identity("Authorization")
    assert not sounds_like_identity("Accept")
    assert not sounds_like_identity("X-User-Agent")


@pytest.mark.parametrize("value", ["", "  ", "null", "Undefined", "NONE", "(null)"])
@pytest.mark.parametrize("name", ["Authorization", "X-Api-Key", "Cookie", "DPoP"])
def test_words_for_nothing(name, value):
    """A variable that was not set is no credential."""
    assert read_credential(name, value) is None


@pytest.mark.parametrize(
    "value", ["${API_KEY}", "${env:KEY}", "{{ key }}", "%KEY%", "[object Object]", '""', "'null'"]
)
@pytest.mark.parametrize("name", ["Authorization", "X-Api-Key", "X-User"])
def test_variables_that_were_not_filled_in(name, value):
    """Whoever forgot to write a key is not somebody, together with all others who did."""
    assert read_credential(name, value) is None
    assert read_credential(name, f"Bearer {value}") is None


@pytest.mark.parametrize(
    "value", ["session=", 'a=; b=""', ";", "session=undefined; b=null", "=", "undefined"]
)
def test_cookies_without_values(value):
    """A cookie that was deleted or never set is no credential."""
    assert read_credential("Cookie", value) is None


@pytest.mark.parametrize("value", ["session=a", "a=; b=c", "abc", "=a"])
def test_cookies(value):
    """One that has a value, or no name, is one."""
    assert read_credential("Cookie", value) == value.encode()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Api-Key", "Bearer undefined"),
        ("X-Authorization", "Bearer"),
        ("X_Auth_Token", "Bearer null"),
        ("Authorization", "Basic Og=="),
    ],
)
def test_schemes_elsewhere(name, value):
    """The same in the headers that have taken Authorization's place."""
    assert read_credential(name, value) is None


def test_names_of_users_that_are_schemes():
    """Somebody may be called so."""
    assert read_credential("X-User", "basic") == b"basic"
    assert read_credential("X-User", "${") == b"${"


@pytest.mark.parametrize(
    "value",
    [
        "Bearer",
        "BASIC",
        "Bearer  ",
        "Bearer null",
        "DPoP undefined",
        "Bearer\tundefined",
        "Bearer Bearer",
        "Bearer bearer undefined",
        "Api-Key undefined",
    ],
)
def test_a_scheme_alone(value):
    """An authorisation without a credential is none."""
    assert read_credential("Authorization", value) is None


@pytest.mark.parametrize("value", ["Bearer abc", "sk-abc", "Basic bnVsbDo=", "Custom", "Bearer a b"])
def test_a_credential(value):
    """Whatever else stands there counts, byte by byte."""
    assert read_credential("Authorization", value) == value.encode()


def _proof(key, payload):
    header = json.dumps({"typ": "dpop+jwt", "alg": "ES256", "jwk": key}).encode()
    return b".".join(
        base64.urlsafe_b64encode(part).rstrip(b"=") for part in (header, payload, b"sig")
    ).decode()


def test_a_proof_counts_by_its_key():
    """A DPoP proof is new in each request; the key it is made with stays (RFC 9449, section 4.2)."""
    one = read_credential("DPoP", _proof({"kty": "EC", "x": "1"}, b'{"jti":"a"}'))
    assert one == read_credential("dpop", _proof({"x": "1", "kty": "EC"}, b'{"jti":"b"}'))
    assert one != read_credential("DPoP", _proof({"kty": "EC", "x": "2"}, b'{"jti":"a"}'))


@given(st.text(max_size=200))
def test_any_proof_is_read(text):
    """A proof that is none counts as it stands."""
    read_credential("DPoP", text)
    assert read_credential("DPoP", "x" * 20_000) == b"x" * 20_000
