"""Calls what the environment `deploy` holds."""

import json
import subprocess
from pathlib import Path
from typing import Any

from e2e.launch import TESTS, environment

DEPLOY = TESTS.parent / "deploy"
CHART = DEPLOY / "helm" / "mcp-session-proxy"
# Helm charts and manifests say 1.30 or newer: the oldest, one between, and the newest that is known here.
KUBERNETES = ("1.30", "1.33", "1.37")


def inside(*arguments: str, text: str) -> Any:
    """What `inside.py` makes of a text."""
    python = str(environment("deploy") / "bin" / "python")
    script = str(TESTS / "deploy" / "inside.py")
    done = subprocess.run([python, script, *arguments], input=text, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def read_yaml(path: Path) -> list[Any]:
    """The documents of a YAML file."""
    documents: list[Any] = inside("yaml", text=path.read_text())
    return documents


def render(values: dict[str, Any]) -> dict[str, Any]:
    """The chart, rendered by Helm: objects by template; or {"error": why not}."""
    rendered: dict[str, Any] = inside("render", str(CHART), text=json.dumps(values))
    return rendered


def objects(rendered: dict[str, Any]) -> list[dict[str, Any]]:
    """All objects of a rendered chart."""
    assert "error" not in rendered, rendered["error"]
    return [each for found in rendered.values() if isinstance(found, list) for each in found]


def schema_problems(schema: dict[str, Any], instance: object, folder: Path) -> str:
    """What is wrong with an instance by a JSON schema; nothing if all is well."""
    (folder / "schema.json").write_text(json.dumps(schema))
    (folder / "instance.json").write_text(json.dumps(instance))
    return _check_jsonschema("--schemafile", str(folder / "schema.json"), str(folder / "instance.json"))


def compose_problems(path: Path) -> str:
    """What is wrong with a compose file by the Compose Specification's own schema."""
    return _check_jsonschema("--builtin-schema", "vendor.compose-spec", str(path))


def _check_jsonschema(*arguments: str) -> str:
    tool = str(environment("deploy") / "bin" / "check-jsonschema")
    done = subprocess.run([tool, *arguments], capture_output=True, text=True)
    return "" if done.returncode == 0 else done.stdout + done.stderr
