"""Three proxies on one store, behind an nginx that sends each request to the next one, where one can stand.

Tests of modules that are marked ``at_three`` run at one proxy, and again at three (`conftest.py`). They get a
``Cluster`` instead of a ``Proxy``, and what they ask it is asked of all its members.
"""

import contextlib
import itertools
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import balancer
from key_value_server import KeyValueServer

from .launch import (
    Fleet,
    Program,
    Proxy,
    accepts_connections,
    environment,
    program_environment,
    unused_port,
)

MEMBERS = 3
KEY = "5e" * 32


@dataclass(kw_only=True)
class Cluster(Proxy):
    """Several proxies, and the balancer in front, whose URL is that of all. ``program`` is the balancer."""

    members: list[Proxy] = field(default_factory=list)

    def start(self, *, ready: bool = True) -> None:
        """Start all of them."""
        with ThreadPoolExecutor(len(self.members)) as workers:
            list(workers.map(lambda member: member.start(ready=ready), self.members))
        first = self.members[0]
        self.admin, path = first.admin, first.url.removeprefix(first.origin)
        home = Path(self.program.environment["HOME"])
        port = unused_port()
        addresses = [member.origin.removeprefix("http://") for member in self.members]
        self.program.command = balancer.command(home, f"127.0.0.1:{port}", addresses)
        self.program.start(lambda: accepts_connections(port))
        self.origin = f"http://127.0.0.1:{port}"
        self.url = self.origin + path

    def wait_ready(self, timeout_seconds: float = 30.0) -> None:
        """Wait until all of them are ready."""
        for member in self.members:
            member.wait_ready(timeout_seconds)

    def stop(self, timeout_seconds: float = 30.0) -> int:
        """SIGTERM to all of them; the highest exit status."""
        statuses = [member.stop(timeout_seconds) for member in self.members]
        self.program.kill()
        return max(statuses)

    def json(self, path: str) -> Any:
        """A document of the first member; its lists go on with those of the others."""
        documents = [member.json(path) for member in self.members]
        found = documents[0]
        for name, value in found.items():
            if isinstance(value, list):
                found[name] = [each for document in documents for each in document[name]]
        return found

    def metrics(self) -> dict[str, float]:
        """The sums of all members' samples."""
        sums: Counter[str] = Counter()
        for member in self.members:
            sums.update(member.metrics())
        return dict(sums)

    def forwards(self) -> float:
        """How many requests one member has answered for another."""
        return sum(n for name, n in self.metrics().items() if name.startswith("forwards_total"))


class Clusters:
    """All clusters of a test worker, on one store, each under a name of its own."""

    def __init__(self, fleet: Fleet, folder: Path) -> None:
        self._fleet = fleet
        self._shared: dict[str, Cluster] = {}
        self._names = itertools.count(1)
        self._stack = contextlib.ExitStack()
        for needed in ("nginx", "redis-server"):
            environment(needed)
        self._store = KeyValueServer(folder, "redis-server", maxclients=1000)
        self._store.start()
        self._stack.callback(self._store.close)
        self._key = folder / "cluster.key"
        self._key.write_text(f"{KEY}\n")

    def shared(self, kind: str) -> Cluster:
        """The worker's shared cluster before its shared server of this kind."""
        if kind not in self._shared:
            self._shared[kind] = cluster = self.new(self._fleet.server(kind).url)
            self._fleet.keep(cluster.program, *(member.program for member in cluster.members))
        return self._shared[kind]

    def new(self, upstream: str, *options: str) -> Cluster:
        """A cluster of the caller's own, with further options for its proxies."""
        cluster = self._make(upstream, *options)
        cluster.start()
        return cluster

    def _make(self, upstream: str, *options: str) -> Cluster:
        together = [
            *("--store", self._store.url, "--cluster", f"test-{next(self._names)}"),
            *("--cluster-key-file", str(self._key), "--peer-listen", "127.0.0.1:0"),
        ]
        members = [self._fleet.new_proxy(upstream, *together, *options, start=False) for _ in range(MEMBERS)]
        home = self._fleet.new_home("nginx")
        nginx = Program(
            name="nginx", command=[], log=home / "output.log", environment=program_environment(home)
        )
        self._fleet.add(nginx)
        return Cluster(program=nginx, announcement=home, upstream=upstream, members=members)

    def close(self) -> None:
        """End the clusters that are shared, and the store. Others end with their tests."""
        for cluster in self._shared.values():
            for program in (cluster.program, *(member.program for member in cluster.members)):
                program.kill()
        self._stack.close()
