"""The server's URLs become ours: redirects, challenges, metadata documents, well-known paths."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_session_proxy.downstream.rewriting import Rewriter, is_metadata

UPSTREAM = "http://10.0.0.5:8000"


def rewriter(public_url: str | None = "https://mcp.example", endpoint: str = "/mcp") -> Rewriter:
    return Rewriter(upstream_origin=UPSTREAM, endpoint_path=endpoint, public_url=public_url)


# -- redirects -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        (f"{UPSTREAM}/login?next=%2Fa#b", "/login?next=%2Fa#b"),
        (UPSTREAM, "/"),
        (f"{UPSTREAM}?a=1", "/?a=1"),
        (f"{UPSTREAM}//evil.example/x", "/.//evil.example/x"),
        (f"{UPSTREAM}/\\evil.example", "/./\\evil.example"),
        ("/login", "/login"),
        ("next", "next"),
        ("https://login.example/", "https://login.example/"),
        ("http://10.0.0.5:8001/x", "http://10.0.0.5:8001/x"),
        ("https://10.0.0.5:8000/x", "https://10.0.0.5:8000/x"),
        ("http://10.0.0.5:8000@evil.example/", "http://10.0.0.5:8000@evil.example/"),
    ],
)
def test_redirects_to_the_server_become_relative(location: str, expected: str) -> None:
    """Without a public URL a redirect to the server itself becomes relative, and leads to no other host."""
    assert rewriter(None).location(location) == expected


@pytest.mark.parametrize(
    ("public_url", "location", "expected"),
    [
        ("https://mcp.example", f"{UPSTREAM}/login?a=1", "https://mcp.example/login?a=1"),
        ("https://mcp.example/tools", f"{UPSTREAM}/login", "https://mcp.example/tools/login"),
        ("https://mcp.example/tools/", f"{UPSTREAM}/login", "https://mcp.example/tools/login"),
        ("https://mcp.example", "https://login.example/", "https://login.example/"),
    ],
)
def test_redirects_to_the_server_become_public(public_url: str, location: str, expected: str) -> None:
    """With a public URL a redirect to the server itself leads to the same path there."""
    assert rewriter(public_url).location(location) == expected


# -- metadata ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("public_url", "resource", "expected"),
    [
        ("https://mcp.example", f"{UPSTREAM}/mcp", "https://mcp.example/mcp"),
        ("https://mcp.example", f"{UPSTREAM}/", "https://mcp.example/"),
        ("https://mcp.example", UPSTREAM, "https://mcp.example"),
        ("https://mcp.example:8443", f"{UPSTREAM}/mcp", "https://mcp.example:8443/mcp"),
        ("https://mcp.example/tools", f"{UPSTREAM}/mcp", "https://mcp.example/tools/mcp"),
        ("https://mcp.example/mcp", f"{UPSTREAM}/mcp", "https://mcp.example/mcp"),
        ("https://mcp.example/tools/mcp", f"{UPSTREAM}/mcp", "https://mcp.example/tools/mcp"),
        ("https://mcp.example", "https://elsewhere.example/mcp", "https://elsewhere.example/mcp"),
    ],
)
def test_resource_is_the_public_url(public_url: str, resource: str, expected: str) -> None:
    """The metadata's resource becomes the same path under the public URL, if it was the server's own."""
    body = json.dumps({"resource": resource, "scopes_supported": ["a"]}).encode()
    assert json.loads(rewriter(public_url).metadata(body)) == {
        "resource": expected,
        "scopes_supported": ["a"],
    }


def test_the_rest_of_the_document_is_untouched() -> None:
    """Members we do not know keep their exact text."""
    body = b'{"resource": "http://10.0.0.5:8000/mcp", "big": 12345678901234567890123, "x": 1.0}'
    expected = b'{"resource":"https://mcp.example/mcp","big":12345678901234567890123,"x":1.0}'
    assert rewriter().metadata(body) == expected


def test_whatever_the_server_says_of_itself_is_public() -> None:
    """Issuer, endpoints and servers of all kinds, in lists and in objects within; other origins stay."""
    document = {
        "issuer": f"{UPSTREAM}/",
        "authorization_servers": [UPSTREAM, f"{UPSTREAM}/tenant", "https://login.example"],
        "authorization_endpoint": f"{UPSTREAM}/authorize?a={UPSTREAM}/b",
        "mtls_endpoint_aliases": {
            "token_endpoint": f"{UPSTREAM}/mtls/token",
            "deep": [[{"x": f"{UPSTREAM}/x"}]],
        },
        "jwks_uri": "http://10.0.0.5:80/jwks",
        "service_documentation": "see http://10.0.0.5:8000/docs",
        f"{UPSTREAM}/key": 1,
        "scopes_supported": ["mcp"],
    }
    assert json.loads(rewriter("https://mcp.example/tools").metadata(json.dumps(document).encode())) == {
        "issuer": "https://mcp.example/tools/",
        "authorization_servers": [
            "https://mcp.example/tools",
            "https://mcp.example/tools/tenant",
            "https://login.example",
        ],
        "authorization_endpoint": f"https://mcp.example/tools/authorize?a={UPSTREAM}/b",
        "mtls_endpoint_aliases": {
            "token_endpoint": "https://mcp.example/tools/mtls/token",
            "deep": [[{"x": "https://mcp.example/tools/x"}]],
        },
        "jwks_uri": "http://10.0.0.5:80/jwks",
        "service_documentation": "see http://10.0.0.5:8000/docs",
        f"{UPSTREAM}/key": 1,
        "scopes_supported": ["mcp"],
    }


def test_order_and_escapes() -> None:
    """Members keep their order, and an escaped slash is a slash."""
    body = b'{"z":1,"issuer":"http:\\/\\/10.0.0.5:8000\\/t","a":[1.50,"\\u00e9"]}'
    assert rewriter().metadata(body) == b'{"z":1,"issuer":"https://mcp.example/t","a":[1.50,"\\u00e9"]}'


def test_absurd_depths_are_left_alone() -> None:
    """A document that is nested without end costs nothing and harms nobody."""
    body = b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    assert rewriter().metadata(body) == body
    deep = (
        b'{"issuer":"http://10.0.0.5:8000","x":' + b"[" * 100 + b'"http://10.0.0.5:8000"' + b"]" * 100 + b"}"
    )
    assert rewriter().metadata(deep).count(b"https://mcp.example") == 1


def test_replicas_are_one_server() -> None:
    """Equal servers may all call themselves by the name of one of them."""
    ours = Rewriter(
        upstream_origin=UPSTREAM,
        endpoint_path="/mcp",
        public_url="https://mcp.example",
        replicas=[UPSTREAM, "http://10.0.0.6:8000"],
    )
    assert ours.metadata(b'{"issuer":"http://10.0.0.6:8000"}') == b'{"issuer":"https://mcp.example"}'
    assert ours.metadata(b'{"issuer":"http://10.0.0.7:8000"}') == b'{"issuer":"http://10.0.0.7:8000"}'


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("http://0.0.0.0:8000/t", "https://mcp.example/t"),
        ("http://[::]:8000/t", "https://mcp.example/t"),
        ("http://localhost:8000/t", "https://mcp.example/t"),
        ("HTTP://LOCALHOST:8000/t", "https://mcp.example/t"),
        ("http://localhost:9000/t", "http://localhost:9000/t"),
        ("https://localhost:8000/t", "https://localhost:8000/t"),
        ("http://10.0.0.50:8000/t", "http://10.0.0.50:8000/t"),
        ("http://10.0.0.5:80000/t", "http://10.0.0.5:80000/t"),
        ("http://10.0.0.5:8000.evil.example/t", "http://10.0.0.5:8000.evil.example/t"),
        ("http://10.0.0.5:8000@evil.example/t", "http://10.0.0.5:8000@evil.example/t"),
    ],
)
def test_names_that_a_server_has_for_itself(name: str, expected: str) -> None:
    """By how it sees itself, or where it listens, on its own port; what only looks like it stays."""
    body = json.dumps({"issuer": name}).encode()
    assert json.loads(rewriter().metadata(body)) == {"issuer": expected}


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{", b"{}", b'{"resource":7}', b'{"resource":"http://["}', b'{"resource":"/mcp"}', b"\xff"],
)
def test_other_bodies_are_left_alone(body: bytes) -> None:
    """A body without a resource of the server's stays as it is."""
    assert rewriter().metadata(body) == body


