"""Everything worth telling that happens in the proxy, as data.

The core reports each event to an ``Observer``; ``ops`` turns the same event into a log line
and into metrics. An event never holds a secret: principals and sessions appear as short opaque tags.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import ClassVar, TypeAlias

import msgspec


class Level(StrEnum):
    """How loud an event is in the log."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all events. ``name`` is the log line's event, ``level`` its loudness.

    ``docs/events.md`` is made of the docstrings, so they are written for operators. A last paragraph that
    begins with "What to do:" is told apart there. A kind without a name of its own is the named one above it,
    told at another level.
    """

    name: ClassVar[str]
    level: ClassVar[Level] = Level.INFO


# -- upstream sessions ---------------------------------------------------------------------------


class SessionOpened(Event, frozen=True, kw_only=True):
    """An upstream session finished its handshake. ``why``: demand, prewarm or reopen."""

    name = "session.opened"
    session: str
    principal: str
    why: str
    seconds: float


class SessionOpenFailed(Event, frozen=True, kw_only=True):
    """A handshake failed. ``error`` is a reason, ``detail`` a sentence, ``why`` as in ``session.opened``.

    A server that only refuses this caller (401) is told at debug: the request's own line says it.

    What to do: the server's own log should say more; after ``--breaker-threshold`` failures in a row it is
    left alone for a moment.
    """

    name = "session.open_failed"
    level = Level.WARNING
    principal: str
    why: str
    error: str
    detail: str


class InitializedRefused(Event, frozen=True, kw_only=True):
    """The server refused ``notifications/initialized`` after it had agreed to the handshake.

    The session is used all the same; whether the server serves it shows with its next request.

    What to do: nothing, as long as requests work.
    """

    name = "session.initialized_refused"
    session: str
    status: int | str


class SessionRefused(SessionOpenFailed, frozen=True, kw_only=True):
    """The server opens no session for this caller: no failure, and the request has a line of its own."""

    level = Level.DEBUG


class SessionClosed(Event, frozen=True, kw_only=True):
    """An upstream session left the pool. ``reason`` says why.

    idle and linger: it was not used for ``--idle-timeout`` or ``--linger``. evicted: another one needed its
    room. once: it had served its one request. lost: the server forgot it. lifetime and requests: it had
    served for long enough. reconnect and killed: an operator's hand. shutdown: the proxy ends. elsewhere:
    another process goes on with it.
    """

    name = "session.closed"
    session: str
    principal: str
    reason: str
    age_seconds: float
    requests: int


class SessionLost(Event, frozen=True, kw_only=True):
    """The server no longer knows an upstream session. ``how``: the HTTP status or ``error`` of its answer to
    a request, or stream, ping or check when it showed there, or refusals when all is refused that comes on it
    while another session can be opened.

    The session is opened again as soon as it is needed, but what the server kept in it is gone.

    What to do: nothing when the server was restarted. If it happens all the time, the server may expire
    sessions sooner than every ``--keepalive``, or there are several servers behind one address that do not
    know each other's sessions; name each of them with ``--replica`` then.
    """

    name = "session.lost"
    level = Level.WARNING
    session: str
    principal: str
    how: str


class ServerChanged(Event, frozen=True, kw_only=True):
    """A session that was opened anew met a server that says otherwise of itself than the one before: ``what``
    (name, version, protocol version, capabilities), and how it called itself ``before`` and ``after``.

    Most likely another version was deployed. Clients are told that every list has changed, but what they were
    told of the server's capabilities when they initialised holds until they initialise again.
    """

    name = "upstream.changed"
    session: str
    principal: str
    what: str
    before: str
    after: str


class SessionRestored(Event, frozen=True, kw_only=True):
    """What was stored of an upstream session was found at the start (``--state-dir``). ``outcome`` says what
    came of it.

    asleep: its caller is waited for, who goes on with it. no-server: it lives at a server that is none of
    ours now. no-room: there are more than ``--max-sessions`` allow. unreadable: it was sealed by another key,
    or written by a later version. unowned: it belonged to one client for life, of whom nothing is known.
    """

    name = "session.restored"
    level = Level.DEBUG
    session: str
    principal: str
    outcome: str


class SessionWoken(Event, frozen=True, kw_only=True):
    """The caller of a session from before a restart has come. ``outcome``: resumed, if its server knows it
    still, state included; or gone, and it is opened anew.
    """

    name = "session.woken"
    session: str
    principal: str
    outcome: str


class SessionReused(Event, frozen=True, kw_only=True):
    """A living upstream session was given to a client that asked for a new one."""

    name = "session.reused"
    level = Level.DEBUG
    session: str
    principal: str


# -- children ------------------------------------------------------------------------------------


class ChildStarted(Event, frozen=True, kw_only=True):
    """A child was started: with ``--stdio``, each upstream session has one of its own."""

    name = "child.started"
    pid: int
    program: str


class ChildEnded(Event, frozen=True, kw_only=True):
    """A child has ended, and nothing of its process group is left. ``how``: exited (by itself), left (when
    its standard input was closed), terminated (by SIGTERM, since it did not leave) or killed (by SIGKILL).

    ``status`` is its exit status, ``signal`` what ended it instead. ``last_words``: the last ten lines on its
    standard error, if it never answered.

    What to do: nothing for those that left. Those that are killed each time ignore the end of their input and
    SIGTERM; what they keep on disk may suffer.
    """

    name = "child.ended"
    pid: int
    how: str
    status: int | None
    signal: str | None
    seconds: float
    last_words: str | None = None


class ChildFailed(ChildEnded, frozen=True, kw_only=True):
    """A child has ended by itself before it answered anything."""

    level = Level.WARNING


class ServerSaid(Event, frozen=True, kw_only=True):
    """A child wrote a line to its standard error (``--stdio-stderr log``); ``untold`` counts those before it
    that were too many for one second. Values of variables that sound secret are left out of it.
    """

    name = "server.said"
    pid: int
    text: str
    untold: int | None = None


class ChildNoise(Event, frozen=True, kw_only=True):
    """A child wrote a line to its standard output that is no message, and was skipped; here is its beginning.

    What to do: nothing as long as it works. Servers should log to standard error.
    """

    name = "child.noise"
    level = Level.DEBUG
    pid: int
    text: str


class ChildrenSwept(Event, frozen=True, kw_only=True):
    """Children that a former proxy has left behind, as it was killed, are ended; ``count`` of them."""

    name = "children.swept"
    count: int


# -- client sessions -----------------------------------------------------------------------------


class ClientSessionCreated(Event, frozen=True, kw_only=True):
    """A client got, or brought, a session id. ``origin``: minted or adopted."""

    name = "client.created"
    client: str
    session: str
    principal: str
    origin: str
    client_name: str


class ClientSessionExpired(Event, frozen=True, kw_only=True):
    """A client session was forgotten. ``reason``: age (``--client-session-timeout``), room
    (``--max-client-sessions``), replaced (its id was given out anew), or unheard (its client left before it
    was told the id).
    """

    name = "client.expired"
    level = Level.DEBUG
    client: str
    principal: str
    reason: str


class DeleteAbsorbed(Event, frozen=True, kw_only=True):
    """A client's DELETE was answered and not forwarded."""

    name = "client.delete_absorbed"
    level = Level.DEBUG
    client: str
    principal: str


