"""The Kubernetes manifests and the Helm chart: schemas, and what the schemas cannot know."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from mcp_session_proxy import __version__
from mcp_session_proxy.settings.config import Settings, load
from mcp_session_proxy.settings.sources import ENV_PREFIX

from .tools import CHART, DEPLOY, KUBERNETES, inside, objects, read_yaml, render, schema_problems

pytestmark = pytest.mark.e2e

OPERATOR = json.loads((Path(__file__).parent / "operator_schemas.json").read_text())
SIDECAR = DEPLOY / "kubernetes" / "sidecar.yaml"
POD_MONITOR = DEPLOY / "kubernetes" / "podmonitor.yaml"
BESIDE: dict[str, Any] = {"server": {"image": "server:1"}}
ELSEWHERE: dict[str, Any] = {"upstreams": ["http://one:8000/mcp", "http://two:8000/mcp"]}
SEVERAL: dict[str, Any] = ELSEWHERE | {
    "replicaCount": 3,
    "maxSurge": "50%",
    "store": {"clusterKeySecret": "keys", "peers": {"plain": True}},
    "valkey": {"enabled": True},
}
EVERYTHING: dict[str, Any] = {
    "image": {"tag": "9.9.9"},
    "imagePullSecrets": [{"name": "registry"}],
    "server": {
        "image": "server:1",
        "command": ["serve"],
        "args": ["--port", "8123"],
        "env": [{"name": "A", "value": "b"}],
        "envFrom": [{"secretRef": {"name": "more"}}],
        "port": 8123,
        "path": "/api/mcp",
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    },
    "config": {
        "sharing": "isolated",
        "max-sessions": 50,
        "credential-query": False,
        "credential-header": ["authorization", "x-tenant"],
        "idle-timeout": "10m",
        "public-url": "https://mcp.example.com",
    },
    "env": [{"name": "MCP_SESSION_PROXY_LOG_LEVEL", "value": "debug"}],
    "adminToken": {"secret": "tokens"},
    "drainSeconds": 120,
    "service": {"type": "LoadBalancer", "port": 8080, "annotations": {"a": "b"}},
    "podAnnotations": {"a": "b"},
    "podLabels": {"team": "tools"},
    "nodeSelector": {"disk": "ssd"},
    "tolerations": [{"key": "spot", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "volumes": [{"name": "data", "emptyDir": {}}],
    "volumeMounts": [{"name": "data", "mountPath": "/tls"}],
    "networkPolicy": {
        "clients": [{"podSelector": {"matchLabels": {"app": "agent"}}}],
        "operators": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
    },
    "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "alerts": {"enabled": True},
    "dashboard": {"enabled": True},
}


def kinds(found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Objects by kind, of which there is one each."""
    others = ("-dashboard", "-valkey")
    return {each["kind"]: each for each in found if not each["metadata"]["name"].endswith(others)}


