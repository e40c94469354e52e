"""The whole outcome of a check, and its JSON form, which programs may rely on. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

import msgspec

from .. import __version__
from ..protocol import jsonrpc
from ..protocol.lifting import read_server_facts
from . import old_transport
from .advice import NEED_PROXY, Advice, advise, command, suggest_call
from .clients import Fate, handshake_seconds, judge_clients, shows_state
from .facts import IDENTITY, Fact, list_facts
from .families import Kinship, find_family
from .observations import Observations
from .old_transport import Look
from .problems import Diagnosis
from .proxied import advise_proxied
from .text import clean, clean_string
from .versions import refused_versions

# Raised when a member changes its meaning or goes; members may be added without.
SCHEMA: Final = 1


class ExitStatus(IntEnum):
    """Exit statuses. 2 is wrong usage, 130 Ctrl-C."""

    WORKS = 0
    SUFFERS = 1
    UNCHECKED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One server, or the proxy in front of it: what was seen and judged, or the problem with it.

    ``old`` is what was seen where the server speaks HTTP+SSE only.
    """

    url: str
    problem: Diagnosis | None = None
    seen: Observations | None = None
    old: Look | None = None
    kinship: Kinship | None = None
    facts: tuple[Fact, ...] = ()
    fates: tuple[Fate, ...] = ()

    @property
    def status(self) -> ExitStatus:
        """What this side means for the exit status."""
        if self.problem is not None:
            return ExitStatus.UNCHECKED
        return ExitStatus.SUFFERS if any(fate.suffers for fate in self.fates) else ExitStatus.WORKS


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was found, for the table and for ``--json``; ``through`` the proxy only if that was asked for."""

    direct: Side
    through: Side | None
    command: str | None
    advice: tuple[Advice, ...]
    remark: str | None

    @property
    def status(self) -> ExitStatus:
        """The exit status: that of the proxied side, if there is one."""
        return (self.through or self.direct).status


def judge_side(found: Observations | Look | Diagnosis, url: str) -> Side:
    """One side, from what was seen of it."""
    if isinstance(found, Diagnosis):
        return Side(url=url, problem=found)
    if isinstance(found, Look):
        return Side(
            url=url, old=found, facts=old_transport.list_facts(found), fates=old_transport.judge_clients()
        )
    kinship = find_family(found)
    return Side(
        url=url,
        seen=found,
        kinship=kinship,
        facts=list_facts(found, kinship),
        fates=judge_clients(found),
    )


def write_report(
    direct: Side, through: Side | None, *, has_credentials: bool, upstream_flags: tuple[str, ...] = ()
) -> Report:
    """Put the sides together, with advice."""
    advice: tuple[Advice, ...] = ()
    remark = None
    if direct.seen is not None:
        if direct.seen.is_proxied:
            advice = advise_proxied(direct.seen, direct.fates)
        else:
            advice = advise(direct.seen, direct.fates, direct.kinship, has_credentials=has_credentials)
        remark = suggest_call(direct.seen)
    if direct.old is not None:
        advice = old_transport.advise()
    if through is not None and through.seen is not None:
        if through.seen.is_proxied:
            # It is there already.
            advice = tuple(piece for piece in advice if piece.key not in NEED_PROXY)
        advice += advise_proxied(through.seen, through.fates)
    start = None
    if any(piece.key in NEED_PROXY for piece in advice):
        if direct.seen is not None:
            start = command(direct.seen, upstream_flags)
        elif direct.old is not None:
            start = old_transport.command(direct.url, upstream_flags)
    return Report(
        direct=direct,
        through=through,
        command=start,
        advice=advice,
        remark=remark,
    )


def to_json(report: Report) -> bytes:
    """The document for programs: one line of JSON objects without secrets."""
    document = {
        "schema": SCHEMA,
        "program": f"mcp-session-proxy {__version__}",
        "outcome": report.status.name.lower(),
        "exit_status": int(report.status),
        "direct": _side(report.direct),
        "through": None if report.through is None else _side(report.through),
        "command": report.command,
        "advice": [
            {"key": piece.key, "flags": list(piece.flags), "text": piece.text} for piece in report.advice
        ],
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2)


def _side(side: Side) -> dict[str, Any]:
    problem = side.problem
    return {
        "url": side.url,
        "outcome": side.status.name.lower(),
        "problem": None
        if problem is None
        else {"key": problem.key, "text": problem.text, "hint": problem.hint},
        "server": _describe(side),
        "behaviour": {
            fact.key: {"text": fact.text, "status": fact.status, "measured": fact.measured}
            for fact in side.facts
            if fact.key not in IDENTITY
        },
        "clients": {
            fate.client.value: {"verdict": fate.verdict.value, "text": fate.text} for fate in side.fates
        },
        "state": {fate.client.value: fate.state.value for fate in side.fates if fate.state is not None},
    }


def _describe(side: Side) -> Mapping[str, Any] | None:
    if side.old is not None:
        return old_transport.describe(side.old)
    return None if side.seen is None else _server(side.seen, side.kinship)


def _server(seen: Observations, kinship: Kinship | None) -> dict[str, Any]:
    hello = jsonrpc.read_object(seen.hello.result)
    info = jsonrpc.read_object(hello.get("serverInfo"))
    seconds = handshake_seconds(seen)
    shown = seen.hello if seen.hello.is_answered else seen.discover
    return {
        "name": clean_string(info.get("name")),
        "version": clean_string(info.get("version")),
        "protocol_version": clean_string(hello.get("protocolVersion")),
        "modern_versions": list(seen.modern_versions),
        "capabilities": sorted(clean(name) for name in read_server_facts(shown.result or b"").capabilities),
        "tools": seen.tools,
        "refused_versions": list(refused_versions(seen)),
        "issues_session_ids": seen.issues_ids,
        "one_session": None if seen.beside is None else seen.has_one_session,
        "cookies": [clean(name) for name in seen.cookies],
        "first_session_ms": round(seen.hello.seconds * 1000, 1) if seen.hello.is_answered else None,
        "handshake_ms": None if seconds is None else round(seconds * 1000, 1),
        "keeps_state": shows_state(seen),
        "is_this_proxy": seen.is_proxied,
        "family": None
        if kinship is None
        else {
            "key": kinship.family.key,
            "name": kinship.family.name,
            "sure": kinship.is_sure,
            "told_by": list(kinship.seen),
        },
    }