# -- requests ------------------------------------------------------------------------------------


class RequestFinished(Event, frozen=True, kw_only=True):
    """One JSON-RPC request of a client was answered.

    ``outcome``: ok, error (the server's JSON-RPC error), or the reason word of an error of ours; ``fault``
    says whose fault that is: client, upstream or proxy.
    ``sessionless``: it came without a session id. ``waited_seconds`` is the time it waited for an upstream
    session, None when it needed none or held one already; ``upstream_seconds`` the time that the server
    took, None when it was not asked. ``trace_id`` and ``sampled``, whether the trace is recorded: with
    ``--tracing`` only.
    """

    name = "request.finished"
    level = Level.DEBUG
    era: str
    method: str
    outcome: str
    sessionless: bool
    seconds: float
    waited_seconds: float | None
    upstream_seconds: float | None
    request_id: str
    principal: str
    session: str | None
    fault: str | None = None
    trace_id: str | None = None
    sampled: bool | None = None


class RequestFailed(Event, frozen=True, kw_only=True):
    """A request got an error of the proxy's own making, or was refused by the server.

    ``fault`` says whose it is: client, upstream or proxy. What is the client's (the server wants no such
    caller, the request is malformed or was cancelled) is told at info, once, and no alert counts it: callers
    without a token knock all day. ``trace_id`` is that of its trace, also when only the client traces.

    What to do: look up the reason below.
    """

    name = "request.failed"
    level = Level.WARNING
    method: str
    reason: str
    detail: str
    request_id: str
    principal: str
    fault: str | None = None
    trace_id: str | None = None


