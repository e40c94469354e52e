"""Every option of the proxy, once: its name, type, default, limits, and what there is to know about it.

The command line, the environment, the TOML file, the help and ``docs/configuration.md`` all come from
``Settings``. What is given on the command line wins over the environment, that over the file, that
over the defaults. Where they are given is in ``sources``, of which kind they are in ``kinds``, and what is
said of wrong ones in ``complaints``.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Final, Self

from pydantic import ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError
from yarl import URL

from ..downstream.paths import Passing
from ..events import Level
from ..protocol.inbound import HeartbeatFormat
from ..protocol.revisions import HttpTransport, ServedEras, UpstreamEra
from ..protocol.tokens import DEFAULT_CLAIMS
from ..sessions.credentials import DEFAULT_PATTERNS
from ..sessions.modes import Anonymous, OnStop, Sharing, TokenIdentity, UnknownSessionRule
from .cluster import ClusterSettings
from .complaints import describe
from .kinds import (
    LIVE,
    CacheScope,
    CacheTtls,
    Count,
    CountOrZero,
    Duration,
    DurationOrZero,
    EventsPlace,
    Group,
    Hosts,
    IssuerUrl,
    Listener,
    Networks,
    OptionalFolder,
    OptionalListener,
    OptionalPath,
    OptionalSize,
    Origins,
    PublicUrl,
    Size,
    Status,
    Text,
    Token,
    Upstream,
    Upstreams,
    Words,
    by_server,
)
from .lease import LeaseSettings
from .peers import PeerSettings
from .sources import ConfigError, flag_name, gather
from .stdio import StdioSettings
from .values import Address, mask

# The interpreter's own stack ends not far above.
_MAX_JSON_DEPTH: Final = 800

# Options that mean nothing without the other one.
_TLS_PAIRS: Final = (
    ("tls_cert", "tls_key"),
    ("tls_key", "tls_cert"),
    ("tls_client_ca", "tls_cert"),
    ("upstream_cert", "upstream_key"),
    ("upstream_key", "upstream_cert"),
)

# What --tracing needs, which only the extra otel installs.
_OPENTELEMETRY: Final = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")


class LogFormat(StrEnum):
    """How log lines are written."""

    AUTO = "auto"
    JSON = "json"
    CONSOLE = "console"


class Settings(ClusterSettings, LeaseSettings, PeerSettings, StdioSettings):
    """The whole configuration, checked. Durations are in seconds, sizes in bytes."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, arbitrary_types_allowed=True, defer_build=False
    )

    upstream: Annotated[Upstream, Group.LISTENING, Field(validate_default=True)] = None
    """The MCP endpoint of the stateful server behind the proxy. The proxy's own endpoint has the same
    path; every other path is passed through to the same origin. A server that is a command has none: see
    --stdio."""

    upstream_transport: Annotated[HttpTransport, Group.LISTENING] = HttpTransport.AUTO
    """How the server is spoken to. http: Streamable HTTP. sse: HTTP+SSE of 2024-11-05; its URLs most often
    end in /sse. auto: Streamable HTTP, unless the server refuses the first handshake with 400, 404 or 405
    and then, on a GET, names an endpoint within 10 s, as HTTP+SSE does. Clients speak Streamable HTTP to the
    proxy in any case."""

    replica: Annotated[Upstreams, Group.LISTENING] = ()
    """More servers like the first, with the same path. Each session lives on one of them; new ones go where
    the fewest are. On the command line they may simply follow the first URL."""

    config: Annotated[OptionalPath, Group.LISTENING] = None
    """A TOML file with any of these options; its keys are their names without the leading dashes. Flags
    and environment variables win over it."""

    listen: Annotated[Listener, Group.LISTENING] = Address("127.0.0.1", 8080)
    """Where clients connect. :8080 means every interface, port 0 any free port. Beyond loopback, make
    sure that callers can be told apart (see --anonymous)."""

    admin_listen: Annotated[OptionalListener, Group.LISTENING] = Address("127.0.0.1", 9090)
    """Where operators connect: the status page at /, /metrics, /healthz, /readyz, /sessions and the admin
    API; "off" turns it off. Nobody is asked for a password to read, so keep it on loopback or on a
    private network."""

    admin_token: Annotated[Token, Group.LISTENING, LIVE] = None
    """What operators must show to change anything (drain, pause, resume, reconnect, kill a session), as in
    "Authorization: Bearer TOKEN". Without it, nothing can be changed unless --admin-listen is on loopback.
    Better given as a variable or in the file: other users of the machine can read flags."""

    public_url: Annotated[PublicUrl, Group.LISTENING] = None
    """The URL under which clients reach the proxy, when that is not its listen address. OAuth clients
    need it: what names the server's own address in its OAuth and OpenID metadata, challenges and redirects
    is rewritten to it. A server that checks what its tokens are for must know this URL itself."""

    replace: Annotated[bool, Group.LISTENING] = False
    """Take the place of the proxy that listens on --listen, if one does: this one gets its listening sockets,
    so that no connection is refused, and the other one finishes what is in flight and ends. It goes on if
    this one does not start. Both run as the same user on one Linux machine, and meet in the directory of
    --state-dir; without that, in the one that the variable RUNTIME_DIRECTORY names."""

    announce: Annotated[OptionalPath, Group.LISTENING] = None
    """A file that is written, whole, once the proxy listens: JSON with the URLs "listen", "endpoint" and
    "admin". For supervisors and tests that use port 0."""

    # -- sessions --------------------------------------------------------------------------------

    sharing: Annotated[Sharing, Group.SESSIONS] = Sharing.HANDOVER
    """How upstream sessions are shared among one caller's clients; two callers never share. handover: one
    client at a time, and the next one gets the session back, state included. isolated: one client for
    life. shared: one session for all of a caller's clients. fresh: a never-used session for every request
    that names none."""

    unknown_session: Annotated[UnknownSessionRule, Group.SESSIONS, LIVE] = UnknownSessionRule.ADOPT
    """A session id that this proxy does not know (from before a restart, or a platform's own) is adopted as
    the name of a conversation, or answered 404. One that a proxy gave out says what its client can be asked;
    of a client that declared too much for that, it is always answered 404: adopted, that client could not be
    asked any more."""

    state_dir: Annotated[OptionalFolder, Group.SESSIONS] = None
    """A directory in which sessions outlive the proxy: after a restart, an upgrade or a crash, clients go on
    with their ids in the same upstream sessions, state included. It is made if need be, for this user alone,
    belongs to one proxy at a time, and must be on a disk of this machine. Without it, that of
    $STATE_DIRECTORY, which systemd sets (StateDirectory=); without either, sessions are in memory. With
    --store they are there instead. Credentials are never stored."""

    on_stop: Annotated[OnStop, Group.SESSIONS, LIVE] = OnStop.KEEP
    """What becomes of upstream sessions when the proxy stops. keep: they stay at the server for whoever goes
    on with the directory of --state-dir. end: each is ended, as always without such a directory; clients keep
    their ids."""

    delete_status: Annotated[Status, Group.SESSIONS, LIVE] = 405
    """The answer to a client's DELETE, which does not end the upstream session. 405 is MCP's way to say
    that clients need not; some insist on 200 or 204."""

    linger: Annotated[DurationOrZero, Group.SESSIONS, LIVE] = 30.0
    """With --sharing isolated: how long an upstream session outlives its client's DELETE, for clients
    that go on using an id that they have deleted."""

    reconnect_grace: Annotated[DurationOrZero, Group.SESSIONS, LIVE] = 5.0
    """A client whose GET stream has closed may come back for this long: with another stream or any request.
    One that stays silent counts as gone; its upstream session may then be handed over. With 0, a stream that
    closes is a goodbye."""

    detach_after: Annotated[DurationOrZero, Group.SESSIONS, LIVE] = 60.0
    """The same for a client that never opened a GET stream: it counts as gone after this much silence, or
    sooner, when it closes all its connections just after its last answer."""

    min_idle: Annotated[CountOrZero, Group.SESSIONS, LIVE] = 0
    """With --sharing fresh, and with --stdio in any mode: how many unused upstream sessions to keep open in
    advance for each kind of caller seen lately, so that requests need not wait for a handshake."""

    max_buffered_events: Annotated[CountOrZero, Group.SESSIONS, LIVE] = 256
    """Server messages kept for each client session, so that a client whose GET stream broke misses
    nothing when it opens the next one."""

    event_linger: Annotated[DurationOrZero, Group.SESSIONS, LIVE] = 30.0
    """How long the answer to a POST that became a stream is kept after its end, for a client that never got
    the last of it and comes back. What a client is known to have missed is kept as long as there is room."""

    events: Annotated[EventsPlace, Group.SESSIONS] = "store"
    """Where messages for clients are kept beside the memory, so that they miss nothing over restarts. store:
    with the sessions, if those are kept (--state-dir). memory: nowhere. MODULE:NAME: in an event store of
    your own, an object of Python's that is imported at the start."""

    event_ttl: Annotated[Duration, Group.SESSIONS, LIVE] = 600.0
    """How long a stream is in the event store after its last event, and its client can go on with it."""

    event_store_bytes: Annotated[Size, Group.SESSIONS, LIVE] = 1024 * 1024 * 1024
    """How much of one process lies in the event store, approximately. Over it, streams go that were written
    to longest ago."""

    # -- modern clients (MCP 2026-07-28) ---------------------------------------------------------

    serve_eras: Annotated[ServedEras, Group.MODERN, LIVE] = ServedEras.BOTH
    """Which clients are served. legacy: clients that would speak the revision 2026-07-28 are answered as by a
    server that has never heard of it, so that those that can fall back to an earlier one. That gives them log
    messages and list changes without their asking. modern: clients of earlier revisions are refused."""

    upstream_era: Annotated[UpstreamEra, Group.MODERN, LIVE] = UpstreamEra.AUTO
    """What becomes of requests of the revision 2026-07-28, which have no session. auto: they are translated
    onto the server's sessions, so that state is kept, unless the server speaks that revision itself and gives
    no sessions to anybody; then it gets them as they are. legacy: always translated. modern: always passed
    on, for a server that speaks the revision and whose sessions you do not need."""

    park_timeout: Annotated[Duration, Group.MODERN, LIVE] = 600.0
    """How long a call waits for its client to come back with the answers that the server asked for."""

    max_parked: Annotated[CountOrZero, Group.MODERN, LIVE] = 1000
    """Calls that may wait for their clients' answers; one more is answered 503."""

    max_parked_per_principal: Annotated[CountOrZero, Group.MODERN, LIVE] = 100
    """Waiting calls of one caller at most."""

    max_rounds: Annotated[Count, Group.MODERN, LIVE] = 32
    """How often the server may ask in the course of one call."""

    max_tasks: Annotated[CountOrZero, Group.MODERN, LIVE] = 1000
    """Tasks that modern clients may have handles of, running and kept; one more is answered 503. 0: none, and
    a server's tasks are calls like others."""

    max_tasks_per_principal: Annotated[CountOrZero, Group.MODERN, LIVE] = 100
    """Tasks of one caller at most."""

    task_ttl: Annotated[Duration, Group.MODERN, LIVE] = 3600.0
    """How long a task may run, and its result is kept from its beginning on. A server that keeps its own for
    less says so to the client; a longer time of its is cut."""

    task_after: Annotated[DurationOrZero, Group.MODERN, LIVE] = 0.0
    """A call of a client that knows tasks (the extension io.modelcontextprotocol/tasks) and takes longer than
    this goes on as one: for platforms that end requests after 30 or 60 seconds. 0 means never."""

    cache_ttl: Annotated[CacheTtls, Group.MODERN, LIVE] = ()
    """How long modern clients may keep the results of a method, such as tools/list=60000. Without it they
    are told to ask again each time. The proxy itself keeps the lists of a server that promises to tell of
    changes (listChanged) until it does: for a minute at most, or five once it has kept its promise. What
    clients keep comes on top of that."""

    cache_scope: Annotated[CacheScope, Group.MODERN, LIVE] = "private"
    """Who may keep them: each caller for itself, or anyone. Choose public only where every caller gets the
    same lists and resources."""

    # -- identity --------------------------------------------------------------------------------

    anonymous: Annotated[Anonymous, Group.IDENTITY] = Anonymous.POOL
    """Callers that show no credential (a query string and X-MCP- settings are none). pool: they are one
    party and share, which is right for a sidecar. isolate: a request of theirs that names no conversation
    gets a session of its own."""

    credential_header: Annotated[Words, Group.IDENTITY] = DEFAULT_PATTERNS
    """Request headers that tell callers apart; * matches anything. Giving any replaces the defaults. What a
    * takes never includes headers that differ in each request of one caller (User-Agent, Idempotency-Key,
    signatures); name those in full if they are to count. Empty values, a bare "Bearer" and the words null
    and undefined count as none; of a DPoP proof, its key counts. Each request reaches the server with all of
    its headers; what the proxy sends by itself (pings, the GET stream, DELETE) carries these only."""

    credential_query: Annotated[bool, Group.IDENTITY] = True
    """Whether the query string of the URL tells callers apart, too. It separates; only a header makes a
    caller known to --anonymous isolate."""

    token_identity: Annotated[TokenIdentity, Group.IDENTITY] = by_server(
        url=TokenIdentity.SERVER, command=TokenIdentity.BYTES
    )
    """When a caller stays itself although its token changes. A bearer token that is a JWT says whom it speaks
    for (--identity-claims); that is believed of one that was accepted. server: the server took it in a
    handshake (one for each new token), and it is known to refuse a wrong signature. Where it takes one, its
    callers are told apart by bytes, and an event says so. jwks: the proxy checked it itself (--jwks-url or
    --token-issuer; needs the extra jwt). bytes: never, so each new token is a new caller; the default
    with --stdio, because a command takes everybody."""

    identity_claims: Annotated[Words, Group.IDENTITY] = DEFAULT_CLAIMS
    """The claims by which accepted tokens count as the same caller's. The issuer (iss) always counts, and a
    token has to name somebody by sub, client_id or azp. Name more (scope) if the server shows callers other
    lists by them. Giving any replaces the defaults."""

    jwks_url: Annotated[IssuerUrl, Group.IDENTITY] = None
    """Where the keys are with which --token-identity jwks checks tokens (a JWK set); without it, the metadata
    of --token-issuer say so. They are fetched when needed, and again for an unknown key, once a minute at
    most. Asymmetric algorithms only."""

    token_issuer: Annotated[IssuerUrl, Group.IDENTITY] = None
    """Whose tokens --token-identity jwks accepts, exactly as they say it themselves (iss)."""

    token_audience: Annotated[Text, Group.IDENTITY] = None
    """For whom they must be (aud); without it, for anybody."""

    affinity_header: Annotated[Words, Group.IDENTITY] = ()
    """Request headers that name the conversation a request belongs to: a caller's requests with the same
    value get the same upstream session."""

    affinity_meta: Annotated[Words, Group.IDENTITY] = ("openai/session", "sessionID")
    """Keys of the request's _meta that do the same. Giving any replaces the defaults."""

    # -- limits ----------------------------------------------------------------------------------

    max_sessions: Annotated[Count, Group.LIMITS, LIVE] = by_server(url=1000, command=32)
    """Upstream sessions at most; with --stdio, where each is a process, the default is 32. At the limit, an
    idle one of the caller that has the most makes room. A tenth of them, four at most, is kept to try callers
    in whom the server has not accepted yet."""

    max_sessions_per_principal: Annotated[Count, Group.LIMITS, LIVE] = 100
    """Upstream sessions of one caller at most."""

    max_client_sessions: Annotated[Count, Group.LIMITS, LIVE] = 100_000
    """Client sessions remembered at most. They cost little; the least recently used is forgotten first."""

    max_client_sessions_per_principal: Annotated[Count, Group.LIMITS, LIVE] = 10_000
    """Client sessions of one caller remembered at most."""

    max_exchanges: Annotated[Count, Group.LIMITS, LIVE] = 5000
    """Requests under way at most, also those whose clients have left; one more is answered 503. A quarter is
    kept for callers that the server has accepted."""

    max_exchanges_per_principal: Annotated[Count, Group.LIMITS, LIVE] = 2500
    """Requests of one caller under way at most, and never more than three quarters of --max-exchanges."""

    max_waiters: Annotated[CountOrZero, Group.LIMITS, LIVE] = 1000
    """Requests that may wait for an upstream session; one more is answered 503 at once."""

    max_requests_per_session: Annotated[CountOrZero, Group.LIMITS, LIVE] = 0
    """An upstream session that has served this many requests is closed when nobody holds it; 0 means never.
    Its state goes with it."""

    open_concurrency: Annotated[Count, Group.LIMITS, LIVE] = 1
    """Upstream sessions that may be opened at the same time for one kind of caller. A session that
    becomes free meanwhile beats a new one."""

    memory_budget: Annotated[OptionalSize, Group.LIMITS, LIVE] = None
    """Memory for what callers and servers send: heads, bodies, answers on their way, kept events and lists,
    client profiles. When a share of it is used up, whoever comes next is answered 503 and those before go on.
    By default a quarter of what the process, its container, its service or the machine may have, but at least
    128 MiB. It counts payload; the process needs some three times as much at its worst."""

    max_inflight_bytes: Annotated[OptionalSize, Group.LIMITS, LIVE] = None
    """How much of that the bodies of all requests together may take until they are answered; by default a
    quarter of it."""

    max_connections: Annotated[Count, Group.LIMITS, LIVE] = 10_000
    """Connections of clients at the same time; every request and every open stream has one. One more takes
    the place of one on which nothing is under way, or is closed at once if there is none."""

    max_body_bytes: Annotated[Size, Group.LIMITS, LIVE] = 4 * 1024 * 1024
    """The largest request body at the MCP endpoint; a larger one is answered 413."""

    max_header_bytes: Annotated[Size, Group.LIMITS, LIVE] = 16 * 1024
    """The longest request line or header field, in which tokens may be large; more is answered 431. All
    fields together may have four times as much. A new value is for new connections."""

    max_json_depth: Annotated[Count, Field(le=_MAX_JSON_DEPTH), Group.LIMITS, LIVE] = 512
    """How many arrays and objects may be nested within one another. A deeper request is answered 400; a
    deeper answer of the server counts as one that cannot be read (502), other deeper messages are dropped."""

    # -- timeouts --------------------------------------------------------------------------------

    acquire_timeout: Annotated[Duration, Group.TIMEOUTS, LIVE] = 10.0
    """How long a request waits for an upstream session to become free, or for a server that takes no
    connections, before it is answered 503. A handshake that is under way has its own time."""

    handshake_timeout: Annotated[Duration, Group.TIMEOUTS, LIVE] = by_server(url=60.0, command=30.0)
    """How long the server may take to open a session: servers that start when somebody comes may need a
    minute. Whoever waits for that waits as long, whatever --acquire-timeout says. With --stdio the default is
    30 s, for children after the first one; for that, see --stdio-start-timeout."""

    breaker_threshold: Annotated[Count, Group.LIMITS, LIVE] = 5
    """Handshakes with a server that fail in a row before it is left alone for a moment."""

    breaker_reset: Annotated[Duration, Group.TIMEOUTS, LIVE] = 5.0
    """How long a server that kept failing handshakes is left alone before one is tried again."""

    request_timeout: Annotated[Duration, Group.TIMEOUTS, LIVE] = 600.0
    """How long the server may be silent about one request before it is answered 504. Progress, log messages
    and comments on a stream end the silence; streams that the server opens and ends without any do not. A
    server that says nothing but comments has ten times as long."""

    connect_timeout: Annotated[Duration, Group.TIMEOUTS, LIVE] = 10.0
    """How long a connection to the server may take to come about."""

    idle_timeout: Annotated[Duration, Group.TIMEOUTS, LIVE] = 1800.0
    """An upstream session that nobody has used for this long is closed."""

    max_lifetime: Annotated[DurationOrZero, Group.TIMEOUTS, LIVE] = 0.0
    """An upstream session that is this old (or up to a tenth less, so that not all end at once) is closed
    when nobody holds it; 0 means never. Its state goes with it."""

    check_after: Annotated[DurationOrZero, Group.TIMEOUTS, LIVE] = 30.0
    """An upstream session that was quiet for this long is pinged before the next request goes out on it; 0
    means never."""

    client_session_timeout: Annotated[Duration, Group.TIMEOUTS, LIVE] = 86400.0
    """A client session that has not been used for this long is forgotten."""

    keepalive: Annotated[Duration, Group.TIMEOUTS, LIVE] = 120.0
    """How often an unused upstream session is pinged, so that the server does not expire it. The default
    satisfies every known server."""

    heartbeat: Annotated[Duration, Group.TIMEOUTS, LIVE] = 15.0
    """How often a silent stream to a client carries a comment, so that nothing in between takes it for
    dead. An answer that takes longer becomes such a stream, but see --heartbeat-format."""

    heartbeat_format: Annotated[HeartbeatFormat, Group.TIMEOUTS, LIVE] = HeartbeatFormat.AUTO
    """Some clients say that they take event streams, and read only JSON. auto: a client whose Accept names
    JSON first, or with the higher q, and that has opened no GET stream, is answered in JSON if that comes
    within --json-patience. json: every client that takes JSON is. sse: none; an answer becomes a stream
    after --heartbeat. A message before the answer makes a stream of it in any case."""

    json_patience: Annotated[DurationOrZero, Group.TIMEOUTS, LIVE] = 60.0
    """How long a silent answer may stay silent, for clients that are to get JSON. Load balancers and
    proxies in front often cut what is silent for a minute; choose less than they do."""

    connection_idle_timeout: Annotated[Duration, Group.TIMEOUTS] = 75.0
    """A client's connection without a request is closed after this long, also one whose next request
    arrives too slowly. It should be longer than that of a load balancer in front of the proxy."""

    drain_timeout: Annotated[DurationOrZero, Group.TIMEOUTS, LIVE] = 30.0
    """How long requests in flight may take to finish after SIGTERM. A second SIGTERM stops at once."""

    # -- safety ----------------------------------------------------------------------------------

    allowed_origin: Annotated[Origins, Group.SAFETY, LIVE] = ()
    """Web pages that may call the proxy from a browser, beside those of its own host."""

    allowed_host: Annotated[Hosts, Group.SAFETY, LIVE] = ()
    """Host names under which the proxy may be called. Without any, a listener on loopback answers to
    loopback names only, and any other listener to every name."""

    passthrough: Annotated[Passing, Group.SAFETY, LIVE] = Passing.ALL
    """Which of the server's other paths may be reached. all: every one. oauth: what clients need to sign in
    (well-known documents, authorize, token, register and their like, below /oauth or /auth, too) and health
    pages; advised where strangers can connect. none: only the MCP endpoint."""

    trusted_proxy: Annotated[Networks, Group.SAFETY, LIVE] = ()
    """Addresses of proxies in front of this one that are believed: what they say in X-Forwarded-For,
    X-Forwarded-Proto, Forwarded, X-Real-IP and their like reaches the server. From anybody else it becomes
    what the proxy knows itself, or goes."""

    # -- TLS -------------------------------------------------------------------------------------

    tls_cert: Annotated[OptionalPath, Group.TLS, LIVE] = None
    """The proxy's certificate, in PEM form, with the chain up to its authority. With it clients connect
    by https; without it by http."""

    tls_key: Annotated[OptionalPath, Group.TLS, LIVE] = None
    """The private key of --tls-cert, in PEM form, without a passphrase."""

    tls_client_ca: Annotated[OptionalPath, Group.TLS, LIVE] = None
    """The certificates of the authorities that clients' certificates must come from. With it no client
    can connect without such a certificate. It admits callers but does not tell them apart."""

    upstream_ca: Annotated[OptionalPath, Group.TLS] = None
    """The certificates of the authorities that the server's certificate may come from, instead of the
    system's."""

    upstream_cert: Annotated[OptionalPath, Group.TLS, LIVE] = None
    """The certificate to show to a server that asks for one, in PEM form. It speaks for every caller."""

    upstream_key: Annotated[OptionalPath, Group.TLS, LIVE] = None
    """The private key of --upstream-cert, in PEM form, without a passphrase."""

    # -- logging ---------------------------------------------------------------------------------

    log_level: Annotated[Level, Group.LOGGING, LIVE] = Level.INFO
    """The least important lines to log; debug logs every request."""

    log_format: Annotated[LogFormat, Group.LOGGING] = LogFormat.AUTO
    """auto writes for people on a terminal, and JSON elsewhere."""

    tracing: Annotated[bool, Group.LOGGING] = False
    """Send a trace of every request to an OpenTelemetry collector, by OTLP over HTTP. Needs the extra otel
    (pip install 'mcp-session-proxy[otel]'). The standard OTEL_... variables say where to, under which name
    and how many."""

    @property
    def urls(self) -> tuple[str, ...]:
        """The servers' URLs; none for one that is a command."""
        return () if self.upstream is None else (self.upstream, *self.replica)

    @property
    def endpoint_path(self) -> str:
        """The path of the MCP endpoint: the server's own, if it has one."""
        return self.path if self.upstream is None else URL(self.upstream).raw_path

    @property
    def state_directory(self) -> Path | None:
        """Where state is kept, by the option or by the service manager."""
        if self.state_dir is not None:
            return self.state_dir
        # Several directories are parted by colons (systemd.exec, "StateDirectory=").
        given = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
        return Path(given) if given else None

    @property
    def upstream_shown(self) -> str:
        """The servers for logs and people, without what may be secret: queries of URLs, a command's words."""
        if self.command is not None:
            return f"stdio {self.command.name}"
        return ", ".join(map(mask, self.urls))

    @field_validator("upstream")
    @classmethod
    def _needs_a_server(cls, upstream: str | None, info: ValidationInfo) -> str | None:
        # A command that is wrong is not in there, and was complained of.
        if upstream is None and "command" in info.data and info.data["command"] is None:
            raise PydanticCustomError("missing", "missing")
        return upstream

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        conflicts = [*self._conflicts(), *self._tls_conflicts()]
        if conflicts:
            # pydantic reports a check of the whole model without a field, so the error carries them along.
            raise PydanticCustomError("conflict", "conflict", {"conflicts": conflicts})
        return self

    def _conflicts(self) -> Iterator[tuple[str, str]]:
        """Options that do not go with others, and why."""
        path = self.endpoint_path
        if any(URL(url).raw_path != path for url in self.replica):
            yield "replica", f"must have the path of the first server, {path}"
        yield from self.stdio_conflicts()
        taken = {"listen": self.listen, "admin_listen": self.admin_listen}
        yield from self.peer_conflicts(certified=self.tls_cert is not None, taken=taken)
        yield from self.cluster_conflicts()
        if self.command is not None:
            yield from self._conflicts_with_a_command()
        if self.token_identity is TokenIdentity.JWKS:
            if self.jwks_url is None and self.token_issuer is None:
                yield "token_identity", "jwks needs --jwks-url or --token-issuer"
            if find_spec("jwt") is None or find_spec("cryptography") is None:
                yield "token_identity", "jwks needs the extra jwt: pip install 'mcp-session-proxy[jwt]'"
        if self.upstream_transport is HttpTransport.SSE and self.upstream_era is UpstreamEra.MODERN:
            yield "upstream_era", "needs a server that speaks Streamable HTTP (--upstream-transport)"
        yield from self._conflicts_of_state()
        if self.tracing and not _has_opentelemetry():
            yield "tracing", "needs the extra otel: pip install 'mcp-session-proxy[otel]'"
        if self.min_idle > self.max_sessions_per_principal:
            limit = self.max_sessions_per_principal
            yield "min_idle", f"must not be over --max-sessions-per-principal, which is {limit}"
        if self.admin_listen is not None and self.listen.collides(self.admin_listen):
            blamed, other = "admin_listen", "--listen"
            if blamed not in self.model_fields_set:
                blamed, other = "listen", "--admin-listen"
            yield blamed, f"must differ from {other}"

    def _conflicts_of_state(self) -> Iterator[tuple[str, str]]:
        """Options that are about what outlives this process."""
        if ":" in self.events and self.state_directory is None and self.store is None:
            yield (
                "events",
                "needs --state-dir or --store: events outlive the process with the sessions that they are of",
            )
        if self.replace and sys.platform != "linux":
            yield "replace", "works on Linux only"

    def _conflicts_with_a_command(self) -> Iterator[tuple[str, str]]:
        """Options that mean nothing for a server without a URL."""
        if self.upstream is not None:
            yield "upstream", "must not be given together with a command (--stdio): the server is one of both"
        elif self.replica:
            yield "replica", "must be left out for a command (--stdio): each session has a child of its own"
        if self.upstream_transport is not HttpTransport.AUTO:
            yield "upstream_transport", "needs a server with a URL"
        if self.upstream_era is UpstreamEra.MODERN:
            yield "upstream_era", "needs a server with a URL: what a command is told belongs to a session"
        if self.token_identity is TokenIdentity.SERVER:
            yield "token_identity", "needs a server with a URL: a command takes everybody"

    def _tls_conflicts(self) -> Iterator[tuple[str, str]]:
        """Every file of TLS comes with those that it means nothing without."""
        for field, needed in _TLS_PAIRS:
            if getattr(self, field) is not None and getattr(self, needed) is None:
                yield field, f"needs {flag_name(needed)}"
        plain = not any(url.startswith("https:") for url in self.urls)
        for field in ("upstream_ca", "upstream_cert"):
            if plain and getattr(self, field) is not None:
                yield field, "needs a server with an https URL"


def load(flags: Mapping[str, Any]) -> Settings:
    """The configuration from the flags given, the environment, and the file that one of them names.

    ``flags`` holds raw values by field name, and only what was given.

    Raises:
        ConfigError: an option has a wrong value, or the file cannot be read or has an unknown key.
    """
    try:
        return Settings(**gather(flags, Settings.model_fields.keys()))
    except ValidationError as error:
        raise ConfigError("\n".join(describe(error, flags))) from None


def _has_opentelemetry() -> bool:
    """Whether the packages of the extra ``otel`` are there."""
    try:
        return all(find_spec(name) for name in _OPENTELEMETRY)
    except ModuleNotFoundError:
        return False