def own_kinds(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that Kubernetes itself knows."""
    return [each for each in found if each["kind"] not in OPERATOR]


@pytest.fixture(scope="module")
def sidecar() -> list[dict[str, Any]]:
    """The plain manifests."""
    return [*read_yaml(SIDECAR), *read_yaml(POD_MONITOR)]


@pytest.fixture(scope="module", params=["manifests", "beside", "elsewhere", "several", "everything"])
def applied(request: pytest.FixtureRequest, sidecar: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Everything that can come to a cluster: the manifests, and the chart by several values."""
    values = {"beside": BESIDE, "elsewhere": ELSEWHERE, "several": SEVERAL, "everything": EVERYTHING}
    return sidecar if request.param == "manifests" else objects(render(values[request.param]))


@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_knows_every_field(applied: list[dict[str, Any]], version: str) -> None:
    """By the schemas of that release, in which no unknown field is allowed."""
    assert inside("kubernetes", version, text=json.dumps(own_kinds(applied))) == []


def test_an_unknown_field_is_found(sidecar: list[dict[str, Any]]) -> None:
    """The check above can fail."""
    worse = json.dumps(own_kinds(sidecar)).replace('"preStop"', '"preStopp"')
    (problem,) = inside("kubernetes", KUBERNETES[-1], text=worse)
    assert "preStopp" in problem


def test_the_operators_objects_have_its_fields(sidecar: list[dict[str, Any]], tmp_path: Path) -> None:
    """PodMonitor and PrometheusRule, as far as they are used here."""
    found = [each for each in (*sidecar, *objects(render(EVERYTHING))) if each["kind"] in OPERATOR]
    assert [each["kind"] for each in found] == ["PodMonitor", "PodMonitor", "PrometheusRule"]
    for each in found:
        assert schema_problems(OPERATOR[each["kind"]], each, tmp_path) == ""


def test_the_pieces_fit(applied: list[dict[str, Any]]) -> None:
    """Selectors select the pod, ports are named as they are called, probes ask paths that there are."""
    found = kinds(applied)
    pod = found["Deployment"]["spec"]["template"]
    labels = pod["metadata"]["labels"].items()
    proxy = next(each for each in pod["spec"]["containers"] if each["name"] == "proxy")
    ports = {port["name"] for port in proxy["ports"]}
    assert found["Deployment"]["spec"]["selector"]["matchLabels"].items() <= labels
    assert found["Service"]["spec"]["selector"].items() <= labels
    assert found["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"].items() <= labels
    assert found["Service"]["spec"]["ports"][0]["targetPort"] == "mcp"
    for rule in found["NetworkPolicy"]["spec"]["ingress"]:
        assert {port["port"] for port in rule["ports"]} <= ports
    paths = {name: proxy[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert {name: get["path"] for name, get in paths.items()} == {
        "startupProbe": "/healthz",
        "livenessProbe": "/healthz",
        "readinessProbe": "/readyz",
    }
    assert {get["port"] for get in paths.values()} == {"admin"}
    if "PodMonitor" in found:
        assert found["PodMonitor"]["spec"]["selector"]["matchLabels"].items() <= labels
        assert {each["port"] for each in found["PodMonitor"]["spec"]["podMetricsEndpoints"]} <= ports
        # The alert rules and the dashboard go by this job.
        assert pod["metadata"]["labels"][found["PodMonitor"]["spec"]["jobLabel"]] == "mcp-session-proxy"


def test_a_pod_has_time_to_stop(applied: list[dict[str, Any]]) -> None:
    """Leave the endpoints, drain, say farewell; only then, and within the pod's time, the server ends."""
    pod = kinds(applied)["Deployment"]["spec"]["template"]["spec"]
    (proxy,) = pod["containers"]
    leave = proxy["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain = settings_of(applied).drain_timeout
    assert leave >= 1
    assert pod["terminationGracePeriodSeconds"] >= leave + drain + 5
    for server in pod.get("initContainers", []):
        # Started before the proxy, and stopped after it.
        assert server["restartPolicy"] == "Always"
        assert pod["terminationGracePeriodSeconds"] > leave + drain + 5


def test_containers_may_do_nothing(applied: list[dict[str, Any]]) -> None:
    """As the restricted pod security standard wants it; and the proxy's file system is read-only."""
    pod = kinds(applied)["Deployment"]["spec"]["template"]["spec"]
    assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert pod["automountServiceAccountToken"] is False
    for container in (*pod["containers"], *pod.get("initContainers", [])):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["runAsUser"] > 0
        assert container["resources"]["requests"]
        assert container["resources"]["limits"]["memory"]
    assert pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True


def test_services_cannot_set_options(applied: list[dict[str, Any]]) -> None:
    """Kubernetes would set MCP_SESSION_PROXY_PORT and others for a service of that name."""
    assert kinds(applied)["Deployment"]["spec"]["template"]["spec"]["enableServiceLinks"] is False


def settings_of(applied: list[dict[str, Any]]) -> Settings:
    """What the program in the pod would go by."""
    found = kinds(applied)
    (proxy,) = found["Deployment"]["spec"]["template"]["spec"]["containers"]
    given = {
        each["name"].removeprefix(ENV_PREFIX).lower(): each["value"]
        for each in proxy["env"]
        if "value" in each
    }
    if "store" in given:
        given["cluster_key"] = "00" * 32  # it comes from a secret
        given["peer_url"] = given["peer_url"].replace("$(POD_IP)", "10.0.0.1")
    if "ConfigMap" in found:
        given = {
            key.replace("-", "_"): value
            for key, value in tomllib.loads(found["ConfigMap"]["data"]["proxy.toml"]).items()
        } | given
        assert proxy["args"] == ["serve", "--config", "/etc/mcp-session-proxy/proxy.toml"]
    else:
        command, given["upstream"] = proxy["args"]
        assert command == "serve"
    return load(given)


def test_the_program_takes_its_options(applied: list[dict[str, Any]]) -> None:
    """They are options, and the addresses are those of the ports."""
    settings = settings_of(applied)
    (proxy,) = kinds(applied)["Deployment"]["spec"]["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in proxy["ports"]}
    assert settings.admin_listen is not None
    assert (settings.listen.port, settings.admin_listen.port) == (ports["mcp"], ports["admin"])
    assert not settings.listen.is_loopback


def test_nobody_connects_who_is_not_named(sidecar: list[dict[str, Any]]) -> None:
    """No policy of ours admits a pod for being in the same namespace."""
    for found in (sidecar, objects(render(BESIDE)), objects(render(EVERYTHING))):
        for rule in kinds(found)["NetworkPolicy"]["spec"]["ingress"]:
            assert {"podSelector": {}} not in rule["from"]
    assert kinds(objects(render(BESIDE)))["NetworkPolicy"]["spec"]["ingress"] == []
    assert "No pod may connect yet" in render(BESIDE)["NOTES.txt"]


class TestChart:
    def test_helm_lints_it(self) -> None:
        """Nothing above a hint (it misses an icon)."""
        found = inside("lint", str(CHART), text=json.dumps(BESIDE))
        assert found["total_charts_linted"] == 1
        assert [each for each in found["messages"] if each["severity"] > 1] == []

    def test_it_is_of_the_programs_version(self) -> None:
        """The image that it names is that of this version."""
        (chart,) = read_yaml(CHART / "Chart.yaml")
        assert chart["appVersion"] == __version__

    def test_options_arrive_as_they_were_written(self) -> None:
        """Numbers, lists, truths and texts, by way of YAML and TOML."""
        settings = settings_of(objects(render(EVERYTHING)))
        assert settings.upstream == "http://127.0.0.1:8123/api/mcp"
        assert (settings.sharing, settings.max_sessions, settings.credential_query) == ("isolated", 50, False)
        assert settings.credential_header == ("authorization", "x-tenant")
        assert (settings.idle_timeout, settings.drain_timeout) == (600.0, 120.0)
        assert settings.log_level == "debug"

    def test_sessions_outlive_the_container(self) -> None:
        """In a directory of the pod's own, which the program makes; or in a claim, by one pod at a time."""

        def spec(state: dict[str, Any]) -> Any:
            return kinds(objects(render(ELSEWHERE | {"state": state})))["Deployment"]["spec"]

        for state, source, strategy in (
            ({}, {"emptyDir": {"sizeLimit": "256Mi"}}, None),
            ({"claim": "mine"}, {"persistentVolumeClaim": {"claimName": "mine"}}, "Recreate"),
        ):
            found = spec(state)
            pod = found["template"]["spec"]
            (proxy,) = pod["containers"]
            assert {"name": "state", **source} in pod["volumes"]
            (mount,) = [each for each in proxy["volumeMounts"] if each["name"] == "state"]
            variables = {each["name"]: each["value"] for each in proxy["env"] if "value" in each}
            assert variables["MCP_SESSION_PROXY_STATE_DIR"] == f"{mount['mountPath']}/state"
            assert found["strategy"].get("type") == strategy
            assert pod["securityContext"].get("fsGroup") == (65532 if strategy else None)
        assert "STATE_DIR" not in json.dumps(spec({"enabled": False}))

    def test_several_pods_have_a_store_in_common(self) -> None:
        """With one key, each pod under its own address for the others, and nothing on a disk of its own."""
        found = objects(render(SEVERAL))
        deployment = kinds(found)["Deployment"]["spec"]
        assert (deployment["replicas"], deployment["strategy"]["rollingUpdate"]["maxSurge"]) == (3, "50%")
        settings = settings_of(found)
        service = next(
            each for each in found if each["kind"] == "Service" and "valkey" in each["metadata"]["name"]
        )
        port = service["spec"]["ports"][0]["port"]
        assert str(settings.store) == f"valkey://{service['metadata']['name']}:{port}"
        assert (settings.cluster, settings.state_dir, settings.peer_plain) == ("demo", None, True)
        assert settings.peer_listen is not None
        assert settings.peer_url == f"http://10.0.0.1:{settings.peer_listen.port}"
        (proxy,) = deployment["template"]["spec"]["containers"]
        assert {"name": "peers", "containerPort": settings.peer_listen.port} in proxy["ports"]
        own = kinds(found)["NetworkPolicy"]["spec"]
        assert own["ingress"] == [
            {"from": [{"podSelector": own["podSelector"]}], "ports": [{"protocol": "TCP", "port": "peers"}]}
        ]
        values = SEVERAL | {"valkey": {}, "store": {**SEVERAL["store"], "secret": "mine"}}
        assert "valkey-server" not in json.dumps(objects(render(values)))

    def test_a_valkey_for_trying_it(self) -> None:
        """Nobody but the proxies reaches it; it may do nothing else."""
        found = [each for each in objects(render(SEVERAL)) if each["metadata"]["name"].endswith("-valkey")]
        its = {each["kind"]: each["spec"] for each in found}
        template = its["StatefulSet"]["template"]
        assert its["Service"]["selector"] == template["metadata"]["labels"]
        policy = its["NetworkPolicy"]
        assert policy["podSelector"]["matchLabels"] == template["metadata"]["labels"]
        proxies = kinds(objects(render(SEVERAL)))["Deployment"]["spec"]["selector"]
        assert [each["from"] for each in policy["ingress"]] == [[{"podSelector": proxies}]]
        (container,) = template["spec"]["containers"]
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]["memory"]

    def test_servers_elsewhere_are_replicas(self) -> None:
        """There is no server in the pod then."""
        found = objects(render(ELSEWHERE))
        settings = settings_of(found)
        assert [settings.upstream, *settings.replica] == ELSEWHERE["upstreams"]
        assert "initContainers" not in kinds(found)["Deployment"]["spec"]["template"]["spec"]

    def test_another_configuration_means_another_pod(self) -> None:
        """A changed option reaches the program, by a new pod."""

        def annotations(values: dict[str, Any]) -> Any:
            pod = kinds(objects(render(values)))["Deployment"]["spec"]["template"]
            return pod["metadata"]["annotations"]

        assert annotations(BESIDE) != annotations(BESIDE | {"config": {"sharing": "shared"}})

    def test_rules_and_dashboard_are_the_ones_beside_it(self) -> None:
        """There is one copy of each."""
        found = {(each["kind"], each["metadata"]["name"]): each for each in objects(render(EVERYTHING))}
        name = "demo-mcp-session-proxy"
        (rules,) = read_yaml(DEPLOY / "prometheus" / "alerts.yml")
        assert found["PrometheusRule", name]["spec"] == rules
        shown = found["ConfigMap", f"{name}-dashboard"]["data"]["mcp-session-proxy.json"]
        assert shown == (DEPLOY / "grafana" / "dashboard.json").read_text()

    @pytest.mark.parametrize(
        ("values", "complaint"),
        [
            ({}, "server.image"),
            (BESIDE | ELSEWHERE, "exclude each other"),
            (BESIDE | {"replica": 2}, "replica"),
            (BESIDE | {"store": SEVERAL["store"], "valkey": {"enabled": True}}, "the servers are elsewhere"),
            (SEVERAL | {"store": {"clusterKeySecret": "keys"}}, "store.peers.plain"),
            (SEVERAL | {"store": {"peers": {"plain": True}}}, "store.clusterKeySecret"),
            (SEVERAL | {"store": {**SEVERAL["store"], "url": "valkey://mine"}}, "valkey.enabled"),
            (ELSEWHERE | {"store": {"url": "http://mine"}}, "url"),
            (ELSEWHERE | {"maxSurge": "some"}, "maxSurge"),
            (BESIDE | {"config": {"listen": ":80"}}, "listen"),
            (BESIDE | {"config": {"cache-ttl": {"tools/list": 1}}}, "cache-ttl"),
            ({"server": {"image": "x", "path": "mcp"}}, "path"),
            ({"upstreams": ["one:8000"]}, "upstreams"),
        ],
    )
    def test_wrong_values_are_refused(self, values: dict[str, Any], complaint: str) -> None:
        """Before anything reaches the cluster, and with a word on what is wrong."""
        assert complaint in render(values)["error"]

    def test_the_notes_tell_where_it_is(self) -> None:
        """The URL for clients, with path and port."""
        notes = render(EVERYTHING)["NOTES.txt"]
        assert "http://demo-mcp-session-proxy.tools:8080/api/mcp\n" in notes
        assert "No pod" not in notes
        assert "pods" not in notes
        for name in ("replicas", "replicaCount"):
            assert "There are 2 pods" in render(ELSEWHERE | {name: 2})["NOTES.txt"]
        assert "pods" not in render(SEVERAL)["NOTES.txt"]
