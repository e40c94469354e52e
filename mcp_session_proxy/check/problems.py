"""Why a URL cannot be checked, and what to do about it. Pure."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from yarl import URL

from ..protocol import revisions
from ..settings.values import mask
from .audience import calls_itself, is_for_another, metadata_url, speaks_of_audience
from .observations import Entrance, Failure, ServerAnswer
from .text import clean

USUAL_PATH: Final = "/mcp"
# What a stream of the transport of 2024-11-05 begins with.
OLD_EVENT: Final = "endpoint"


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What is wrong (``text``), what to do (``hint``), and a stable word for programs."""

    key: str
    text: str
    hint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """What came of the first questions, when none was answered.

    ``first_event`` is what the first event of a plain GET is called, ``found`` a URL of the same origin
    where there is an MCP endpoint, ``has_credentials`` whether headers were given, ``entrance`` what else was
    learnt at the door.
    """

    url: str
    hello: ServerAnswer
    first_event: str | None = None
    found: str | None = None
    has_credentials: bool = False
    entrance: Entrance | None = None


def usual_url(url: str) -> str | None:
    """Where the endpoint would usually be, if the URL is another one."""
    usual = URL(url).with_path(USUAL_PATH, keep_query=True)
    return None if URL(url).path.rstrip("/") == USUAL_PATH else str(usual)


def diagnose(failed: Failed) -> Diagnosis:
    """Why nothing could be checked: the first explanation that fits, the surest ones first."""
    hello = failed.hello
    if hello.failure is not None:
        return _diagnose_silence(failed, hello.failure)
    if failed.first_event == OLD_EVENT:
        return Diagnosis(
            key="http-sse",
            text="This is the HTTP+SSE transport of 2024-11-05. The proxy speaks it to the server, and "
            "Streamable HTTP to its clients; but here no session could be opened over it.",
            hint=_elsewhere(failed)
            or "See the server's log. Once it does: mcp-session-proxy serve URL. Many servers offer "
            "Streamable HTTP, too, often at /mcp.",
        )
    if hello.status == 401 or (hello.status == 403 and failed.has_credentials and speaks_of_audience(hello)):
        return _diagnose_credentials(failed)
    if hello.status in (403, 421):
        return Diagnosis(
            key="forbidden",
            text=f"The server refuses: {hello}.",
            hint="It may want a credential (--header), or accept only certain names of its own in the URL.",
        )
    if hello.status in (404, 405, 406, 415) or hello.content_type == "text/html":
        return _diagnose_path(failed)
    if hello.error_source is not None:
        return Diagnosis(
            key="behind-proxy",
            text=f"The proxy answers, but has no session for us: {hello}",
            hint="Is its server running? The proxy's log and its /readyz say more.",
        )
    if hello.status is not None and hello.status >= 500:
        return Diagnosis(
            key="server-error",
            text=f"The server fails: {hello}.",
            hint="See its log, or that of the gateway in front of it. If it may just be starting, try again.",
        )
    if hello.takes_no_more_sessions:
        return Diagnosis(
            key="one-session",
            text=f"The server can have one session only, and somebody has it: {hello}.",
            hint="Restart the server, or end that client. With the proxy in front, all clients share the one "
            "session: mcp-session-proxy serve URL --sharing shared",
        )
    if hello.error is not None:
        return Diagnosis(
            key="refused",
            text=f"The server does not take the handshake: {hello}.",
            hint="See its documentation for what it wants.",
        )
    return Diagnosis(
        key="not-mcp",
        text=f"This is not an MCP endpoint: the answer to initialize is {hello}, without a JSON-RPC message.",
        hint=_elsewhere(failed) or "Is the URL that of the MCP endpoint? Its path is often /mcp.",
    )


def miss_tool(name: str, names: Sequence[str]) -> Diagnosis:
    """The tool of ``--call`` is not among the server's."""
    close = difflib.get_close_matches(name, names, n=1)
    known = ", ".join(clean(each, 40) for each in names[:20]) or "none"
    return Diagnosis(
        key="no-such-tool",
        text=f"The server has no tool {clean(name, 40)!r}.",
        hint=f"Do you mean {clean(close[0], 40)}?" if close else f"Its tools: {known}",
    )


def _diagnose_silence(failed: Failed, failure: Failure) -> Diagnosis:
    where = _origin(failed.url)
    said = failed.hello.explanation
    if failure is Failure.UNREACHABLE:
        return Diagnosis(
            key="unreachable",
            text=f"There is no connection to {where}: {said}.",
            hint="Is the server running, and are host and port right?",
        )
    if failure is Failure.SILENT:
        return Diagnosis(
            key="timeout",
            text=f"{where} takes the request and gives {said}.",
            hint="A slow server may need a longer --timeout; another kind of server never answers.",
        )
    if failure is Failure.BROKEN:
        return Diagnosis(
            key="broken",
            text=f"{where}: {said}.",
            hint="Does it speak HTTP? A server with TLS needs https in the URL.",
        )
    if failed.url.lower().startswith("https:"):
        hint = "Name your authority's certificate with --upstream-ca FILE; without TLS the URL begins http:."
    else:
        hint = f"Is {mask(failed.url)} what you mean?"
    return Diagnosis(key="unusable", text=said, hint=hint)


def _diagnose_credentials(failed: Failed) -> Diagnosis:
    entrance = failed.entrance or Entrance()
    resource = calls_itself(entrance)
    if not failed.has_credentials:
        named = metadata_url(failed.hello)
        whom = "" if resource is None else f" Tokens must be for {resource}."
        oauth = "" if named is None else f" Who gives it out is told at {mask(clean(named))}"
        return Diagnosis(
            key="unauthorized",
            text=f"The server wants a credential: {failed.hello}.",
            hint=f'Give it with --header "Authorization: Bearer TOKEN", or with --header @FILE.{whom}{oauth}',
        )
    text = f"The server does not take this credential: {failed.hello}."
    if is_for_another(entrance):
        text += f" The server calls itself {resource}, and the token's audience is another one."
    elif speaks_of_audience(failed.hello):
        text += " It says that the token's audience is another one."
    else:
        whom = "" if resource is None else f" The server calls itself {resource}."
        hint = f"Is it still valid, and is it for this server?{whom}"
        return Diagnosis(key="unauthorized", text=text, hint=hint)
    return Diagnosis(
        key="unauthorized" if failed.hello.status == 401 else "forbidden",
        text=text,
        hint="Behind a proxy, tokens are made for the proxy's public URL: tell the server that name, too.",
    )


def _diagnose_path(failed: Failed) -> Diagnosis:
    hello = failed.hello
    path = URL(failed.url).path
    what = "a web page" if hello.content_type == "text/html" else f"{hello}"
    return Diagnosis(
        key="not-mcp",
        text=f"There is no MCP endpoint at {path}: the answer to {revisions.INITIALIZE} is {what}"
        + (f" ({hello.status})." if hello.content_type == "text/html" else "."),
        hint=_elsewhere(failed) or "See the server's documentation for its path; it is often /mcp.",
    )


def _elsewhere(failed: Failed) -> str:
    return "" if failed.found is None else f"There is one at {mask(failed.found)}"


def _origin(url: str) -> str:
    return str(URL(url).origin())