class RequestRefused(RequestFailed, frozen=True, kw_only=True):
    """A request failed by its caller's own fault."""

    level = Level.INFO


class Retried(Event, frozen=True, kw_only=True):
    """A request was sent again, safely. ``reason``: session-lost, refused, stream-resumed, read-repeated."""

    name = "request.retried"
    method: str
    reason: str
    session: str
    trace_id: str | None = None


class ReplayRefused(Event, frozen=True, kw_only=True):
    """A request may have been executed, so it was not sent again; the client was told.

    What to do: find out why the connection to the server broke. Whether the call took effect only the server
    knows.
    """

    name = "request.replay_refused"
    level = Level.WARNING
    method: str
    session: str
    trace_id: str | None = None


class Parked(Event, frozen=True, kw_only=True):
    """A call began or ceased to wait for its client's answer.

    ``outcome``: parked, resumed, expired, refused, too-many-parked, too-many-rounds.
    """

    name = "call.parked"
    level = Level.DEBUG
    outcome: str


class TaskBegun(Event, frozen=True, kw_only=True):
    """A client has got the handle of a task. ``kind``: server, for a task of the server's own, or call, for a
    call that goes on as one (``--task-after``).
    """

    name = "task.begun"
    level = Level.DEBUG
    kind: str
    session: str


class TaskEnded(Event, frozen=True, kw_only=True):
    """A task that a client has a handle of has ended.

    ``status``: completed, failed, cancelled, or expired, if it took longer than ``--task-ttl``.
    """

    name = "task.ended"
    level = Level.DEBUG
    kind: str
    status: str
    session: str
    seconds: float


# -- leases --------------------------------------------------------------------------------------


class LeaseFailed(Event, frozen=True, kw_only=True):
    """A request could not be given an upstream session. ``reason`` is the error's reason word.

    What to do: if it is acquire-timeout or too-many-waiters, there are too few sessions for the load: see
    ``--max-sessions``, ``--max-sessions-per-principal`` and ``--sharing``. Otherwise see the reason below.
    """

    name = "lease.failed"
    level = Level.WARNING
    principal: str
    reason: str
    waited_seconds: float


# -- the process ---------------------------------------------------------------------------------


class Started(Event, frozen=True, kw_only=True):
    """The listeners are open."""

    name = "proxy.started"
    listen: str
    admin: str
    upstream: str
    sharing: str


class UpstreamUp(Event, frozen=True, kw_only=True):
    """The server behind us answers."""

    name = "upstream.up"
    upstream: str


class UpstreamDown(Event, frozen=True, kw_only=True):
    """The server behind us takes no connections. While that is true of all servers, the proxy is not ready.

    What to do: start the server, or correct its address. The proxy goes on looking every half second.
    """

    name = "upstream.down"
    level = Level.WARNING
    upstream: str
    error: str


