"""Every block of code in the documents is run or checked; one that cannot be says why."""

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from deploy.test_monitoring import known_series
from deploy.tools import KUBERNETES, compose_problems, inside, render

from mcp_session_proxy.settings.config import load

from .markdown import DOCUMENTS, ROOT, Block, blocks
from .reader import Reader, interpreters

ALL = {document: list(blocks(document)) for document in DOCUMENTS}
# Output, drawings and quotations are plain.
LANGUAGES = {"", "sh", "python", "toml", "yaml", "json", "promql"}
NOT_RUN = re.compile(r"not run: (.{10,})")
# The output of the block before.
PRINTS = "prints"
RUN_WITH = re.compile(r"run with: ([\w-]+)")
# A file that the page has its reader write, by its first line.
FILE = re.compile(r"# ([\w.-]+\.toml)\n")


def of(language: str) -> list[Any]:
    """All blocks in a language that are to be checked."""
    found = [each for each_of in ALL.values() for each in each_of if each.language == language]
    return [pytest.param(each, id=str(each)) for each in found if not each.remark.startswith("not run")]


def test_languages_are_known() -> None:
    """No block passes by because nobody knows what it is."""
    for block in (each for found in ALL.values() for each in found):
        assert block.language in LANGUAGES, block


def test_what_is_not_run_says_why() -> None:
    """With a reason; and remarks are spelled as they are read here."""
    for block in (each for found in ALL.values() for each in found):
        if block.remark:
            known = (NOT_RUN, RUN_WITH, re.compile("values of the chart"), re.compile(PRINTS))
            assert any(each.fullmatch(block.remark) for each in known), block


def test_commands_are_not_hidden_in_plain_blocks() -> None:
    """What can be typed is marked as such, so that it is run."""
    commands = re.compile(r"(\$ )?(mcp-session-proxy|curl|make|pip|python3?|npx|docker|kubectl|helm|sudo) ")
    for block in (each for found in ALL.values() for each in found):
        assert block.language or not commands.match(block.text), block


def test_programs_that_are_not_run_are_programs() -> None:
    """Python that needs somebody's account can at least be parsed."""
    for block in (each for found in ALL.values() for each in found):
        if block.language == "python":
            compile(block.text, str(block), "exec")


@pytest.mark.e2e
@pytest.mark.parametrize(
    "document",
    [path for path, found in ALL.items() if any(each.language in ("sh", "python") for each in found)],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_commands_and_programs(document: Path, tmp_path: Path) -> None:
    """Shell and Python blocks, in order, as somebody would who follows the page; they print what it says."""
    todo = [
        each
        for each in ALL[document]
        if each.language in ("sh", "python") or each.remark == PRINTS or FILE.match(each.text)
    ]
    todo = [each for each in todo if not NOT_RUN.fullmatch(each.remark)]
    if not todo:
        return
    with Reader(tmp_path) as reader:
        if not any("npx" in each.text for each in todo):
            reader.have_a_server()
        printed = ""
        for block in todo:
            if block.remark == PRINTS:
                assert printed.strip() == block.text.strip(), block
            elif (file := FILE.match(block.text)) is not None:
                reader.write(file[1], block.text)
            elif block.language == "sh":
                if "mcp-session-proxy serve" not in block.text and re.search(r":(8080|9090)", block.text):
                    reader.have_a_proxy()
                printed = reader.type(block.text)
            else:
                reader.have_a_proxy()
                with_what = RUN_WITH.fullmatch(block.remark)
                assert with_what is not None, f"{block}: which interpreter runs it?"
                printed = reader.run_python(block.text, interpreters()[with_what[1]])


@pytest.mark.parametrize("block", of("toml"))
def test_configuration(block: Block, tmp_path: Path) -> None:
    """TOML blocks are configuration files, or parts of one, that the program takes."""
    file = tmp_path / "proxy.toml"
    file.write_text(block.text)
    given = {"config": str(file)}
    if "upstream" not in tomllib.loads(block.text):
        given["upstream"] = "http://127.0.0.1:8000/mcp"
    load(given)


@pytest.mark.parametrize("block", of("json"))
def test_json(block: Block) -> None:
    """JSON blocks are JSON, each line by itself if there are several documents."""
    try:
        json.loads(block.text)
    except ValueError:
        for line in block.text.splitlines():
            json.loads(line)


@pytest.mark.e2e
@pytest.mark.parametrize("block", of("yaml"))
def test_yaml(block: Block, tmp_path: Path) -> None:
    """YAML blocks are what they look like: values of the chart, Kubernetes objects, a compose file."""
    documents = inside("yaml", text=block.text)
    if block.remark == "values of the chart":
        (values,) = documents
        assert "error" not in render(values)
    elif all("apiVersion" in each for each in documents):
        assert inside("kubernetes", KUBERNETES[-1], text=json.dumps(documents)) == []
    else:
        (tmp_path / "compose.yaml").write_text(block.text)
        assert compose_problems(tmp_path / "compose.yaml") == ""


@pytest.mark.e2e
@pytest.mark.parametrize("block", of("promql"))
def test_queries(block: Block, tmp_path: Path) -> None:
    """PromQL blocks are queries, one a line or one in all, over metrics that there are."""
    promtool = shutil.which("promtool")
    assert promtool is not None, "run `make envs`"
    rules = tmp_path / "rules.yml"

    def complaint(queries: list[str]) -> str:
        records = [{"record": f"block:{number}", "expr": query} for number, query in enumerate(queries)]
        rules.write_text(json.dumps({"groups": [{"name": "block", "rules": records}]}))
        checked = subprocess.run([promtool, "check", "rules", str(rules)], capture_output=True, text=True)
        return "" if checked.returncode == 0 else checked.stdout + checked.stderr

    lines = [line for line in block.text.splitlines() if line and not line.startswith("#")]
    assert complaint(lines) == "" or complaint([block.text]) == ""
    assert set(re.findall(r"\bmcp_session_proxy_\w+", block.text)) <= known_series()
