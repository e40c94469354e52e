"""What the proxy says of itself when it starts: a few plain lines, pure text."""

from typing import Final

from .. import __version__
from ..protocol.revisions import ServedEras, UpstreamEra
from ..sessions.modes import Anonymous, OnStop, Sharing
from ..settings.config import Settings

_SHARING: Final = {
    Sharing.HANDOVER: "one client at a time; the next one gets the session back, state included",
    Sharing.ISOLATED: "a session belongs to one client for life and is closed after its DELETE",
    Sharing.SHARED: "all clients of one caller use one session",
    Sharing.FRESH: "a request that names no session gets one that was never used",
}
# What becomes of requests of the revision 2026-07-28.
_MODERN: Final = {
    UpstreamEra.AUTO: "translated onto sessions, unless the server speaks 2026-07-28 and keeps none",
    UpstreamEra.LEGACY: "translated onto sessions",
    UpstreamEra.MODERN: "passed to the server as they are",
}
_ANONYMOUS: Final = {
    Anonymous.POOL: "callers without any are one party and share sessions",
    Anonymous.ISOLATE: "callers without any share nothing",
}


def startup_lines(settings: Settings, listen_url: str, endpoint_url: str, admin_url: str | None) -> list[str]:
    """The lines for standard error, once the listeners are open.

    ``listen_url`` is the origin that is listened on, ``endpoint_url`` the MCP endpoint to give to
    clients, ``admin_url`` the admin listener's origin or None when it is off.
    """
    facts = [
        ("MCP endpoint", endpoint_url),
        ("listening on", listen_url),
        ("in front of", _server(settings)),
        ("sharing", f"{settings.sharing}: {_SHARING[settings.sharing]}"),
        ("callers", _callers(settings)),
        ("modern calls", _modern_calls(settings)),
        ("state", _state(settings)),
        ("admin", "off" if admin_url is None else f"{admin_url} (status page, /metrics /healthz /readyz)"),
        *(("WARNING", text) for text in _warnings(settings)),
    ]
    return [f"mcp-session-proxy {__version__}", *(f"  {name:<14}{text}" for name, text in facts)]


def _server(settings: Settings) -> str:
    if settings.command is None:
        return settings.upstream_shown
    return f"{settings.upstream_shown}: a process for each session, started when somebody needs it"


def _modern_calls(settings: Settings) -> str:
    if settings.serve_eras is ServedEras.LEGACY:
        return "refused, so that clients fall back to sessions (--serve-eras legacy)"
    text = f"{_MODERN[settings.upstream_era]} (--upstream-era {settings.upstream_era})"
    return text if settings.serve_eras is ServedEras.BOTH else f"{text}; others are refused"


def _state(settings: Settings) -> str:
    place = settings.state_directory
    if settings.store is not None:
        where = f"{settings.store} (cluster {settings.cluster})"
    elif place is not None:
        where = str(place)
    else:
        return "in memory; --state-dir keeps sessions over restarts"
    if settings.on_stop is OnStop.END:
        return f"in {where}; sessions are ended when the proxy stops (--on-stop end)"
    return f"in {where}: sessions outlive the proxy"


def _callers(settings: Settings) -> str:
    if not _tells_callers_apart(settings):
        return "cannot be told apart (no credential headers, no query): all are one party"
    sources = ["credential headers"] if settings.credential_header else []
    sources += ["query string"] if settings.credential_query else []
    return f"told apart by {' and '.join(sources)}; {_ANONYMOUS[settings.anonymous]}"


def _tells_callers_apart(settings: Settings) -> bool:
    return bool(settings.credential_header) or settings.credential_query


def _warnings(settings: Settings) -> list[str]:
    warnings = []
    if not settings.listen.is_loopback and settings.anonymous is Anonymous.POOL:
        warnings.append(
            "Other machines can connect, and callers without credentials share sessions and their state. "
            "If they are not one party, use --anonymous isolate."
        )
    if settings.admin_listen is not None and not settings.admin_listen.is_loopback:
        warnings.append("Other machines can read the admin pages, which ask nobody for a password.")
    return warnings