class EraFound(Event, frozen=True, kw_only=True):
    """The proxy has found out, or learnt anew, what the server needs with requests of revision 2026-07-28.

    ``modern``: it speaks that revision. ``stateful``: it gives session ids to clients of the earlier ones.
    ``modern_requests``: passed to it as they are, which is right for a server that speaks the revision and
    keeps no sessions; otherwise translated, so that clients find their state again.

    What to do: nothing, unless you know better; then say so with ``--upstream-era``.
    """

    name = "upstream.era"
    upstream: str
    modern: bool
    stateful: bool
    modern_requests: str


class TransportFound(Event, frozen=True, kw_only=True):
    """The server does not speak Streamable HTTP but HTTP+SSE of 2024-11-05, or the other way round again.

    ``transport``: which of the two it speaks. Sessions over HTTP+SSE end with their event streams.

    What to do: nothing; ``--upstream-transport`` says it beforehand, and saves a request.
    """

    name = "upstream.transport"
    upstream: str
    transport: str


class AnonymousCaller(Event, frozen=True, kw_only=True):
    """The first caller without credentials on a listener beyond loopback. Told once, loudly.

    What to do: unless all callers are one party, do as ``advice`` says.
    """

    name = "identity.anonymous_callers_share"
    level = Level.WARNING
    advice: str


class UncountedIdentity(Event, frozen=True, kw_only=True):
    """A request carries a header that sounds as if it said who is calling, and it does not count.

    What to do: if callers that differ only in it are different parties, name it: ``--credential-header``,
    beside those that count already. Told once for each name, and for twenty names at most.
    """

    name = "identity.header_does_not_count"
    level = Level.WARNING
    header: str


class TokenJudged(Event, frozen=True, kw_only=True):
    """It was found out of a token that nobody had seen whether what it claims counts. ``outcome``: accepted,
    refused, or not-believed.

    One that is accepted counts as that ``principal``, so a client whose token was refreshed goes on with its
    sessions. One that is refused counts as nobody but itself. One that is not believed counts by its bytes,
    because its issuer's tokens are not checked (``identity.tokens_not_checked``).
    """

    name = "identity.token_judged"
    level = Level.DEBUG
    principal: str
    outcome: str


class TokensNotChecked(Event, frozen=True, kw_only=True):
    """The server took a token with a signature that nobody can have made: it checks none of this ``issuer``.
    So nothing that such tokens claim is believed, and callers are told apart by their bytes, for good.

    A caller whose token is refreshed is a new one then, and does not find its sessions.

    What to do: have the server check its callers, or see that only a gateway that does can reach it, and name
    the user's header to the proxy (``--credential-header``).
    """

    name = "identity.tokens_not_checked"
    level = Level.WARNING
    issuer: str


class KeysMissing(Event, frozen=True, kw_only=True):
    """The keys with which ``--token-identity jwks`` checks tokens cannot be had. Told once, until they can.

    Tokens count by their bytes as long as it lasts, so a caller whose token is refreshed is a new one.

    What to do: see whether the proxy reaches ``--jwks-url`` or the metadata of ``--token-issuer``.
    """

    name = "identity.keys_unavailable"
    level = Level.WARNING
    problem: str


class OperatorActed(Event, frozen=True, kw_only=True):
    """Somebody changed something by the admin API. ``action``: drain, pause, resume, reconnect or kill."""

    name = "operator.acted"
    action: str
    session: str | None
    peer: str


class OperatorRefused(Event, frozen=True, kw_only=True):
    """Somebody tried to change something by the admin listener with a wrong token.

    What to do: find out who is at ``peer``.
    """

    name = "operator.refused"
    level = Level.WARNING
    peer: str


class Reloaded(Event, frozen=True, kw_only=True):
    """The configuration was read again on SIGHUP, and the TLS files with it.

    ``changed`` are the options that have new values now. ``needs_restart`` are those with new values that
    cannot change in a running proxy: restart it to apply them.
    """

    name = "config.reloaded"
    changed: str | None
    needs_restart: str | None


