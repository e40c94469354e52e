"""The options of how proxies that share a store reach each other. Part of ``config.Settings``."""

from collections.abc import Iterator, Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict
from yarl import URL

from .kinds import Group, OptionalListener, OptionalPath, PeerUrl
from .sources import flag_name
from .values import Address

_NEEDY = ("peer_url", "peer_ca", "peer_cert", "peer_key")


class PeerSettings(BaseModel):
    """The part of the settings that is about the listener for other members."""

    # Only the whole is ever made.
    model_config = ConfigDict(defer_build=True)

    peer_listen: Annotated[OptionalListener, Group.CLUSTER] = None
    """Where the other proxies on the same store connect, to send on what their clients send for callers whom
    this one serves. Proxies on one machine with one --state-dir need none: they meet on unix sockets there.
    Beyond loopback it needs --peer-ca, or --peer-plain."""

    peer_url: Annotated[PeerUrl, Group.CLUSTER] = None
    """Where they find it, if that is not --peer-listen itself: http://10.0.0.7:7946, or https:// with
    --peer-ca. Each proxy has its own; a balancer would not do. Needed where --peer-listen is every
    interface."""

    peer_ca: Annotated[OptionalPath, Group.CLUSTER] = None
    """The certificates of the authorities that the other proxies' certificates come from. With it they speak
    TLS to each other, and each shows its own: --peer-cert, or else --tls-cert. It has to be good for servers
    and for clients, and to name the host in --peer-url."""

    peer_cert: Annotated[OptionalPath, Group.CLUSTER] = None
    """The certificate to show to other proxies, in PEM form, if it is not that of --tls-cert."""

    peer_key: Annotated[OptionalPath, Group.CLUSTER] = None
    """The private key of --peer-cert, in PEM form, without a passphrase."""

    peer_plain: Annotated[bool, Group.CLUSTER] = False
    """Speak to other proxies beyond this machine without TLS. What they say to each other is signed, and is
    refused when it was changed or sent twice; but who can read it on its way reads credentials. For networks
    that encrypt by themselves."""

    def peer_conflicts(
        self, *, certified: bool, taken: Mapping[str, Address | None]
    ) -> Iterator[tuple[str, str]]:
        """Options that do not go together, each with the end of a sentence that says so.

        ``certified`` says whether there is a certificate for clients, ``taken`` are the other listeners, by
        their options.
        """
        listen = self.peer_listen
        if listen is None:
            for name in _NEEDY:
                if getattr(self, name) is not None:
                    yield name, "needs --peer-listen"
            return
        yield from self._peer_tls_conflicts(listen, certified=certified)
        if self.peer_url is None and not listen.host:
            yield (
                "peer_listen",
                "is every interface, so it needs --peer-url: where other proxies find this one",
            )
        if self.peer_url is not None and (URL(self.peer_url).scheme == "https") != (self.peer_ca is not None):
            yield "peer_url", "must be an https URL with --peer-ca, and an http URL without it"
        for name, address in taken.items():
            if address is not None and address.collides(listen):
                yield "peer_listen", f"must differ from {flag_name(name)}"

    def _peer_tls_conflicts(self, listen: Address, *, certified: bool) -> Iterator[tuple[str, str]]:
        for one, other in (("peer_cert", "peer_key"), ("peer_key", "peer_cert")):
            if getattr(self, one) is not None and getattr(self, other) is None:
                yield one, f"needs {flag_name(other)}"
        if self.peer_ca is not None:
            if not certified and self.peer_cert is None:
                yield "peer_ca", "needs --peer-cert and --peer-key, or --tls-cert and --tls-key"
            if self.peer_plain:
                yield "peer_plain", "must not be given together with --peer-ca"
        elif not listen.is_loopback and not self.peer_plain:
            yield (
                "peer_listen",
                (
                    "is reached from other machines, which would send credentials there in the clear; give "
                    "--peer-ca, or --peer-plain if the network encrypts by itself"
                ),
            )

    def peer_address(self, listening: Address) -> str:
        """The URL that other members are told, where the listener has this address."""
        if self.peer_url is not None:
            return self.peer_url
        return f"{'http' if self.peer_ca is None else 'https'}://{listening}"
