"""What a new configuration changes in a running proxy, and what it cannot."""

from pathlib import Path

import pytest

from mcp_session_proxy.sessions.modes import Sharing
from mcp_session_proxy.settings.config import Settings, load
from mcp_session_proxy.settings.kinds import Live
from mcp_session_proxy.settings.reloading import _SWITCHES, compare

UPSTREAM = {"upstream": "https://h/mcp"}
TLS = {"tls_cert": "/c.pem", "tls_key": "/k.pem"}


def settings(**flags: str) -> Settings:
    return load({**UPSTREAM, **flags})


def live() -> set[str]:
    """The options that are marked as live."""
    fields = Settings.model_fields.items()
    return {name for name, field in fields if any(isinstance(item, Live) for item in field.metadata)}


def test_nothing_new():
    """Equal configurations differ in nothing."""
    change = compare(settings(linger="5s"), settings(linger="5s"))
    assert (change.changed, change.needs_restart) == ([], [])
    assert change.settings == settings(linger="5s")


def test_what_can_change_does_and_the_rest_is_named():
    """The new settings have the new values of live options only."""
    running = settings(linger="1s", sharing="fresh")
    change = compare(running, settings(linger="2s", sharing="shared", heartbeat="3s", listen=":1"))
    assert change.changed == ["linger", "heartbeat"]
    assert change.needs_restart == ["listen", "sharing"]
    assert (change.settings.linger, change.settings.heartbeat) == (2, 3)
    assert change.settings.sharing is Sharing.FRESH
    assert change.settings.listen == running.listen


def test_what_waits_for_a_restart_is_told_each_time():
    """A second reload compares with what is in force, not with what was wanted."""
    wanted = settings(sharing="shared")
    change = compare(compare(settings(), wanted).settings, wanted)
    assert change.needs_restart == ["sharing"]


def test_another_certificate():
    """Other files can be used at once."""
    change = compare(settings(**TLS), settings(**{**TLS, "tls_cert": "/other.pem"}))
    assert change.changed == ["tls-cert"]
    assert change.settings.tls_cert == Path("/other.pem")


@pytest.mark.parametrize("turned_on", [True, False])
@pytest.mark.parametrize(
    ("base", "more", "named"),
    [
        ({}, TLS, ["tls-cert", "tls-key"]),
        (TLS, {"tls_client_ca": "/a.pem"}, ["tls-client-ca"]),
        ({}, {"upstream_cert": "/c.pem", "upstream_key": "/k.pem"}, ["upstream-cert", "upstream-key"]),
    ],
)
def test_turning_tls_on_or_off(base, more, named, turned_on):
    """Both directions need a restart."""
    without, with_it = settings(**base), settings(**base, **more)
    change = compare(without, with_it) if turned_on else compare(with_it, without)
    assert (change.changed, change.needs_restart) == ([], named)


def test_switches_are_options():
    """Every option that is spoken of here is one that can change otherwise."""
    assert {*_SWITCHES, *_SWITCHES.values()} <= live()


def test_who_is_who_never_changes():
    """What callers are told apart by cannot change under sessions that are held."""
    fixed = {
        "credential_header",
        "credential_query",
        "affinity_header",
        "affinity_meta",
        "sharing",
        "anonymous",
    }
    assert fixed.isdisjoint(live())