class ReloadFailed(Event, frozen=True, kw_only=True):
    """The configuration could not be read again on SIGHUP. All of the old one stays in force.

    What to do: correct the ``problem``; ``mcp-session-proxy config check`` tells whether you have. Then send
    SIGHUP again.
    """

    name = "config.reload_failed"
    level = Level.ERROR
    problem: str


class StateRestored(Event, frozen=True, kw_only=True):
    """The state of before was read (``--state-dir``): so many upstream sessions, which sleep until their
    callers come, and so many client sessions, whose ids go on. ``lost`` could not be gone on with.
    """

    name = "state.restored"
    sessions: int
    clients: int
    lost: int
    seconds: float


class StateSetAside(Event, frozen=True, kw_only=True):
    """The file in ``--state-dir`` was damaged. It was moved to ``file``; the proxy begins without sessions.

    What to do: see whether the disk is sound; then the file can be deleted.
    """

    name = "state.set_aside"
    level = Level.ERROR
    problem: str
    file: str


class StateMissing(Event, frozen=True, kw_only=True):
    """There is a key in ``--state-dir``, and nothing that it has sealed: ``file`` was removed, or emptied,
    since a proxy was there last. The proxy begins without sessions.

    What to do: nothing, if you have removed it. Else see whether the disk is sound, and who else has access.
    """

    name = "state.missing"
    level = Level.WARNING
    file: str


class StoreFailed(Event, frozen=True, kw_only=True):
    """State could not be written or read. Told once, until it can be again.

    Nothing is lost as long as the process lives: it goes on from memory, and writes what it has when that is
    possible again. What is not written by the end of the process is lost with it.

    What to do: see whether the disk is full, read-only or gone; with ``--store``, whether the store runs, can
    be reached from here, and has memory left.
    """

    name = "store.failed"
    level = Level.ERROR
    problem: str


class StoreRecovered(Event, frozen=True, kw_only=True):
    """State can be written again, and all that was missed has been."""

    name = "store.recovered"
    seconds: float


class StoreAsked(Event, frozen=True, kw_only=True):
    """The store did something. ``verb``: beat, claim, write, load, shards, release, members,
    bury, reserve or leave; of the event store, append, after or drop."""

    name = "store.asked"
    level = Level.DEBUG
    verb: str
    seconds: float


class MemberJoined(Event, frozen=True, kw_only=True):
    """Another process shares the store with this one from now on."""

    name = "cluster.member_joined"
    member: str
    pid: int


class MemberLeft(Event, frozen=True, kw_only=True):
    """Another process has left, or its lease has run out. Its callers are served by whoever they come to."""

    name = "cluster.member_left"
    member: str


class MemberBuried(Event, frozen=True, kw_only=True):
    """Another process on this machine has died: its callers need not wait for the end of its lease.

    What to do: see why it ended, in its own log and the system's; its callers are served here meanwhile.
    """

    name = "cluster.member_buried"
    level = Level.WARNING
    member: str


class MembersDiffer(Event, frozen=True, kw_only=True):
    """Another process on the same store was started with other settings that tell callers apart.

    What to do: give all of them the same ``--credential-header``, ``--credential-query``,
    ``--affinity-header``, ``--affinity-meta``, ``--anonymous`` and ``--identity-claims``. Until then a
    caller may be two callers.
    """

    name = "cluster.differs"
    level = Level.WARNING
    member: str
    version: str


class ShardTaken(Event, frozen=True, kw_only=True):
    """This process goes on with a caller whom another one has served, or itself before it was started.

    ``fence`` is how often the caller has changed hands, ``records`` what was stored of it.
    """

    name = "cluster.shard_taken"
    level = Level.DEBUG
    fence: int
    records: int


class ShardReleased(Event, frozen=True, kw_only=True):
    """This process has let go of a caller, whom another one can serve from now on."""

    name = "cluster.shard_released"
    level = Level.DEBUG


