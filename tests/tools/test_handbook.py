"""The pages about events and metrics say what the code says."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import mcp_session_proxy
from mcp_session_proxy import errors
from mcp_session_proxy.events import Level
from mcp_session_proxy.ops.metrics import PREFIX
from tools import handbook

ROOT = Path(__file__).parent.parent.parent
KINDS = handbook.event_kinds()
EVENTS = handbook.render_events()
METRICS = handbook.render_metrics()


def anchors(page: str) -> set[str]:
    return {handbook._anchor(line.lstrip("# ")) for line in page.splitlines() if line.startswith("#")}


def listed(page: str) -> set[str]:
    """What stands in the first column of the page's tables."""
    return set(re.findall(r"^\| `([\w.-]+)`", page, re.MULTILINE))


def tree(kind: type[Any]) -> list[type[Any]]:
    return [kind, *(child for branch in kind.__subclasses__() for child in tree(branch))]


@pytest.mark.parametrize("name", ["events", "metrics"])
def test_documentation_is_up_to_date(name):
    """The file says what the code says; `make docs` writes it."""
    assert (ROOT / "docs" / f"{name}.md").read_text() == handbook._PAGES[name]()


class TestEvents:
    def test_kinds_are_found(self):
        """The tests below look at the real thing."""
        assert len(KINDS) > 15
        assert {"session.opened", "config.reloaded"} <= {kind.name for kind in KINDS}

    @pytest.mark.parametrize("kind", KINDS)
    def test_every_event_is_there(self, kind):
        """Once, with its level and its fields."""
        assert EVENTS.count(f"### {kind.name}\n") == 1
        section = EVENTS.split(f"### {kind.name}\n")[1].split("\n#")[0]
        fields = ", ".join(f"`{name}`" for name in kind.__struct_fields__)
        assert f"\n{kind.level} · {fields}\n" in section

    @pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.level in (Level.WARNING, Level.ERROR)])
    def test_every_complaint_says_what_to_do(self, kind):
        """Who is woken by a line wants to know."""
        assert "**What to do:**" in handbook._meaning(kind)

    def test_every_word_explained_is_used(self):
        """The table of fields holds nothing from the past."""
        used = {name for kind in KINDS for name in kind.__struct_fields__}
        assert set(handbook._FIELDS) == used

    def test_every_reason_is_there(self):
        """Whatever an error can call itself."""
        branches = (errors.ClientError, errors.UpstreamError, errors.OverloadError)
        reasons = {kind.reason for kind in tree(errors.ProxyError) if kind not in branches}
        assert reasons <= listed(EVENTS)

    def test_every_logger_is_there(self):
        """Lines that are no events are told of, too."""
        package = Path(mcp_session_proxy.__file__).parent
        found = set()
        for path in package.rglob("*.py"):
            parts = ["mcp_session_proxy", *path.relative_to(package).with_suffix("").parts]
            for name in re.findall(r"_log = logging\.getLogger\((\w+)\)", path.read_text()):
                found.add(".".join({"__name__": parts, "__package__": parts[:-1]}[name]))
        assert len(found) > 1
        assert found <= listed(EVENTS)

    def test_links_lead_somewhere(self):
        """Every event of the overview has a section."""
        targets = set(re.findall(r"\]\(#([^)]+)\)", EVENTS))
        assert targets
        assert targets <= anchors(EVENTS)


class TestMetrics:
    def test_example_queries_ask_for_metrics_that_exist(self):
        """A query that was copied from here works."""
        blocks = "".join(re.findall(r"```promql\n(.*?)```", METRICS, re.DOTALL))
        asked = {name.removesuffix("_bucket") for name in re.findall(rf"{PREFIX}\w+", blocks)}
        assert len(asked) > 10
        assert asked <= listed(METRICS)

    @pytest.mark.skipif(shutil.which("promtool") is None, reason="there is no promtool here")
    def test_prometheus_understands_the_example_queries(self, tmp_path):
        """Its own tool reads them, each as a rule."""
        blocks = "\n".join(re.findall(r"```promql\n(.*?)```", METRICS, re.DOTALL))
        queries = [" ".join(query.split()) for query in re.split(r"\n+(?=\S)", blocks.strip())]
        rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries)]
        path = tmp_path / "rules.yml"
        path.write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))
        checked = subprocess.run(
            ["promtool", "check", "rules", path], capture_output=True, text=True, check=False
        )
        assert checked.returncode == 0, checked.stdout + checked.stderr
        assert f"{len(queries)} rules found" in checked.stdout

    def test_every_label_explained_is_used(self):
        """The table of labels holds nothing from the past."""
        used = set(re.findall(r"^\| `(\w+)` \|", METRICS.split("## Labels")[1], re.MULTILINE))
        assert set(handbook._LABELS) == used

    def test_links_lead_somewhere(self):
        """What is explained on the other page is there."""
        targets = set(re.findall(r"\]\(events\.md#([^)]+)\)", METRICS))
        assert targets
        assert targets <= anchors(EVENTS)
