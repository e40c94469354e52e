"""The packages of a release: what is in them, and that the same commit gives the same ones."""

import re
import subprocess
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from e2e.launch import TESTS, environment

import mcp_session_proxy
from tools import distribution

pytestmark = pytest.mark.e2e

ROOT = TESTS.parent


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheel and the source distribution of the commit that is checked out."""
    environment("release")
    if not (ROOT / ".git").exists():
        pytest.skip("packages are built from a commit")
    return distribution.build(tmp_path_factory.mktemp("dist"))


def committed(*folders: str) -> set[str]:
    """The files of the commit, in these folders."""
    command = ["git", "ls-tree", "-r", "--name-only", "HEAD", *folders]
    return set(
        subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    ) - {""}


def test_wheel(packages: tuple[Path, Path]) -> None:
    """The package as it is committed, data files and all, what describes it, and nothing else."""
    wheel, _ = packages
    about = f"mcp_session_proxy-{mcp_session_proxy.__version__}.dist-info"
    described = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}
    with zipfile.ZipFile(wheel) as archive:
        assert set(archive.namelist()) == committed("mcp_session_proxy") | {
            f"{about}/{name}" for name in described
        }
        # It is a link in the project, and the page itself in the package.
        runbook = archive.read("mcp_session_proxy/ops/admin/page/runbook.md").decode()
    assert runbook == (ROOT / "docs" / "troubleshooting.md").read_text()


def test_sdist(packages: tuple[Path, Path]) -> None:
    """All that is needed to build, test and document it, and nothing of the machinery around it."""
    _, sdist = packages
    about = sdist.name.removesuffix(".tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.removeprefix(f"{about}/") for name in archive.getnames()}
    wanted = committed() - {
        name for name in committed() if name.startswith((".ci/", ".github/", ".pre-commit"))
    }
    assert names - {"PKG-INFO"} == wanted


def test_the_same_commit_gives_the_same_bytes(packages: tuple[Path, Path], tmp_path: Path) -> None:
    """Built again, elsewhere, both are the same to the last byte."""
    again = distribution.build(tmp_path)
    assert [path.name for path in again] == [path.name for path in packages]
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in packages]


def test_an_index_would_take_them(packages: tuple[Path, Path]) -> None:
    """By `twine check --strict` and `check-wheel-contents`."""
    distribution.look_at(*packages)


def test_every_python_that_is_declared_is_tested() -> None:
    """The classifiers name the Pythons of the workflow, from the oldest that will do."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = [each.rpartition(" ")[2] for each in project["classifiers"] if ":: Python :: 3." in each]
    workflow = (ROOT / ".github" / "workflows" / "tests.yml").read_text()
    (matrix,) = re.findall(r"python: \[(.*)\]", workflow)
    assert [f'"{each}"' for each in declared] == matrix.split(", ")
    assert project["requires-python"] == f">={declared[0]}"
