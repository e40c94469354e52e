"""What the report and its page say agrees with the program."""

import inspect
import re
from pathlib import Path

from check_samples import stateful

from mcp_session_proxy.check import advice, facts, problems, proxied
from mcp_session_proxy.check.clients import ClientVerdict
from mcp_session_proxy.check.families import find_family
from mcp_session_proxy.check.observations import Client
from mcp_session_proxy.settings.config import Settings
from mcp_session_proxy.settings.options import options

PAGE = (Path(__file__).parents[2] / "docs" / "check.md").read_text()


def keys_in(module) -> set[str]:
    """Every key that a module gives to what it makes."""
    return set(re.findall(r'key="([a-z_-]+)"', Path(module.__file__).read_text()))


def test_the_page_names_every_word_for_programs():
    """Clients, verdicts, behaviours and problems."""
    words = {*Client, *ClientVerdict, *(keys_in(facts) - facts.IDENTITY), *keys_in(problems)}
    assert [word for word in sorted(words) if f"`{word}`" not in PAGE] == []


def test_every_flag_that_is_advised_exists():
    """Nobody is sent looking for an option that is not there."""
    sources = [inspect.getsource(module) for module in (advice, problems, proxied)]
    advised = set(re.findall(r"--[a-z][a-z-]+", " ".join(sources))) - {"--header", "--call", "--timeout"}
    assert {"--sharing", "--min-idle", "--check-after"} <= advised
    assert advised <= {option.flag for option in options()}


def test_the_defaults_are_what_the_advice_says():
    """Two minutes, and one."""
    settings = Settings(upstream="http://127.0.0.1:8000/mcp")
    assert settings.keepalive == advice._DEFAULT_KEEPALIVE_SECONDS == 120
    assert settings.handshake_timeout == advice._DEFAULT_HANDSHAKE_SECONDS == 60


def test_a_behaviour_is_told_once():
    """The keys of the facts are unique."""
    seen = stateful()
    keys = [fact.key for fact in facts.list_facts(seen, find_family(seen))]
    assert len(keys) == len(set(keys))
