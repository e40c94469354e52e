"""What the proxy means to achieve, each as a ratio or a size, and whether it does. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .figures import Figure, ratios, summarise
from .result import (
    AT_EITHER,
    CLIENT_SESSION,
    ELSEWHERE,
    IN_MEMORY,
    ON_STORE,
    ONE_PROXY,
    TAKEN_OVER,
    UPSTREAM_SESSION,
    Result,
)

Results = Mapping[str, Result]


@dataclass(frozen=True, kw_only=True)
class Target:
    """A figure and its limit. `read` raises KeyError or ValueError when there is nothing to read it from."""

    what: str
    case: str
    read: Callable[[Result], Figure]
    at_most: float | None = None
    at_least: float | None = None
    unit: str = "x"

    @property
    def limit(self) -> str:
        """The limit in words."""
        sign, value = ("≤", self.at_most) if self.at_most is not None else ("≥", self.at_least)
        return f"{sign} {value:g} {self.unit}"

    def met(self, figure: Figure) -> bool:
        """Whether the median keeps the limit."""
        return (self.at_most is None or figure.median <= self.at_most) and (
            self.at_least is None or figure.median >= self.at_least
        )


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What came of a target; no figure when it was not measured."""

    target: Target
    figure: Figure | None

    @property
    def word(self) -> str:
        """`yes`, `no` or `not measured`."""
        if self.figure is None:
            return "not measured"
        return "yes" if self.target.met(self.figure) else "no"


def _ratio(quantity: str, entry: str, other: str) -> Callable[[Result], Figure]:
    return lambda result: result.ratio(entry, other, quantity)


def _size(quantity: str, entry: str) -> Callable[[Result], Figure]:
    return lambda result: result.figure(entry, quantity)


def added_p99(result: Result) -> Figure:
    """What the proxy adds to the p99 over direct, divided by what the pass-through adds, round by round.

    A round in which the pass-through added nothing says nothing. Raises KeyError, or ValueError when no round
    is left.
    """
    direct, bare, proxy = (result.values(name, "p99") for name in ("direct", "bare", "proxy"))
    pairs = [(p - d, b - d) for d, b, p in zip(direct, bare, proxy, strict=True) if b > d]
    return ratios([above for above, _ in pairs], [below for _, below in pairs])


def what_two_serve(result: Result) -> Figure:
    """Twice what one serves, divided by what a call costs more where half of them are sent on.

    Raises KeyError or ValueError when there is nothing to read it from.
    """
    return ratios([2 * cpu for cpu in result.values(ONE_PROXY, "cpu")], result.values(AT_EITHER, "cpu"))


def above_idle(result: Result) -> Figure:
    """What a store costs while nobody asks. Raises KeyError or ValueError like the others."""
    pairs = zip(result.values(ON_STORE, "idle"), result.values(IN_MEMORY, "idle"), strict=True)
    return summarise([max(0.0, on_store - in_memory) for on_store, in_memory in pairs])


