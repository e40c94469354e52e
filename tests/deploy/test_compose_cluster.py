"""The compose file of three proxies: what they have in common, each of its own, and who is in front."""

import re
from typing import Any

import pytest

from mcp_session_proxy.settings.config import Settings, load
from mcp_session_proxy.settings.sources import ENV_PREFIX

from .tools import DEPLOY, compose_problems, read_yaml

pytestmark = pytest.mark.e2e

CLUSTER = DEPLOY / "cluster"
PROXIES = ["proxy1", "proxy2", "proxy3"]


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    (file,) = read_yaml(CLUSTER / "compose.yaml")
    found: dict[str, Any] = file["services"]
    return found


def settings_of(service: dict[str, Any]) -> Settings:
    """What the program in it would go by."""
    given = {name.removeprefix(ENV_PREFIX).lower(): value for name, value in service["environment"].items()}
    # Compose takes it from a file beside this one.
    assert given["cluster_key"].startswith("${CLUSTER_KEY:?")
    given["cluster_key"] = "00" * 32
    command, given["upstream"] = service["command"]
    assert command == "serve"
    return load(given)


def test_it_is_a_compose_file() -> None:
    """By the specification's schema; what it mounts and builds from is there."""
    assert compose_problems(CLUSTER / "compose.yaml") == ""
    (file,) = read_yaml(CLUSTER / "compose.yaml")
    build = file["services"]["proxy1"]["build"]
    assert (CLUSTER / build["context"] / build["dockerfile"]).exists()
    assert (CLUSTER / file["services"]["balancer"]["volumes"][0].partition(":")[0]).exists()


def test_proxies_have_all_in_common_but_their_addresses(services: dict[str, Any]) -> None:
    """The options fit together; each is found by the others under its own name."""
    found = {name: settings_of(services[name]) for name in PROXIES}
    assert {str(settings.store) for settings in found.values()} == {"valkey://valkey:6379"}
    for name, settings in found.items():
        assert settings.peer_listen is not None
        assert settings.peer_url == f"http://{name}:{settings.peer_listen.port}"
        assert services[name]["build"]["args"]["EXTRAS"] == "valkey"
    rest = [
        {
            **services[name],
            "ports": None,
            "environment": services[name]["environment"] | {f"{ENV_PREFIX}PEER_URL": ""},
        }
        for name in PROXIES
    ]
    assert rest[0] == rest[1] == rest[2]


def test_nobody_but_proxies_reaches_server_and_store(services: dict[str, Any]) -> None:
    """They publish nothing, and are in no network that leads outside."""
    for name in ("server", "valkey"):
        assert services[name]["networks"] == ["inside"]
        assert "ports" not in services[name]
    assert {name for name, each in services.items() if "inside" in each["networks"]} == {
        "server",
        "valkey",
        *PROXIES,
    }


def test_the_balancer_is_not_sticky(services: dict[str, Any]) -> None:
    """Every proxy in turn, streams unbuffered, and nothing that was sent is sent again."""
    text = (CLUSTER / "nginx.conf").read_text()
    assert re.findall(r"server (proxy\d):8080", text) == PROXIES
    assert not re.search(r"^ *(ip_hash|hash|sticky)\b|non_idempotent", text, re.M)
    assert "proxy_buffering off;" in text
    assert services["balancer"]["depends_on"] == PROXIES
