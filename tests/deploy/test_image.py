"""The image: its Dockerfile's steps, run one by one, and the program that comes out of them."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from e2e.launch import TESTS, Program, environment, program_environment, python

from . import dockerfile
from .room import Room, why_not

pytestmark = pytest.mark.e2e

ROOT = TESTS.parent
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
SERVER = str(TESTS / "servers" / "counter_server.py")
BASE_PATH = f"{sys.base_prefix}/bin:/usr/bin:/bin"
CLIENT = str(TESTS / "e2e" / "clients" / "mcp_v1.py")


@pytest.fixture(scope="module")
def stages() -> list[dockerfile.Stage]:
    """Build and final stage."""
    return dockerfile.read(DOCKERFILE)


def test_hadolint_finds_nothing() -> None:
    """The linter of Dockerfiles agrees, and would not have agreed to anything."""
    hadolint = str(environment("deploy") / "bin" / "hadolint")
    found = subprocess.run([hadolint, str(DOCKERFILE)], capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (0, "")
    worse = DOCKERFILE.read_text().replace('CMD ["serve"]', "CMD serve")
    assert subprocess.run([hadolint, "-"], input=worse, capture_output=True, text=True).returncode == 1


def test_hadolint_finds_nothing_with_a_command_inside() -> None:
    """Nor in the image that has a server inside, whose version is the one in the compose file."""
    file = DOCKERFILE.parent / "stdio" / "Dockerfile"
    hadolint = str(environment("deploy") / "bin" / "hadolint")
    found = subprocess.run([hadolint, str(file)], capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (0, "")
    package = next(word for word in file.read_text().split() if "server-everything@" in word)
    assert package in (DOCKERFILE.parent / "compose.yaml").read_text()


def test_what_is_copied_is_not_ignored(stages: list[dockerfile.Stage]) -> None:
    """The ignore file lets exactly those files in that the build copies, and they exist."""
    copied = {name for text in stages[0].all("COPY") for name in text.split()[:-1]}
    ignore = (DOCKERFILE.parent / "Dockerfile.dockerignore").read_text().splitlines()
    assert {line[1:] for line in ignore if line.startswith("!")} == copied
    assert all((ROOT / name).exists() for name in copied)


def test_it_runs_as_nobody_and_gets_signals(stages: list[dockerfile.Stage]) -> None:
    """A numeric user (Kubernetes can check it), exec forms (no shell in between), SIGTERM."""
    final = stages[-1]
    (user,) = final.all("USER")
    assert all(int(part) > 0 for part in user.split(":"))
    assert final.command("ENTRYPOINT") == ["mcp-session-proxy"]
    assert final.command("CMD") == ["serve"]
    assert final.all("STOPSIGNAL") == ["SIGTERM"]


@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
def test_the_steps_in_a_clean_room(stages: list[dockerfile.Stage], tmp_path: Path) -> None:
    """What the steps build serves a real client: as nobody, as process 1, on a file system that is read-only.

    The health check says so, and SIGTERM ends it with status 0.
    """
    build, final = stages
    built, running = tmp_path / "build", tmp_path / "final"
    built.mkdir()
    running.mkdir()
    with Room(built, own_network=False) as room:
        _be_the_base_image(room)
        _run_steps(room, build)
        with Room(running, own_network=True) as container:
            _be_the_base_image(container)
            _copy_from(room, container, final)
            container.freeze()
            _serve(container, final, tmp_path)


def _be_the_base_image(room: Room) -> None:
    """The image of Python has a `python` on its path that everybody may run."""
    program = room.files / sys.base_prefix.lstrip("/") / "bin" / "python"
    if not program.is_symlink():
        program.symlink_to(f"python{sys.version_info[0]}.{sys.version_info[1]}")
    room.open_to_all(Path(sys.base_prefix, "bin", "python"))


def _run_steps(room: Room, stage: dockerfile.Stage) -> None:
    """COPY and RUN, as written, from the working directory."""
    found = dockerfile.variables(stage, {**os.environ, "PATH": BASE_PATH, "EXTRAS": ""})
    (workdir,) = stage.all("WORKDIR")
    folder = room.files / workdir.lstrip("/")
    folder.mkdir(parents=True)
    for instruction, text in stage.steps:
        if instruction == "COPY":
            for name in text.split()[:-1]:
                _copy(ROOT / name, folder / name)
        elif instruction == "RUN":
            room.run(["/bin/sh", "-c", text], variables=found, cwd=workdir)


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    else:
        shutil.copy(source, target)


def _copy_from(room: Room, container: Room, stage: dockerfile.Stage) -> None:
    for text in stage.all("COPY"):
        assert text.startswith("--from=build ")
        source, target = (path.lstrip("/") for path in text.split()[1:])
        _copy(room.files / source, container.files / target)


def _serve(container: Room, stage: dockerfile.Stage, tmp_path: Path) -> None:
    found = dockerfile.variables(stage, {"PATH": BASE_PATH})
    (user,) = stage.all("USER")
    outside = program_environment(tmp_path / "home")
    quiet = outside | {"PYTHONDONTWRITEBYTECODE": "1"}
    log = tmp_path / "image.log"
    server = Program(
        name="server",
        command=[*container.nsenter(), python("mcp-1.30"), SERVER, "--port", "8000"],
        log=tmp_path / "server.log",
        environment=quiet,
    )
    server.start(lambda: True)
    try:
        with container.first_process(
            [*stage.command("ENTRYPOINT"), *stage.command("CMD"), "http://127.0.0.1:8000/mcp"],
            user=int(user.partition(":")[0]),
            variables=found,
            log=log,
        ) as first:
            _until(lambda: _passes(container, [*stage.healthcheck()], found), log)
            _until(lambda: _passes(container, _asking("/readyz"), found), log)
            status = Path(f"/proc/{first.pid}/status").read_text()
            assert f"Uid:\t{user.partition(':')[0]}" in status
            assert "CapEff:\t0000000000000000" in status
            plan = {"calls": [["increment", {}], ["increment", {}]], "connections": 2, "mode": "legacy"}
            command = [python("mcp-1.30"), CLIENT, "http://127.0.0.1:8080/mcp", "alice", json.dumps(plan)]
            answers = [each["answers"] for each in json.loads(container.run(command, variables=quiet))]
            assert answers == [["1", "2"], ["3", "4"]], "the second connection gets the first one's session"
            first.send(signal.SIGTERM)
            assert first.wait(60) == 0, log.read_text()
    finally:
        server.kill()


def _asking(path: str) -> list[str]:
    return ["python", "-c", f"import urllib.request as r; r.urlopen('http://127.0.0.1:9090{path}')"]


def _passes(container: Room, command: list[str], variables: dict[str, str]) -> bool:
    try:
        container.run(command, variables=variables)
    except AssertionError:
        return False
    return True


def _until(condition: object, log: Path, timeout_seconds: float = 120.0) -> None:
    assert callable(condition)
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