TARGETS: Sequence[Target] = (
    Target(
        what="CPU of a session-less call, JSON, against bare",
        case="sessionless-json",
        read=_ratio("cpu", "proxy", "bare"),
        at_most=0.80,
    ),
    Target(
        what="Calls per second, session-less, stub, against bare",
        case="sessionless-json",
        read=_ratio("rate", "proxy", "bare"),
        at_least=1.2,
    ),
    Target(
        what="CPU of a session-less call, SSE, against bare",
        case="sessionless-sse",
        read=_ratio("cpu", "proxy", "bare"),
        at_most=0.85,
    ),
    Target(
        what="CPU of a modern call against bare's plain one",
        case="modern",
        read=_ratio("cpu", "proxy", "bare"),
        at_most=1.0,
    ),
    Target(
        what="CPU of a call on a client session against bare",
        case="client-session",
        read=_ratio("cpu", "proxy", "bare"),
        at_most=0.75,
    ),
    Target(
        what="Calls per second on FastMCP against bare",
        case="fastmcp",
        read=_ratio("rate", "proxy", "bare"),
        at_least=1.0,
    ),
    Target(
        what="Calls per second on FastMCP against its own stateless mode",
        case="fastmcp",
        read=_ratio("rate", "proxy", "stateless mode"),
        at_least=1.2,
    ),
    Target(
        what="Calls per second on FastMCP against create_proxy",
        case="fastmcp",
        read=_ratio("rate", "proxy", "create_proxy"),
        at_least=25,
    ),
    Target(
        what="p99 added to direct, stub, against what bare adds",
        case="sessionless-json",
        read=added_p99,
        at_most=1.0,
    ),
    Target(
        what="tools/list per second on FastMCP against direct",
        case="fastmcp-list",
        read=_ratio("rate", "proxy", "direct"),
        at_least=8,
    ),
    Target(
        what="The same, modern",
        case="fastmcp-list",
        read=_ratio("rate", "proxy, modern", "direct"),
        at_least=8,
    ),
    Target(
        what="The same on a client session",
        case="fastmcp-list",
        read=_ratio("rate", "proxy, client session", "direct"),
        at_least=8,
    ),
    Target(
        what="Time of the churning flow on FastMCP against direct",
        case="flow-fastmcp",
        read=_ratio("flow", "proxy", "direct"),
        at_most=0.5,
    ),
    Target(
        what="Time of the churning flow on npm fastmcp against direct",
        case="flow-npm",
        read=_ratio("flow", "proxy", "direct"),
        at_most=0.02,
    ),
    Target(
        what="CPU of a call with 10,000 client sessions against 1",
        case="many-sessions",
        read=_ratio("cpu", "10,000 sessions", "1 session"),
        at_most=1.05,
    ),
    Target(
        what="CPU of a call before a command against one over HTTP",
        case="stdio",
        read=_ratio("cpu", "proxy, command", "proxy"),
        at_most=0.6,
    ),
    Target(
        what="CPU of a call with --state-dir against one without",
        case="state-dir",
        read=_ratio("cpu", "proxy, --state-dir", "proxy"),
        at_most=1.01,
    ),
    Target(
        what="CPU of the churning flow with --state-dir against one without",
        case="flow-state-dir",
        read=_ratio("flow cpu", "proxy, --state-dir", "proxy"),
        at_most=1.05,
    ),
    Target(
        what="CPU of 100 progress events against bare",
        case="progress",
        read=_ratio("cpu", "proxy", "bare"),
        at_most=1.2,
    ),
    Target(
        what="Memory of an idle client session",
        case="memory",
        read=_size("each", CLIENT_SESSION),
        at_most=1.2,
        unit="KiB",
    ),
    Target(
        what="Memory of an upstream session with its GET stream",
        case="memory",
        read=_size("each", UPSTREAM_SESSION),
        at_most=12,
        unit="KiB",
    ),
    Target(
        what="CPU of a result of 1 MiB against bare",
        case="big",
        read=_ratio("cpu", "proxy", "bare"),
        at_most=1.0,
    ),
    Target(
        what="Memory at most while 16 results of 1 MiB are on their way, above idle",
        case="big",
        read=_size("grown", "proxy"),
        at_most=8,
        unit="MiB",
    ),
    Target(
        what="CPU of a call that another proxy answers, of both, against one of its own",
        case="several",
        read=_ratio("cpu", ELSEWHERE, ONE_PROXY),
        at_most=1.7,
    ),
    Target(
        what="What two cores can serve at two proxies, by CPU, against one core at one",
        case="several",
        read=what_two_serve,
        at_least=1.5,
    ),
    Target(
        what="From the first answer to the last of 1,000 callers whose proxy was killed",
        case="takeover",
        read=_size("takeover", TAKEN_OVER),
        at_most=2,
        unit="s",
    ),
    Target(
        what="CPU of being a member with 10,000 callers that say nothing, above the same without a store",
        case="idle-callers",
        read=above_idle,
        at_most=1,
        unit="% of a core",
    ),
    Target(what="Start to ready", case="start-up", read=_size("ready", "proxy"), at_most=0.4, unit="s"),
)


def judge(results: Results) -> Sequence[Verdict]:
    """Every target, in order."""
    verdicts = []
    for target in TARGETS:
        try:
            figure = target.read(results[target.case])
        except (KeyError, ValueError):
            figure = None
        verdicts.append(Verdict(target=target, figure=figure))
    return verdicts
