"""The options of how members reach each other: which go together."""

from typing import Any

import pytest

from mcp_session_proxy.settings.config import load
from mcp_session_proxy.settings.sources import ConfigError
from mcp_session_proxy.settings.values import Address


def complaint(**options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load({"upstream": "http://127.0.0.1:8000/mcp", **options})
    return str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
def test_on_loopback(host: str) -> None:
    """This machine's own processes need no TLS."""
    settings = load({"upstream": "http://127.0.0.1:8000/mcp", "peer_listen": f"{host}:7946"})
    assert settings.peer_address(Address("127.0.0.1", 7946)) == "http://127.0.0.1:7946"


@pytest.mark.parametrize("listen", ["10.0.0.7:7946", ":7946", "[2001:db8::1]:7946"])
def test_beyond_loopback(listen: str) -> None:
    """What would send credentials over a network in the clear does not start."""
    assert "--peer-listen" in complaint(peer_listen=listen)
    assert "--peer-plain" in complaint(peer_listen=listen, peer_url="http://10.0.0.7:7946")


def test_beyond_loopback_on_purpose() -> None:
    """Unless the operator says that the network encrypts by itself."""
    settings = load(
        {
            "upstream": "http://127.0.0.1:8000/mcp",
            "peer_listen": ":7946",
            "peer_url": "http://10.0.0.7:7946/",
            "peer_plain": True,
        }
    )
    assert settings.peer_address(Address("0.0.0.0", 7946)) == "http://10.0.0.7:7946"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"peer_url": "http://10.0.0.7:7946"}, "--peer-url"),
        ({"peer_ca": "ca.pem"}, "--peer-ca"),
        ({"peer_listen": ":7946", "peer_plain": True}, "needs --peer-url"),
        ({"peer_listen": "127.0.0.1:7946", "peer_url": "https://h:1"}, "--peer-url"),
        ({"peer_listen": "127.0.0.1:7946", "peer_url": "http://h:1/path"}, "--peer-url"),
        ({"peer_listen": "127.0.0.1:7946", "peer_url": "ftp://h:1"}, "--peer-url"),
        ({"peer_listen": "127.0.0.1:7946", "peer_cert": "c.pem"}, "needs --peer-key"),
        ({"peer_listen": "127.0.0.1:7946", "peer_key": "k.pem"}, "needs --peer-cert"),
        ({"peer_listen": "h:7946", "peer_ca": "ca.pem"}, "needs --peer-cert and --peer-key"),
        (
            {"peer_listen": "h:7946", "peer_ca": "ca", "peer_cert": "c", "peer_key": "k", "peer_plain": True},
            "--peer-plain",
        ),
        ({"peer_listen": "127.0.0.1:8080"}, "must differ from --listen"),
        ({"peer_listen": "127.0.0.1:9090"}, "must differ from --admin-listen"),
    ],
)
def test_what_does_not_go_together(options: dict[str, Any], words: str) -> None:
    """The complaint names the option, and what it lacks."""
    assert words in complaint(**options)


def test_with_certificates() -> None:
    """Those for clients serve for members, too; the URL is https by itself."""
    settings = load(
        {
            "upstream": "http://127.0.0.1:8000/mcp",
            "peer_listen": "10.0.0.7:7946",
            "peer_ca": "ca.pem",
            "tls_cert": "c.pem",
            "tls_key": "k.pem",
        }
    )
    assert settings.peer_address(Address("10.0.0.7", 7946)) == "https://10.0.0.7:7946"
