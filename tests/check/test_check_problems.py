from dataclasses import replace

import pytest
from check_samples import answered, refused, text

from mcp_session_proxy.check.observations import Failure, ServerAnswer
from mcp_session_proxy.check.problems import Failed, diagnose, miss_tool, usual_url

ROOT = "http://127.0.0.1:8000/"
MCP = "http://127.0.0.1:8000/mcp"
NOT_FOUND = text(404, "404: Not Found", "text/plain")
PAGE = ServerAnswer(status=200, content_type="text/html")


def failed(hello, url=ROOT, **more):
    return diagnose(Failed(url=url, hello=hello, **more))


def no_answer(failure, explanation):
    return ServerAnswer(failure=failure, explanation=explanation)


@pytest.mark.parametrize(
    ("hello", "key", "words", "advice"),
    [
        (
            no_answer(Failure.UNREACHABLE, "connection refused"),
            "unreachable",
            "connection refused",
            "running",
        ),
        (no_answer(Failure.SILENT, "no answer in 15 s"), "timeout", "no answer in 15 s", "--timeout"),
        (no_answer(Failure.BROKEN, "the connection ended"), "broken", "the connection ended", "https"),
        (text(403, "Invalid Host header"), "forbidden", "403 Invalid Host header", "names"),
        (NOT_FOUND, "not-mcp", "no MCP endpoint at /: the answer to initialize is 404 Not Found", "/mcp"),
        (text(405, "Method Not Allowed"), "not-mcp", "405 Method Not Allowed", "/mcp"),
        (PAGE, "not-mcp", "is a web page (200)", "/mcp"),
        (text(500, "boom"), "server-error", "500 boom", "log"),
        (
            refused(400, "Invalid Request: Server already initialized", -32600),
            "one-session",
            "somebody has it",
            "--sharing shared",
        ),
        (refused(400, "Unsupported client", -32600), "refused", "400 Unsupported client", "documentation"),
        (
            ServerAnswer(status=200, content_type="application/json"),
            "not-mcp",
            "without a JSON-RPC message",
            "/mcp",
        ),
    ],
)
def test_each_problem_says_what_is_wrong_and_what_to_do(hello, key, words, advice):
    """The text has what was seen, the hint what to do next."""
    problem = failed(hello)
    assert problem.key == key
    assert words in problem.text
    assert advice in problem.hint


def test_tls_trouble_names_the_option():
    """A private authority is the usual reason."""
    problem = failed(no_answer(Failure.UNUSABLE, "There is no TLS connection."), "https://example.com/mcp")
    assert problem.text == "There is no TLS connection."
    assert "--upstream-ca" in problem.hint


def test_the_old_transport_is_named():
    """HTTP+SSE begins a plain GET with an event called endpoint."""
    problem = failed(NOT_FOUND, first_event="endpoint")
    assert problem.key == "http-sse"
    assert "speaks it to the server" in problem.text
    assert "serve URL" in problem.hint


def test_an_ordinary_stream_is_not_the_old_transport():
    """Any other first event proves nothing."""
    assert failed(NOT_FOUND, first_event="message").key == "not-mcp"


@pytest.mark.parametrize("hello", [NOT_FOUND, PAGE, answered({"hello": 1}, session_id=None)])
@pytest.mark.parametrize("first_event", [None, "endpoint"])
def test_an_endpoint_that_was_found_is_the_hint(hello, first_event):
    """No guessing where the right URL is known."""
    hello = replace(hello, result=None)
    assert failed(hello, found=MCP, first_event=first_event).hint == f"There is one at {MCP}"


class TestCredentials:
    REFUSED = replace(
        refused(401, "invalid_token", 0),
        headers={"WWW-Authenticate": 'Bearer resource_metadata="https://a.example/.well-known/x?k=v"'},
    )

    def test_that_are_missing(self):
        """The hint shows how to give one, and where the server says who gives it out."""
        problem = failed(self.REFUSED)
        assert problem.text == "The server wants a credential: 401 invalid_token."
        assert '--header "Authorization: Bearer TOKEN"' in problem.hint
        assert problem.hint.endswith("https://a.example/.well-known/x?***")

    def test_that_are_refused(self):
        """Whoever gave one is not told to give one."""
        problem = failed(self.REFUSED, has_credentials=True)
        assert problem.text == "The server does not take this credential: 401 invalid_token."
        assert "--header" not in problem.hint


def test_a_proxy_without_its_server():
    """Our own errors are not taken for the server's."""
    error = replace(
        refused(502, "The MCP server cannot be reached.", -32603), error_source="mcp-session-proxy"
    )
    problem = failed(error)
    assert problem.key == "behind-proxy"
    assert "/readyz" in problem.hint


def test_a_tool_that_is_not_there():
    """The one that was meant, or all that there are."""
    assert miss_tool("incremant", ["increment", "echo"]).hint == "Do you mean increment?"
    assert miss_tool("x", ["increment", "echo"]).hint == "Its tools: increment, echo"


@pytest.mark.parametrize(
    ("url", "usual"),
    [
        (ROOT, MCP),
        ("http://127.0.0.1:8000", MCP),
        ("http://127.0.0.1:8000/sse?k=v", f"{MCP}?k=v"),
        (MCP, None),
        (f"{MCP}/", None),
    ],
)
def test_the_usual_place_to_look(url, usual):
    """At /mcp of the same origin, with the same query; nowhere if that is the URL."""
    assert usual_url(url) == usual
