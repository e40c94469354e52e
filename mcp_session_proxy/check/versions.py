"""Which versions of the protocol a server refuses, instead of answering with one of its own. Pure.

A server that does not speak the version that a client asks for must name another one, and leave it to the
client what to do about that (MCP 2025-11-25, basic/lifecycle, "Version Negotiation").
"""

from collections.abc import Mapping

from .observations import OPENAI_VERSION, Client, Observations, ServerAnswer


def refused_versions(seen: Observations) -> Mapping[str, ServerAnswer]:
    """The refusals, by the versions that were asked for. Not every version is tried."""
    return {**seen.refused_versions, **_refused_to_openai(seen)}


def _refused_to_openai(seen: Observations) -> Mapping[str, ServerAnswer]:
    """That client asks for a version of its own; others are taken, or it would not be about versions."""
    others = seen.plays.get(Client.PER_CALL, ())
    if not others or not others[0].steps[0].is_fine:
        return {}
    asked = [play.steps[0].answer for play in seen.plays.get(Client.OPENAI, ())]
    refused = [answer for answer in asked if answer.may_be_about_version]
    return {OPENAI_VERSION: refused[0]} if refused else {}
