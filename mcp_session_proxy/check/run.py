"""The whole check: connect, ask, judge, print."""

import asyncio
import io
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

from rich.console import Console

from ..settings.values import mask, show_duration
from ..upstream.http.cookies import SessionCookies
from .observations import Observations, ServerAnswer
from .old_transport import Look
from .plan import Plan, Target
from .plays import NoSuchTool
from .probes import ask_discover, greet, look_at_door, observe, wait_idle
from .problems import OLD_EVENT, Diagnosis, Failed, diagnose, miss_tool, usual_url
from .report import Report, judge_side, to_json, write_report
from .table import print_report
from .tokens import try_tokens
from .wire import Wire


def run(plan: Plan) -> int:
    """Check, print the outcome on standard output, and give the exit status."""
    try:
        report = asyncio.run(_check(plan))
    except KeyboardInterrupt:
        return 130
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Servers write what they like; a terminal that cannot show all of it shows the rest.
        sys.stdout.reconfigure(errors="replace")
    if plan.as_json:
        sys.stdout.write(to_json(report).decode() + "\n")
    else:
        print_report(Console(highlight=False), report)
    return int(report.status)


async def _check(plan: Plan) -> Report:
    targets = [plan.direct] if plan.through is None else [plan.direct, plan.through]
    with _waiting(plan):
        found = [await _look_at(plan, target) for target in targets]
        found = await asyncio.gather(*(_wait(plan, *pair) for pair in zip(targets, found, strict=True)))
    sides = [judge_side(each, target.shown) for target, each in zip(targets, found, strict=True)]
    return write_report(
        sides[0],
        sides[1] if len(sides) > 1 else None,
        has_credentials=bool(plan.headers),
        upstream_flags=plan.upstream_flags,
    )


async def _look_at(plan: Plan, target: Target) -> Observations | Look | Diagnosis:
    async with _connect(plan, target, target.url) as wire:
        greeting = await greet(wire)
        hello = greeting.answer
        if hello.failure is not None:
            return diagnose(Failed(url=target.url, hello=hello))
        discover = await ask_discover(wire)
        if not hello.is_answered and not discover.is_answered:
            return await _explain(plan, target, hello, wire)
        try:
            seen = await observe(wire, greeting, discover, target.shown, plan.call)
        except NoSuchTool as error:
            return miss_tool(error.name, error.names)
        return replace(seen, tokens=await try_tokens(wire, greeting.version, seen.reads, plan.tokens))


async def _explain(plan: Plan, target: Target, hello: ServerAnswer, wire: Wire) -> Look | Diagnosis:
    """Look around for why the server does not answer as an MCP server does; it may speak HTTP+SSE only."""
    found = None
    usual = usual_url(target.url)
    if usual is not None and hello.status not in (401, 403):
        async with _connect(plan, target, usual) as elsewhere:
            # A server that wants a credential there is one, too.
            there = (await greet(elsewhere)).answer
            found = usual if there.is_answered or there.status == 401 else None
    first_event = await wire.first_event_type()
    if first_event == OLD_EVENT and found is None:
        seen = await wire.look_at_old_transport()
        if seen is not None:
            return seen
    return diagnose(
        Failed(
            url=target.url,
            hello=hello,
            first_event=first_event,
            found=None if found is None else mask(found),
            has_credentials=bool(plan.headers),
            entrance=await look_at_door(wire, hello),
        )
    )


async def _wait(
    plan: Plan, target: Target, found: Observations | Look | Diagnosis
) -> Observations | Look | Diagnosis:
    if not isinstance(found, Observations) or plan.idle_seconds is None or not found.hello.is_answered:
        return found
    async with _connect(plan, target, target.url) as wire:
        return replace(found, idle=await wait_idle(wire, plan.idle_seconds, found.asked_version))


def _connect(plan: Plan, target: Target, url: str) -> Wire:
    return Wire(
        url,
        cookies=SessionCookies(),
        headers=plan.headers,
        secrets=plan.secrets,
        tls=target.context,
        timeout_seconds=plan.timeout_seconds,
    )


def _waiting(plan: Plan) -> AbstractContextManager[object]:
    """Something that moves while people wait."""
    console = Console(stderr=True)
    if not console.is_terminal:
        return nullcontext()
    idle = "" if plan.idle_seconds is None else f", then waiting for {show_duration(plan.idle_seconds)}"
    return console.status(f"asking the server{idle} …")