def test_without_a_public_url_metadata_is_left_alone() -> None:
    """Nobody told us our name, so the server's stays."""
    body = b'{"resource":"http://10.0.0.5:8000/mcp"}'
    assert rewriter(None).metadata(body) == body


@pytest.mark.parametrize(
    ("resource", "expected"),
    [
        ("http://localhost:8000/mcp", "https://mcp.example/mcp"),
        ("http://[::1]:8000/mcp", "https://mcp.example/mcp"),
        ("http://localhost:8001/mcp", "http://localhost:8001/mcp"),
        ("https://localhost:8000/mcp", "https://localhost:8000/mcp"),
    ],
)
def test_a_server_on_loopback_has_many_names(resource: str, expected: str) -> None:
    """A server reached as 127.0.0.1 that calls itself localhost is still itself."""
    local = Rewriter(
        upstream_origin="http://127.0.0.1:8000", endpoint_path="/mcp", public_url="https://mcp.example"
    )
    assert json.loads(local.metadata(json.dumps({"resource": resource}).encode())) == {"resource": expected}


# -- authorization responses -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "location",
    [
        "http://localhost:8000/callback?code=c&state=s",
        "http://127.0.0.1:8000/callback?error=access_denied&state=s",
        "http://localhost:3334/callback?code=c&state=s",
        "https://app.example/callback?code=c&state=s",
        "cursor://anysphere/callback?code=c&state=s",
    ],
)
@pytest.mark.parametrize("public_url", [None, "https://mcp.example"])
def test_a_clients_callback_is_the_clients(public_url: str | None, location: str) -> None:
    """The code goes to the program that waits for it on its user's machine, whatever the server's port is."""
    local = Rewriter(upstream_origin="http://127.0.0.1:8000", endpoint_path="/mcp", public_url=public_url)
    assert local.location(location) == location


