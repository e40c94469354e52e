"""What the code host reads: workflows, forms and the rest, by the tools that know them.

``actionlint`` is from a fork, as its wheels have the program in them; the others on the index fetch it from
elsewhere when they are installed, which not every machine may do.
"""

import re
import subprocess
from pathlib import Path

import pytest
from e2e.launch import TESTS, environment

ROOT = TESTS.parent
HOST = ROOT / ".github"
WORKFLOWS = sorted((HOST / "workflows").iterdir())
SCHEMAS = {
    "vendor.github-workflows": WORKFLOWS,
    "custom.github-workflows-require-timeout": WORKFLOWS,
    "vendor.dependabot": [HOST / "dependabot.yml"],
    "vendor.github-issue-config": [HOST / "ISSUE_TEMPLATE" / "config.yml"],
    "vendor.github-issue-forms": [HOST / "ISSUE_TEMPLATE" / f"{name}.yml" for name in ("bug", "idea")],
}
USES = re.compile(r"uses: (\S+?)@([0-9a-f]{40}) # (v\d+\.\d+\.\d+)$")


def run(tool: str, *arguments: str) -> tuple[int, str]:
    """A tool's exit status, and what it said."""
    command = [str(environment("release") / "bin" / tool), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.e2e
def test_actionlint() -> None:
    """The linter of workflows has nothing to say, and would say something of a wrong one."""
    status, said = run("actionlint", "-shellcheck=", "-pyflakes=", *map(str, WORKFLOWS))
    assert (status, said) == (0, "")


@pytest.mark.e2e
def test_actionlint_reads_them(tmp_path: Path) -> None:
    """A workflow that speaks of what there is not is wrong."""
    wrong = tmp_path / "wrong.yml"
    text = (HOST / "workflows" / "release.yml").read_text()
    wrong.write_text(text.replace("github.ref_name", "github.no_such_thing"))
    status, said = run("actionlint", "-shellcheck=", "-pyflakes=", str(wrong))
    assert status == 1
    assert "no_such_thing" in said


@pytest.mark.e2e
def test_zizmor() -> None:
    """Nothing that an attacker could use, by the strictest persona; and no exception is configured."""
    options = ("--offline", "--no-progress", "--no-config", "--persona=auditor", "--format=plain")
    status, said = run("zizmor", *options, str(HOST))
    assert status == 0, said


@pytest.mark.e2e
@pytest.mark.parametrize("schema", list(SCHEMAS))
def test_schemas(schema: str) -> None:
    """Each file is what the code host expects under its name."""
    checker = str(environment("deploy") / "bin" / "check-jsonschema")
    command = [checker, "--builtin-schema", schema, *map(str, SCHEMAS[schema])]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_actions_are_pinned() -> None:
    """By their commits, with the version beside it, and one action everywhere to the same one."""
    pins: dict[str, set[tuple[str, str]]] = {}
    for path in WORKFLOWS:
        for line in path.read_text().splitlines():
            if "uses:" in line:
                found = USES.search(line)
                assert found is not None, f"{path.name}: {line}"
                pins.setdefault(found[1], set()).add((found[2], found[3]))
    assert {name: pin for name, pin in pins.items() if len(pin) > 1} == {}


def test_workflows_run_what_everybody_runs() -> None:
    """Commands are targets of the Makefile, so that what fails there can be run here."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for path in WORKFLOWS:
        for command in re.findall(r"run: make ([a-z-]+)", path.read_text()):
            assert command in targets, f"{path.name}: make {command}"


def test_the_form_asks_for_what_helps() -> None:
    """A report of a bug has the configuration, what check says, and the log."""
    form = (HOST / "ISSUE_TEMPLATE" / "bug.yml").read_text()
    for wanted in ("mcp-session-proxy config show", "mcp-session-proxy check URL --json", "log"):
        assert wanted in form


def test_pre_commit_runs_make_check() -> None:
    """And nothing else: one command says whether a change may be committed."""
    config = (ROOT / ".pre-commit-config.yaml").read_text()
    assert re.findall(r"entry: (.*)", config) == ["make check"]
