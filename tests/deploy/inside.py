"""Runs inside the environment `deploy`, whose packages do not belong into the one that runs the tests.

    python inside.py yaml                 YAML documents from standard input
    python inside.py render CHART         a chart with the values (JSON) from standard input, by Helm itself
    python inside.py lint CHART           the same, linted
    python inside.py kubernetes VERSION   objects (a JSON list) from standard input by a release's schemas

Each prints one JSON value. What a tool complains of is printed as {"error": text}.
"""

import json
import sys
from typing import Any

import yaml


def read_yaml() -> list[Any]:
    """The documents, empty ones left out."""
    return [document for document in yaml.safe_load_all(sys.stdin) if document]


def render(chart: str) -> dict[str, Any]:
    """The objects of each template, and the texts of those that are no YAML."""
    from helm_python import HelmError
    from helm_python.chart import Chart

    try:
        with Chart.load(chart) as loaded:
            values = json.load(sys.stdin)
            loaded.validate_schema(values)
            rendered = loaded.render(values, name="demo", namespace="tools")
    except HelmError as error:
        return {"error": str(error)}
    texts = {name.partition("/templates/")[2]: text for name, text in rendered.items()}
    return {
        name: text if name.endswith(".txt") else [each for each in yaml.safe_load_all(text) if each]
        for name, text in texts.items()
    }


def lint(chart: str) -> dict[str, Any]:
    """Helm's own findings."""
    from helm_python.chart import lint as helm_lint

    return helm_lint(chart, json.load(sys.stdin), strict=True)


def check_kubernetes(version: str) -> list[str]:
    """What is wrong with the objects, unknown fields included."""
    from kubernetes_validate.utils import SchemaNotFoundError, ValidationError, validate

    wrong = []
    for each in json.load(sys.stdin):
        try:
            validate(each, version, strict=True)
        except ValidationError as error:
            wrong.append(f"{each['kind']}: {'.'.join(map(str, error.path))}: {error.message}")
        except SchemaNotFoundError:
            wrong.append(f"{each['kind']}: unknown in {version}")
    return wrong


COMMANDS = {"yaml": read_yaml, "render": render, "lint": lint, "kubernetes": check_kubernetes}

if __name__ == "__main__":
    json.dump(COMMANDS[sys.argv[1]](*sys.argv[2:]), sys.stdout, default=str)