def test_the_issuer_of_an_authorization_response() -> None:
    """Clients compare it with the metadata's issuer (RFC 9207), so it is public as well."""
    sent = "https://app.example/cb?code=c&iss={}&state=s&miss=http%3A%2F%2F10.0.0.5%3A8000#f"
    assert rewriter().location(sent.format("http%3A%2F%2F10.0.0.5%3A8000%2F")) == sent.format(
        "https%3A%2F%2Fmcp.example%2F"
    )
    foreign = sent.format("https%3A%2F%2Flogin.example")
    assert rewriter().location(foreign) == foreign


def test_what_a_client_asked_for_is_left_alone() -> None:
    """Only where a redirect leads is ours; its parameters are compared by who gave them, byte for byte."""
    query = f"?redirect_uri={UPSTREAM}/cb&resource=http%3A%2F%2F10.0.0.5%3A8000%2Fmcp"
    assert rewriter().location(f"{UPSTREAM}/login{query}") == f"https://mcp.example/login{query}"
    assert rewriter().location(f"https://login.example/{query}") == f"https://login.example/{query}"


# -- challenges ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("public_url", "expected"),
    [
        ("https://mcp.example", "https://mcp.example/.well-known/oauth-protected-resource/mcp"),
        ("https://mcp.example/tools", "https://mcp.example/.well-known/oauth-protected-resource/tools/mcp"),
        (None, f"{UPSTREAM}/.well-known/oauth-protected-resource/mcp"),
    ],
)
def test_challenge_leads_to_our_metadata(public_url: str | None, expected: str) -> None:
    """The challenge names the metadata under the public URL, whose path goes behind the well-known part."""
    value = 'Bearer error="invalid_token", resource_metadata="{}", scope="a b"'
    sent = value.format(f"{UPSTREAM}/.well-known/oauth-protected-resource/mcp")
    assert rewriter(public_url).challenge(sent) == value.format(expected)


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ('Bearer authorization_uri="{}/authorize"', 'Bearer authorization_uri="{}/authorize"'),
        ("Bearer authorization_uri={}/authorize, scope=a", "Bearer authorization_uri={}/authorize, scope=a"),
        ('Bearer realm="mcp",resource="{}/mcp"', 'Bearer realm="mcp",resource="{}/mcp"'),
        ('Digest domain="/a {}/b", nonce="x\\"y"', 'Digest domain="/a {}/b", nonce="x\\"y"'),
        ('Basic realm="a, b=\\"c", Bearer x="{}"', 'Basic realm="a, b=\\"c", Bearer x="{}"'),
    ],
)
def test_every_parameter_of_a_challenge_is_ours(sent: str, expected: str) -> None:
    """Whatever it is called, quoted or not, among other things or alone."""
    assert rewriter().challenge(sent.format(UPSTREAM)) == expected.format("https://mcp.example")


