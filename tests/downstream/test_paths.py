"""Which paths of the server's origin may be reached."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_session_proxy.downstream.paths import Passing, is_endpoint, is_passed

OTHER_SPELLINGS = [
    "/mcp/",
    "/mcp/../mcp",
    "/%6dcp",
    "/%256dcp",
    "/mcp//",
    "//mcp",
    "/./mcp",
    "/x/%2e%2e/mcp/",
    "/x/%252e%252e/mcp",
    "/x%2f..%2fmcp",
    "/x/..\\mcp",
    "/MCP",
    "/Mcp/",
    "/mcp;x",
    "/mcp;jsessionid=1/",
    "/;a/mcp",
    "/mcp%20",
    "/mcp%09",
    "/mcp%00",
    "/mcp.",
    "/x/..;/mcp",
    "/x/..;a=b/mcp",
    "/mcp%3bx",
    "/mcp%2f",
    "/mcp/.",
    "/mcp/%2e/",
    "/mcp%3Fx=1",
    "/mcp%253fx/../y",
    "/mcp%23x",
    "/mcp%00/x",
    "/%3f/../mcp",
]
OTHER_PATHS = [
    "/",
    "/mcpx",
    "/mc",
    "/mcp/health",
    "/x/mcp",
    "/.well-known/mcp",
    "/mcp-docs",
    "/mcp.json",
    "/...",
    "/mcpx%3fmcp",
    "/x%00/mcp",
]


@pytest.mark.parametrize("path", OTHER_SPELLINGS)
def test_what_some_server_takes_for_the_endpoint(path):
    """However a path is written, it does not lead around the front door."""
    assert is_endpoint(path, "/mcp")
    assert is_endpoint(path, "/mcp/")


@pytest.mark.parametrize("path", OTHER_PATHS)
def test_other_paths(path):
    """What is near the endpoint's path is another page all the same."""
    assert not is_endpoint(path, "/mcp")


@pytest.mark.parametrize("path", ["/", "//", "/.", "/x/..", "/%2f"])
def test_an_endpoint_at_the_root(path):
    """A server may have its endpoint at the root."""
    assert is_endpoint(path, "/")
    assert not is_endpoint("/x", "/")


@given(st.text(max_size=50))
def test_any_path_is_judged(path):
    """No path is too odd, and the endpoint's own is always itself."""
    is_endpoint("/" + path, "/mcp")
    is_passed("/" + path, Passing.OAUTH, "/mcp")
    assert is_endpoint("/mcp", "/mcp")


@pytest.mark.parametrize(
    "path",
    [
        "/.well-known/oauth-protected-resource",
        "/.well-known/oauth-protected-resource/mcp",
        "/.well-known/oauth-authorization-server",
        "/.well-known/openid-configuration",
        "/authorize",
        "/token",
        "/register",
        "/revoke",
        "/oauth/token",
        "/oauth2/v1/token",
        "/auth/callback",
        "/login",
        "/login/callback",
        "/consent",
        "/jwks.json",
        "/health",
        "/healthz/",
        "/api/authorize",
        "/api/mcp/token",
    ],
)
def test_what_signing_in_needs(path):
    """Documents, pages and endpoints of a sign-in, and health, go through where strangers connect."""
    assert is_passed(path, Passing.OAUTH, "/api/mcp")
    assert is_passed(path, Passing.ALL, "/api/mcp")
    assert not is_passed(path, Passing.NONE, "/api/mcp")


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/admin",
        "/admin/token",
        "/sse",
        "/messages",
        "/metrics",
        "/tokens",
        "/.well-known/",
        "/docs/health",
    ],
)
def test_what_nobody_needs(path):
    """The rest does not."""
    assert not is_passed(path, Passing.OAUTH, "/mcp")
    assert is_passed(path, Passing.ALL, "/mcp")
