"""What to do about a running proxy: what the clients' fates behind it say of how it was told to work. Pure.

Its options cannot be asked for, so each piece of advice says what would explain what was seen.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from .advice import PROGRAM, Advice
from .clients import Fate, State
from .observations import Client, Observations

_HANDOVER: Final = ("--sharing handover",)


def advise_proxied(seen: Observations, fates: Sequence[Fate]) -> tuple[Advice, ...]:
    """The advice about what answers at the URL of a proxy."""
    if not seen.is_proxied:
        text = f"What answers at {seen.url} does not seem to be {PROGRAM}."
        return (Advice(key="not-this-proxy", text=text),)
    advice = tuple(_advise(seen, fates))
    if not advice and any(fate.suffers for fate in fates):
        return (
            Advice(key="see-log", text="Something is wrong behind the proxy. See its log and its /readyz."),
        )
    return advice


def _advise(seen: Observations, fates: Sequence[Fate]) -> Iterator[Advice]:
    if seen.has_one_session:
        yield Advice(
            key="one-session",
            flags=("--sharing shared",),
            text="The server behind the proxy can have one session only. To let all clients share it:",
        )
    if _turns_ids_away(seen):
        yield Advice(
            key="unknown-session",
            flags=("--unknown-session adopt",),
            text="The proxy turns away ids that it does not know. To let old ids go on working:",
        )
    lost = {fate.client for fate in fates if fate.state is State.LOST}
    if Client.PER_CALL in lost:
        yield _explain_apart(Client.FORGETFUL in lost)
    elif Client.LEAVES in lost:
        yield Advice(
            key="leaving",
            text="State is handed on after a DELETE, and not after a client that just leaves: something "
            "between here and the proxy may keep its connections open. Such a session is free again after "
            "--detach-after.",
        )
    if Client.MODERN in lost and Client.PER_CALL not in lost:
        yield Advice(
            key="upstream-era",
            flags=("--upstream-era legacy",),
            text="Modern requests reach the server as they are, and it keeps no state for them, though it "
            "does in sessions. To translate them onto sessions:",
        )


def _turns_ids_away(seen: Observations) -> bool:
    """Whether an id that the proxy did not give out is unknown to it, and not refused for another reason."""
    failed = [play.failed for play in seen.plays[Client.STALE]]
    return any(step is not None and step.answer.status == 404 for step in failed)


def _explain_apart(also_without_session: bool) -> Advice:
    """Clients that come one after the other do not find each other's session."""
    if also_without_session:
        text = (
            "No call finds the state of the one before. That is what --sharing fresh does, and --anonymous "
            "isolate for callers without credentials. Without these, state survives from one to the next:"
        )
    else:
        text = (
            "Every client session has a session of its own at the server, as with --sharing isolated. To let "
            "state survive from one to the next:"
        )
    return Advice(key="sharing", flags=_HANDOVER, text=text)