@pytest.mark.parametrize(
    "value",
    [
        "Basic",
        'Bearer realm="http://10.0.0.5:8000/"',
        'Bearer resource_metadata="https://other.example/x"',
        "",
    ],
)
def test_other_challenges_are_left_alone(value: str) -> None:
    """A challenge without metadata of the server's own stays as it is."""
    assert rewriter().challenge(value) == value


def test_all_challenges_of_a_list_are_rewritten() -> None:
    """Several challenges in one header each get their metadata rewritten."""
    one = f'Bearer resource_metadata="{UPSTREAM}/a"'
    assert rewriter().challenge(f'{one}, DPoP Resource_Metadata = "{UPSTREAM}/b"') == (
        'Bearer resource_metadata="https://mcp.example/a", DPoP Resource_Metadata = "https://mcp.example/b"'
    )


# -- paths ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("public_url", "asked", "expected"),
    [
        ("https://mcp.example/tools", "/tools/mcp", "/mcp"),
        ("https://mcp.example/tools", "/tools", ""),
        ("https://mcp.example/tools", "/mcp", "/mcp"),
        ("https://mcp.example/tools", "/toolsmith", "/toolsmith"),
        ("https://mcp.example", "/mcp", "/mcp"),
        (None, "/tools/mcp", "/tools/mcp"),
    ],
)
def test_well_known_paths_of_a_public_path(public_url: str | None, asked: str, expected: str) -> None:
    """A well-known path that holds our public path means the server's one without it."""
    well_known = "/.well-known/oauth-protected-resource"
    assert rewriter(public_url).upstream_path(well_known + asked) == well_known + expected


def test_other_paths_stay() -> None:
    """Outside of the well-known paths our public path is not ours to remove."""
    assert rewriter("https://mcp.example/tools").upstream_path("/tools/x") == "/tools/x"


def test_an_endpoint_below_our_public_path_is_itself() -> None:
    """A server whose own path starts like the public one is found under its own well-known path."""
    path = "/.well-known/oauth-protected-resource/tools/mcp"
    assert rewriter("https://mcp.example/tools", "/tools/mcp").upstream_path(path) == path


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/.well-known/oauth-protected-resource", True),
        ("/.well-known/oauth-protected-resource/mcp", True),
        ("/.well-known/oauth-protected-resources", False),
        ("/.well-known/oauth-authorization-server", True),
        ("/.well-known/oauth-authorization-server/tenant/1", True),
        ("/.well-known/openid-configuration", True),
        ("/.well-known/openid-configuration/tenant", True),
        ("/tenant/.well-known/openid-configuration", True),
        ("/mcp/.well-known/oauth-authorization-server", True),
        ("/x.well-known/openid-configuration", False),
        ("/.well-known/jwks.json", False),
        ("/.well-known/openid-configurations", False),
        ("/docs/openid-configuration", False),
    ],
)
def test_metadata_paths(path: str, expected: bool) -> None:
    """The well-known paths of RFC 9728, RFC 8414 and OpenID Connect Discovery hold what is rewritten."""
    assert is_metadata(path) is expected


@given(st.text(max_size=60), st.sampled_from([None, "https://mcp.example", "https://mcp.example/tools/"]))
@pytest.mark.slow
def test_anything_is_taken(text: str, public_url: str | None) -> None:
    """No text a server may send breaks the rewriting, and no URL of others is touched."""
    ours = rewriter(public_url)
    assert ours.location(text) == text
    assert ours.challenge(text) == text
    assert ours.metadata(text.encode("utf-8", "surrogatepass")) == text.encode("utf-8", "surrogatepass")
    ours.upstream_path(text)
