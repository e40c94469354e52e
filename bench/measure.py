"""A case of load: the contenders take turns, round by round, under the same load."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from e2e.launch import StartError

from . import procfs, wrk
from .contenders import COMMAND, Place, Stage
from .listeners import hold_listeners
from .messages import (
    FLOW,
    Request,
    Work,
    WrongAnswer,
    check_flow,
    check_work,
    legacy,
    modern,
    open_sessions,
)
from .result import Progress, Result, Sample

# What a case may run into that concerns one contender and not the benchmark.
TROUBLE = (WrongAnswer, StartError, OSError)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One contender in a case: how it is asked, and how it was started."""

    name: str
    contender: str
    asked: str = "session-less"
    """`session-less`, `session` (one opened beforehand), `modern`, or `flow`: a whole client's life."""
    server: str = ""
    """Another server than the case's."""
    options: tuple[str, ...] = ()
    sessions: int = 1
    """How many sessions the calls take turns on, if they name one."""
    listeners: int = 0
    """How many idle `subscriptions/listen` streams are open meanwhile."""
    warm_up_seconds: int = 1
    own: bool = False
    """Whether it is a process of its own, not the one that other cases use, too."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """Some work, and who does it."""

    name: str
    title: str
    server: str
    work: Work
    entries: Sequence[Entry]
    connections: int = 16
    seconds: int = 2
    most_rounds: int | None = None
    """A bound on rounds, where they take long."""
    memory: bool = False
    """Whether to tell how much memory it takes."""

    def quick(self, names: Sequence[str], seconds: int) -> "Case":
        """The same for those entries alone, in less time."""
        return replace(self, entries=[e for e in self.entries if e.name in names], seconds=seconds)

    def narrowed(self, names: Sequence[str] | None, *, other: bool, seconds: int | None) -> "Case":
        """The same for those contenders, the pass-through and all that are the proxy.

        With `other` the proxy of another tree is measured beside this one, wherever this one is.
        """
        entries = [
            e
            for e in self.entries
            if not names or e.name in names or e.contender in {"bare", "proxy", COMMAND}
        ]
        if other:
            twins = [replace(e, name=f"other {e.name}", contender="other") for e in entries]
            entries += [twin for twin, e in zip(twins, entries, strict=True) if e.contender == "proxy"]
        return replace(self, entries=entries, seconds=seconds or self.seconds)

    def run(self, stage: Stage, rounds: int, say: Progress) -> Result:
        """Measure. What a contender gets wrong is noted in the result. Raises LoadError."""
        result = Result(name=self.name, title=self.title)
        with ExitStack() as stack:
            runners = []
            for entry in self.entries:
                say(f"{self.name}: {entry.name}, warm-up")
                try:
                    runners.append(stack.enter_context(_prepared(self, entry, stage)))
                except TROUBLE as error:
                    result.fail(entry.name, str(error))
            rounds = min(rounds, self.most_rounds or rounds)
            for number in range(rounds):
                for runner in runners:
                    name = runner.entry.name
                    if name not in result.failures:
                        say(f"{self.name}: {name}, round {number + 1} of {rounds}")
                        _take_turn(self, runner, result)
        return result


def in_rounds(
    result: Result, rounds: int, say: Progress, measure: Callable[[], None], *, subject: str
) -> Result:
    """Measure something so many times. What goes wrong is noted of its ``subject``, and ends that."""
    for number in range(rounds):
        say(f"{result.name}: round {number + 1} of {rounds}")
        try:
            measure()
        except TROUBLE as error:
            result.fail(subject, str(error))
            break
    return result


@dataclass(frozen=True, kw_only=True)
class _Runner:
    """An entry that is up, with what to send it and the memory it had before it was sent anything."""

    entry: Entry
    place: Place
    requests: Sequence[Request]
    resident: int


def requests_for(entry: Entry, work: Work, url: str) -> Sequence[Request]:
    """What an entry is sent; sessions are opened for it when it needs them. Raises WrongAnswer."""
    if entry.asked == "flow":
        return FLOW
    if entry.asked == "modern":
        return [modern(work)]
    if entry.asked == "session":
        return [legacy(work, session) for session in open_sessions(url, entry.sessions)]
    return [legacy(work)]


@contextmanager
def _prepared(case: Case, entry: Entry, stage: Stage) -> Iterator[_Runner]:
    place = stage.contender(
        entry.contender,
        entry.server or case.server,
        *entry.options,
        own=f"{case.name} {entry.name}" if entry.own else "",
    )
    pids = procfs.tree_of(place.pid)
    for pid in pids:
        procfs.forget_peak(pid)
    resident = sum(procfs.peak(pid) for pid in pids)
    with ExitStack() as stack:
        if entry.own:
            stack.callback(stage.stop, place)
        stack.enter_context(hold_listeners(place.url, entry.listeners))
        requests = requests_for(entry, case.work, place.url)
        runner = _Runner(entry=entry, place=place, requests=requests, resident=resident)
        _check(case, runner)
        _load(case, runner, entry.warm_up_seconds)
        # wrk leaves in the middle of calls. Whoever answers a new one is nearly done with those.
        _check(case, runner)
        yield runner


def _check(case: Case, runner: _Runner) -> None:
    if runner.entry.asked == "flow":
        check_flow(runner.place.url, runner.requests)
    else:
        check_work(runner.place.url, runner.requests[0], case.work)


def _load(case: Case, runner: _Runner, seconds: int) -> wrk.Load:
    flow = runner.entry.asked == "flow"
    return wrk.run(
        runner.place.url,
        runner.requests,
        connections=case.connections,
        seconds=seconds,
        script="flow" if flow else "requests",
        # In a flow each request depends on the answer before it, and wrk's scripts only see their own thread.
        threads=case.connections if flow else 1,
    )


def _take_turn(case: Case, runner: _Runner, result: Result) -> None:
    name = runner.entry.name
    try:
        load, sample = _measure(case, runner)
        _check(case, runner)
    except TROUBLE as error:
        result.fail(name, str(error))
        return
    if load.failed:
        result.fail(name, load.failed)
    else:
        result.add(name, sample)


def _measure(case: Case, runner: _Runner) -> tuple[wrk.Load, Sample]:
    pid = runner.place.pid
    cpu_seconds = procfs.own_cpu_seconds if runner.entry.contender == COMMAND else procfs.cpu_seconds
    before = cpu_seconds(pid)
    load = _load(case, runner, case.seconds)
    used = cpu_seconds(pid) - before
    if runner.entry.asked == "flow":
        sample = {"flows": load.flows / load.seconds, "flow": load.flow_seconds / max(load.flows, 1) * 1e3}
    else:
        sample = {"rate": load.per_second, "p50": load.p50_ms, "p99": load.p99_ms}
    if runner.entry.contender != "direct":
        done, quantity = (load.flows, "flow cpu") if runner.entry.asked == "flow" else (load.requests, "cpu")
        sample[quantity] = used / max(done, 1) * 1e6
        if case.memory:
            grown = sum(procfs.peak(each) for each in procfs.tree_of(pid)) - runner.resident
            sample["grown"] = grown / 1024 / 1024
    return load, sample
