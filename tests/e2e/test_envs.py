"""The descriptions of the environments that the end-to-end tests run in."""

import json
import os
import re
from pathlib import Path

import pytest

from .launch import environment, install

FOLDERS = [path for path in sorted(install.SPECS.iterdir()) if (path / "requirements.txt").is_file()]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_specs_are_pinned(folder: Path) -> None:
    """Every package that a description names is pinned to one version; those of the newest, to the oldest."""
    lines = (folder / "requirements.txt").read_text().split()
    relation = ">=" if folder.name.startswith(install.NEWEST) else "=="
    assert lines
    assert all(re.fullmatch(rf"[\w.\[\]-]+{relation}[\w.]+", line) for line in lines)


def test_npm_packages_are_pinned() -> None:
    """Every npm package is pinned to one version, and there is no lock file (which would name a registry)."""
    folder = install.SPECS / "node"
    wanted = json.loads((folder / "package.json").read_text())["dependencies"]
    assert all(re.fullmatch(r"\d+\.\d+\.\d+(-[\w.]+)?", version) for version in wanted.values())
    assert {path.name for path in folder.iterdir()} == {"package.json", "requirements.txt"}


def test_the_installer_knows_every_description() -> None:
    """The installer's list and the folders next to it are the same, with Debian's packages besides."""
    known = sorted((*install.NAMES, *install.ON_DEMAND))
    assert known == sorted([folder.name for folder in FOLDERS] + list(install.DEBIAN))


def test_a_changed_description_means_another_stamp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment counts as installed only as long as its description is what it was built from."""
    specs, root = tmp_path / "specs", tmp_path / "root"
    (specs / "one").mkdir(parents=True)
    (root / "one").mkdir(parents=True)
    (specs / "one" / "requirements.txt").write_text("a==1\n")
    monkeypatch.setattr(install, "SPECS", specs)
    monkeypatch.setattr(install, "ROOT", root)
    assert not install.is_installed("one")
    (root / "one" / install.STAMP).write_text(install._spec_hash("one"))
    assert install.is_installed("one")
    (specs / "one" / "requirements.txt").write_text("a==2\n")
    assert not install.is_installed("one")


def test_the_newest_do_not_stay_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not pinned is installed anew after a while; what is, stays."""
    monkeypatch.setattr(install, "SPECS", tmp_path / "specs")
    monkeypatch.setattr(install, "ROOT", tmp_path / "root")
    for name in ("one", "newest-one"):
        (tmp_path / "specs" / name).mkdir(parents=True)
        (tmp_path / "root" / name).mkdir(parents=True)
        stamp = tmp_path / "root" / name / install.STAMP
        stamp.write_text(install._spec_hash(name))
        assert install.is_installed(name)
        os.utime(stamp, (0, 0))
    assert install.is_installed("one")
    assert not install.is_installed("newest-one")


def test_a_missing_environment_fails_its_tests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test whose environment is not installed fails, and says what to run."""
    monkeypatch.setattr(install, "ROOT", tmp_path)
    with pytest.raises(AssertionError, match="make envs"):
        environment("node")
