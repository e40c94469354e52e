"""Hosts of one test: network namespaces on one switch, between which packets can be lost. Needs root.

What a host sends to another one is lost where it believes that the other has a hardware address that nobody
has. So each direction is lost by itself, silently, as in a network that falls apart, and needs no more of the
system than namespaces, cables (veth) and a switch (bridge). Connections that there are stay and hear nothing.
"""

import contextlib
import ipaddress
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Self

_PREFIX = "msp"
_NOBODY = "02:00:00:00:00:01"
_INSIDE = "eth0"


def _ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def why_not() -> str | None:
    """Why there can be no such network here; None if there can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "network namespaces need Linux and root"
    if shutil.which("ip") is None:
        return "network namespaces need iproute2"
    try:
        with Network() as network:
            network.add("trial")
    except OSError as error:
        return f"no network namespaces here: {error}"
    return None


class Host:
    """One namespace, with one address. ``prefix`` is the command that begins another one there."""

    def __init__(self, namespace: str, cable: str, address: str) -> None:
        self.namespace = namespace
        self.cable = cable
        self.address = address
        self.prefix = ["ip", "netns", "exec", namespace]

    def __repr__(self) -> str:
        return f"<Host {self.namespace} {self.address}>"


class Network:
    """A switch, and the hosts on it. The test itself is at ``outside``, and reaches all of them."""

    def __init__(self) -> None:
        # By the process, so that what one leaves behind that was killed can be told from what is in use.
        self._name = f"{_PREFIX}{os.getpid():x}"
        self._net = _unused_net()
        self.outside = str(self._net[1])
        self._hosts: list[Host] = []
        self._lost: set[tuple[Host, str]] = set()

    def __enter__(self) -> Self:
        clear_away()
        try:
            _ip("link", "add", self._name, "type", "bridge")
            _ip("addr", "add", f"{self.outside}/{self._net.prefixlen}", "dev", self._name)
            _ip("link", "set", self._name, "up")
        except OSError:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Take all of it away; whatever runs in it should have ended."""
        _remove(self._name)

    def add(self, name: str) -> Host:
        """One more host. Raises OSError."""
        number = len(self._hosts)
        host = Host(f"{self._name}-{name}", f"{self._name}-{number}", str(self._net[10 + number]))
        _ip("netns", "add", host.namespace)
        self._hosts.append(host)
        _ip("link", "add", host.cable, "type", "veth", "peer", "name", _INSIDE, "netns", host.namespace)
        _ip("link", "set", host.cable, "master", self._name, "up")
        _ip("-n", host.namespace, "addr", "add", f"{host.address}/{self._net.prefixlen}", "dev", _INSIDE)
        for device in ("lo", _INSIDE):
            _ip("-n", host.namespace, "link", "set", device, "up")
        return host

    # -- what goes wrong -----------------------------------------------------------------------------

    def lose(self, sender: Host, receiver: Host) -> None:
        """From now on, what the one sends to the other is lost."""
        words = (receiver.address, "lladdr", _NOBODY, "dev", _INSIDE, "nud", "permanent")
        _ip("-n", sender.namespace, "neigh", "replace", *words)
        self._lost.add((sender, receiver.address))

    def cut(self, one: Host, *others: Host) -> None:
        """Nothing passes between them."""
        for other in others:
            self.lose(one, other)
            self.lose(other, one)

    def unplug(self, host: Host) -> None:
        """Its cable is pulled out at the switch."""
        _ip("link", "set", host.cable, "down")

    def plug(self, host: Host) -> None:
        """And put in again."""
        _ip("link", "set", host.cable, "up")

    def mend(self) -> None:
        """Everything passes again."""
        for sender, address in self._lost:
            _ip("-n", sender.namespace, "neigh", "del", address, "dev", _INSIDE)
        self._lost.clear()
        for host in self._hosts:
            self.plug(host)


def _unused_net() -> ipaddress.IPv4Network:
    """Addresses that nobody on this machine has."""
    told = json.loads(_ip("-json", "-4", "address"))
    taken = [
        ipaddress.ip_network(f"{each['local']}/{each['prefixlen']}", strict=False)
        for device in told
        for each in device.get("addr_info", ())
    ]
    while True:
        net = ipaddress.IPv4Network(f"10.{random.randrange(200, 250)}.{random.randrange(256)}.0/24")
        if not any(net.overlaps(other) for other in taken):
            return net


def clear_away() -> None:
    """Remove the networks of tests that were killed."""
    with contextlib.suppress(OSError):
        found = {line.split()[0].partition("-")[0] for line in _ip("netns", "list").splitlines() if line}
        for name in found:
            if name.startswith(_PREFIX) and not _lives(name.removeprefix(_PREFIX)):
                _remove(name)


def _lives(pid: str) -> bool:
    try:
        return Path(f"/proc/{int(pid, 16)}").exists()
    except ValueError:
        return True  # not one of ours


def _remove(name: str) -> None:
    # With a namespace its end of a cable would go, too, but only after a while.
    with contextlib.suppress(OSError):
        for link in json.loads(_ip("-json", "link")):
            if link["ifname"].startswith(f"{name}-"):
                _ip("link", "delete", link["ifname"])
    with contextlib.suppress(OSError):
        for line in _ip("netns", "list").splitlines():
            namespace = line.split()[0] if line else ""
            if namespace.partition("-")[0] == name:
                _ip("netns", "delete", namespace)
    with contextlib.suppress(OSError):
        _ip("link", "delete", name)