class ShardLost(Event, frozen=True, kw_only=True):
    """Another process serves a caller now whom this one believed to be its own. ``uses`` are the requests
    that were under way; they come to their end.

    What to do: nothing, once. Often, see whether the machine is overloaded, or the store loses writes.
    """

    name = "cluster.shard_lost"
    level = Level.WARNING
    uses: int


class ShardProvisional(Event, frozen=True, kw_only=True):
    """A caller is served though the store cannot be reached (``--store-outage serve``)."""

    name = "cluster.shard_provisional"
    level = Level.DEBUG


class LeaseLapsed(Event, frozen=True, kw_only=True):
    """This process has stood still, or the store has not heard of it, for longer than its lease. Of its
    callers, ``shards``, so many are ``lost`` to other processes.

    What to do: see whether the machine is overloaded or was suspended, and whether the store is reached.
    """

    name = "cluster.lease_lapsed"
    level = Level.WARNING
    shards: int
    lost: int


class Forwarded(Event, frozen=True, kw_only=True):
    """A request was sent to the process that serves its caller. ``outcome``: answered; misdirected, if the
    caller is served elsewhere; refused, if nobody listens there; unreachable; or broke, amid the request. How
    long it took is not told of a stream of what may come.
    """

    name = "cluster.forwarded"
    level = Level.DEBUG
    outcome: str
    seconds: float | None = None


class PeerNotTrusted(Event, frozen=True, kw_only=True):
    """Somebody has come to the listener for other members and was refused (403). ``problem``: unsigned;
    wrong-mac, with another key or changed on the way; too-old or too-new, by the clocks of the two; replayed;
    itself, if it has come back to where it was from; unknown-member; other-version; or wrong-body. ``member``
    is who it says it is. Told once a second for each ``problem``; ``times`` is how often since then.

    What to do: if it is one of yours, give all the same ``--cluster-key-file``, and set their clocks. If not,
    see who can reach ``--peer-listen``.
    """

    name = "cluster.peer_not_trusted"
    level = Level.WARNING
    problem: str
    member: str | None
    times: int


class TookOver(Event, frozen=True, kw_only=True):
    """With ``--replace``: this process has the sockets of process ``pid``, which drains and ends."""

    name = "proxy.took_over"
    pid: int


class Replaced(Event, frozen=True, kw_only=True):
    """Process ``pid`` has the listening sockets now (``--replace``). This one drains and ends."""

    name = "proxy.replaced"
    pid: int


class ReplacementFailed(Event, frozen=True, kw_only=True):
    """Process ``pid`` wanted the place of this one, but nothing came of it. This one goes on as before.

    What to do: see what the other process said when it ended.
    """

    name = "proxy.replacement_failed"
    level = Level.WARNING
    pid: int
    problem: str


class NotReplaceable(Event, frozen=True, kw_only=True):
    """The proxy serves, but no process can take its place with ``--replace``.

    What to do: see that the directory of ``--state-dir`` or RUNTIME_DIRECTORY is there and can be written.
    """

    name = "proxy.not_replaceable"
    level = Level.WARNING
    problem: str


class DrainStarted(Event, frozen=True, kw_only=True):
    """No longer ready; exchanges in flight are finished."""

    name = "proxy.draining"
    exchanges: int
    deadline_seconds: float


class Stopped(Event, frozen=True, kw_only=True):
    """Everything is closed. ``cut_off`` exchanges did not finish in time."""

    name = "proxy.stopped"
    cut_off: int


class Crashed(Event, frozen=True, kw_only=True):
    """A bug: an exception nobody expected. The client got a clean error.

    What to do: please report it, with this line and the lines before it.
    """

    name = "proxy.bug"
    level = Level.ERROR
    where: str
    error: str
    request_id: str | None = None
    trace_id: str | None = None


# Whoever wants to know takes one event, and must neither block nor raise.
Observer: TypeAlias = Callable[[Event], None]


def ignore(event: Event, /) -> None:
    """An observer that is not interested (the default in tests)."""
