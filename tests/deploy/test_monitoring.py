"""Scrape configuration, alert rules and dashboard: Prometheus' own checks, and that names are ours."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from e2e.launch import TESTS, environment

from mcp_session_proxy.ops.introspection import Gauges, Phase
from mcp_session_proxy.ops.metrics import GaugeCollector, Metrics

from .tools import DEPLOY, read_yaml

pytestmark = pytest.mark.e2e

PROMETHEUS = DEPLOY / "prometheus"
DASHBOARD = DEPLOY / "grafana" / "dashboard.json"
TROUBLESHOOTING = TESTS.parent / "docs" / "troubleshooting.md"


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Debian's promtool in the folder of the rules."""
    environment("prometheus")
    tool = shutil.which("promtool")
    assert tool is not None
    return subprocess.run([tool, *arguments], cwd=PROMETHEUS, capture_output=True, text=True)


def rules() -> list[dict[str, Any]]:
    """All alert rules."""
    (file,) = read_yaml(PROMETHEUS / "alerts.yml")
    return [rule for group in file["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    """The dashboard."""
    found: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return found


def panels() -> list[dict[str, Any]]:
    """Its panels, without the rows' titles."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def known_series() -> set[str]:
    """The names of all series that a proxy can show, and what Prometheus itself adds."""
    metrics = Metrics()

    class View:
        def gauges(self) -> Gauges:
            return Gauges(
                phase=Phase.READY,
                upstreams={},
                limits={"waiters": 1},
                client_sessions=0,
                upstream_sessions={"idle": 0},
                upstream_session_age_seconds=[],
                waiters=0,
                exchanges_parked=0,
                streams={"client": 0},
                memory_bytes={"events": 0},
                memory_limit_bytes={"events": 0},
            )

    names = {"up"}
    for family in [*metrics.registry.collect(), *GaugeCollector(View().gauges).collect()]:
        suffixes = {
            "counter": ("_total",),
            "histogram": ("_bucket", "_sum", "_count"),
            "info": ("_info",),
        }.get(family.type, ("",))
        names |= {family.name + suffix for suffix in suffixes}
    return names


def test_prometheus_accepts_configuration_and_rules() -> None:
    """The configuration with the rules that it names."""
    checked = promtool("check", "config", "prometheus.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"{len(rules())} rules found" in checked.stdout


def test_alerts_fire_when_they_should() -> None:
    """The unit tests of the rules."""
    tested = promtool("test", "rules", "alerts_test.yml")
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_the_unit_tests_can_fail(tmp_path: Path) -> None:
    """A rule that never fires is found."""
    shutil.copy(PROMETHEUS / "alerts_test.yml", tmp_path)
    worse = (PROMETHEUS / "alerts.yml").read_text().replace("> 0.9", "> 90")
    (tmp_path / "alerts.yml").write_text(worse)
    tested = promtool("test", "rules", str(tmp_path / "alerts_test.yml"))
    assert "McpSessionProxySessionsNearLimit" in tested.stdout + tested.stderr
    assert tested.returncode != 0


def test_every_alert_is_seen_to_fire_and_not_to() -> None:
    """Each has a unit test in its name, which expects it once, and nothing before."""
    (file,) = read_yaml(PROMETHEUS / "alerts_test.yml")
    cases = {case["name"]: case.get("promql_expr_test", []) for case in file["tests"]}
    for rule in rules():
        expected = [bool(each.get("exp_samples")) for each in cases[rule["alert"]]]
        assert expected == [False, True], rule["alert"]


def test_every_alert_says_what_to_do() -> None:
    """How bad it is, what it is in a line, what it means, and a section to read."""
    headings = re.findall(r"^#+ `?(\w+)`?$", TROUBLESHOOTING.read_text(), re.MULTILINE)
    for rule in rules():
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        notes = rule["annotations"]
        assert set(notes) == {"summary", "description", "runbook"}
        assert notes["runbook"] == f"docs/troubleshooting.md#{rule['alert'].lower()}"
        assert rule["alert"] in headings


def test_rules_and_dashboard_name_metrics_that_there_are() -> None:
    """Nothing is asked for that the proxy does not have."""
    asked = [rule["expr"] for rule in rules()]
    asked += [target["expr"] for panel in panels() for target in panel["targets"]]
    asked += [str(each.get("query")) for each in dashboard()["templating"]["list"]]
    named = {name for text in asked for name in re.findall(r"\b(?:mcp_session_proxy|process)_\w+", text)}
    assert len(named) > 20
    assert named <= known_series()


def test_the_dashboard_shows_every_metric() -> None:
    """There is no number that nobody looks at."""
    shown = " ".join(target["expr"] for panel in panels() for target in panel["targets"])
    bases = {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in known_series()}
    rest = {"up", "process_virtual_memory_bytes", "process_start_time_seconds"}
    assert {name for name in bases - rest if name not in shown} == set()


def test_the_dashboard_is_well_formed() -> None:
    """No number twice, no panel over another, units are given, the data source is the reader's choice."""
    found = dashboard()["panels"]
    assert len({panel["id"] for panel in found}) == len(found)
    taken: set[tuple[int, int]] = set()
    for panel in found:
        place = panel["gridPos"]
        area = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not area & taken, panel["title"]
        taken |= area
    for panel in panels():
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        for each in (panel, *panel["targets"]):
            assert each["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_grafana_is_told_where_things_are() -> None:
    """The provisioning files name what the compose file mounts, and the address of its Prometheus."""
    (compose,) = read_yaml(DEPLOY / "compose.yaml")
    (sources,) = read_yaml(DEPLOY / "grafana/provisioning/datasources/prometheus.yml")
    (providers,) = read_yaml(DEPLOY / "grafana/provisioning/dashboards/dashboards.yml")
    mounts = {
        target: source
        for source, target, _ in (volume.split(":") for volume in compose["services"]["grafana"]["volumes"])
    }
    folder = providers["providers"][0]["options"]["path"]
    assert mounts[f"{folder}/dashboard.json"] == "./grafana/dashboard.json"
    listening = next(each for each in compose["services"]["prometheus"]["command"] if "listen" in each)
    assert sources["datasources"][0]["url"].rpartition(":")[2] == listening.rpartition(":")[2]
