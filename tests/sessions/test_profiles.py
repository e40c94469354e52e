"""Profiles are kept once, as long as somebody needs them, and within their share of the memory."""

import gc
import json

import pytest

from mcp_session_proxy.bounds import PROFILE_BYTES
from mcp_session_proxy.errors import InvalidParams, OverBudget
from mcp_session_proxy.memory import Share
from mcp_session_proxy.sessions.profiles import Profiles


def params(**capabilities):
    return json.dumps(
        {
            "protocolVersion": "2025-11-25",
            "capabilities": capabilities,
            "clientInfo": {"name": "c", "version": "1"},
        }
    ).encode()


@pytest.fixture
def share():
    return Share("client profiles", 200_000)


@pytest.fixture
def profiles(share):
    return Profiles(share)


def test_equal_profiles_are_one_object(profiles, share):
    """A thousand clients of a kind cost what one costs."""
    kept = [profiles.of_initialize(params(roots={})) for _ in range(1000)]
    assert len(set(map(id, kept))) == 1
    assert share.used_bytes == len(kept[0].params)


def test_profiles_that_differ_in_anything_are_not(profiles):
    """Equal to the server is not enough: what one client said of itself is not told in another's name."""
    one, other = profiles.of_initialize(params()), profiles.of_initialize(params().replace(b'"1"', b'"2"'))
    assert one == other
    assert one is not other


@pytest.mark.slow
def test_nobody_needs_it_any_more(profiles, share):
    """What a profile took is given back with its last holder."""
    profile = profiles.of_initialize(params(roots={}))
    assert share.used_bytes
    del profile
    gc.collect()
    assert share.used_bytes == 0
    assert len(profiles) == 0


def test_what_is_usual_is_remembered(profiles):
    """Modern clients repeat themselves; the profile is not made again for each request."""
    one = profiles.of_modern(b'{"roots":{}}', b'{"name":"m","version":"1"}')
    assert profiles.of_modern(b'{"roots":{}}', b'{"name":"m","version":"1"}') is one


def test_a_profile_that_is_too_large(profiles):
    """Nobody has 64 KiB of capabilities; who sends them is told so."""
    with pytest.raises(InvalidParams, match=str(PROFILE_BYTES)):
        profiles.of_initialize(params(experimental={"x": "y" * PROFILE_BYTES}))
    with pytest.raises(InvalidParams):
        profiles.of_modern(b'{"experimental":{"x":"%b"}}' % (b"y" * PROFILE_BYTES), None)


def test_no_memory_for_one_more(profiles, share):
    """The newest one pays, and those before keep theirs; there is room yet for one that is not large."""
    kept = [profiles.of_initialize(params(experimental={str(n): {"x": "y" * 10_000}})) for n in range(14)]
    with pytest.raises(OverBudget):
        profiles.of_initialize(params(experimental={"one": {"more": "y" * 10_000}}))
    assert share.used_bytes == sum(len(profile.params) for profile in kept)
    assert profiles.of_initialize(params(experimental={"one": {"more": "y" * 1000}}))


@pytest.mark.slow
def test_what_is_large_is_not_remembered(profiles, share):
    """The memory of what is usual is no way to keep profiles alive."""
    profiles.of_modern(b'{"experimental":{"x":"%b"}}' % (b"y" * 10_000), None)
    gc.collect()
    assert share.used_bytes == 0
