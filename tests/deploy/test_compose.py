"""The compose file: its schema, and that what it names exists."""

from pathlib import Path

import pytest
from e2e.launch import TESTS

from mcp_session_proxy.settings.config import load

from . import dockerfile
from .tools import DEPLOY, compose_problems, read_yaml

pytestmark = pytest.mark.e2e

COMPOSE = DEPLOY / "compose.yaml"


def test_it_is_a_compose_file(tmp_path: Path) -> None:
    """By the specification's schema, which does not accept everything."""
    assert compose_problems(COMPOSE) == ""
    worse = tmp_path / "compose.yaml"
    worse.write_text(COMPOSE.read_text().replace("read_only: true", "readonly: true"))
    assert "readonly" in compose_problems(worse)


def test_what_it_names_exists() -> None:
    """Build files, mounted files, services and networks."""
    (file,) = read_yaml(COMPOSE)
    services = file["services"]
    build = services["proxy"]["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).exists()
    for service in services.values():
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert (DEPLOY / source).exists() if source.startswith(".") else source in file["volumes"]
        assert set(service.get("networks", [])) <= set(file["networks"])
        assert set(service.get("depends_on", [])) <= set(services)


def test_its_command_is_one_that_the_program_takes() -> None:
    """The URL names the server by its service and port, and there is time enough to drain."""
    (file,) = read_yaml(COMPOSE)
    server, proxy = file["services"]["server"], file["services"]["proxy"]
    command, url = proxy["command"]
    assert (command, url) == ("serve", f"http://server:{server['environment']['PORT']}/mcp")
    settings = load({"upstream": url})
    assert float(proxy["stop_grace_period"].removesuffix("s")) >= settings.drain_timeout + 10
    final = dockerfile.variables(dockerfile.read(DEPLOY / "Dockerfile")[-1], {})
    ports = [each.rpartition(":")[2] for each in proxy["ports"]]
    assert ports[:2] == [
        final[f"MCP_SESSION_PROXY_{name}"].removeprefix(":") for name in ("LISTEN", "ADMIN_LISTEN")
    ]


def test_sessions_outlive_the_container() -> None:
    """Their directory is made in a volume, at a place that the image has ready for it."""
    (file,) = read_yaml(COMPOSE)
    proxy = file["services"]["proxy"]
    name, _, mounted = proxy["volumes"][0].partition(":")
    assert name in file["volumes"]
    directory = load(
        {"upstream": "http://server/mcp", "state_dir": proxy["environment"]["MCP_SESSION_PROXY_STATE_DIR"]}
    )
    assert directory.state_directory == Path(mounted) / "state"
    build, final = dockerfile.read(DEPLOY / "Dockerfile")
    assert "mkdir -m 1777 /state" in build.all("RUN")
    assert f"--from=build /state {mounted}" in final.all("COPY")


def test_only_the_proxy_reaches_the_server() -> None:
    """The server publishes nothing and is in no network that leads outside."""
    (file,) = read_yaml(COMPOSE)
    server = file["services"]["server"]
    assert "ports" not in server
    assert all(file["networks"][name].get("internal") for name in server["networks"])
    others = [name for name, each in file["services"].items() if "inside" in each.get("networks", [])]
    assert others == ["server", "proxy"]


def test_its_server_is_the_one_that_is_tested() -> None:
    """The same version that the end-to-end tests run against."""
    (file,) = read_yaml(COMPOSE)
    package = "@modelcontextprotocol/server-everything"
    tested = (TESTS / "envs" / "node" / "package.json").read_text()
    line = next(line for line in tested.splitlines() if package in line)
    version = line.split('"')[3]
    assert f"{package}@{version}\n" in file["services"]["server"]["build"]["dockerfile_inline"]
