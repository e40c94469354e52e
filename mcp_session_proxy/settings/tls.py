"""TLS towards the server and towards clients: contexts made from the files of the configuration.

Who uses them is the business of the transport, the pass-through, the monitor and the listener. Both
sides speak TLS 1.2 or newer.
"""

import ssl
import time
from pathlib import Path
from typing import Final

from .config import Settings
from .sources import ConfigError

_LEAST: Final = ssl.TLSVersion.TLSv1_2


def upstream_context(settings: Settings) -> ssl.SSLContext | None:
    """How the server's certificate is checked, and what is shown to it; None if the defaults do.

    Raises:
        ConfigError: a file cannot be read, or does not hold what it should.
    """
    if settings.upstream_ca is None and settings.upstream_cert is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = _LEAST
    if settings.upstream_ca is None:
        context.load_default_certs()
    else:
        _trust(context, settings.upstream_ca, "--upstream-ca")
    if settings.upstream_cert is not None and settings.upstream_key is not None:
        _show(context, settings.upstream_cert, settings.upstream_key, "--upstream-cert", "--upstream-key")
    return context


def listener_context(settings: Settings) -> ssl.SSLContext | None:
    """What clients are shown, and asked for; None if they connect without TLS.

    Raises:
        ConfigError: a file cannot be read, or does not hold what it should.
    """
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _LEAST
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_RENEGOTIATION  # in TLS 1.2 each costs as much as a connection
    _show(context, settings.tls_cert, settings.tls_key, "--tls-cert", "--tls-key")
    if settings.tls_client_ca is not None:
        _trust(context, settings.tls_client_ca, "--tls-client-ca")
        context.verify_mode = ssl.CERT_REQUIRED
        # A session that is taken up again is not verified again. For TLS 1.2 see RenewableContext.
        context.num_tickets = 0
    return context


def peer_listener_context(settings: Settings) -> ssl.SSLContext | None:
    """What other members are shown, and asked for; None if they speak without TLS.

    Raises:
        ConfigError: a file cannot be read, or does not hold what it should.
    """
    if settings.peer_ca is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.verify_mode = ssl.CERT_REQUIRED
    context.num_tickets = 0  # as for clients
    return _between_members(context, settings)


def peer_context(settings: Settings) -> ssl.SSLContext | None:
    """How other members are spoken to, likewise. They are called by the host in their URL.

    Raises:
        ConfigError: a file cannot be read, or does not hold what it should.
    """
    if settings.peer_ca is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["http/1.1"])
    return _between_members(context, settings)


def _between_members(context: ssl.SSLContext, settings: Settings) -> ssl.SSLContext:
    """Both sides show what they have, and trust the same authorities."""
    context.minimum_version = _LEAST
    assert settings.peer_ca is not None
    _trust(context, settings.peer_ca, "--peer-ca")
    if settings.peer_cert is not None and settings.peer_key is not None:
        _show(context, settings.peer_cert, settings.peer_key, "--peer-cert", "--peer-key")
    elif settings.tls_cert is not None and settings.tls_key is not None:
        _show(context, settings.tls_cert, settings.tls_key, "--tls-cert", "--tls-key")
    return context


def renew_upstream(context: ssl.SSLContext, settings: Settings) -> None:
    """Read the files of a context of ``upstream_context`` again; what they hold counts for new connections.

    Authorities are only added: those that the context trusts already, it goes on trusting.

    Raises:
        ConfigError: a file cannot be read, or does not hold what it should; the rest may be read or not.
    """
    if settings.upstream_ca is not None:
        _trust(context, settings.upstream_ca, "--upstream-ca")
    if settings.upstream_cert is not None and settings.upstream_key is not None:
        _show(context, settings.upstream_cert, settings.upstream_key, "--upstream-cert", "--upstream-key")


class RenewableContext:
    """A listener's context, whose certificates can be replaced while it listens.

    Connections keep what they began with. Whether clients are asked for a certificate cannot change.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context
        self._current = context
        self._renewed_at = 0
        # Called at the beginning of every handshake, also of one that names no server.
        context.sni_callback = self._choose

    def renew(self, context: ssl.SSLContext) -> None:
        """Use the certificates of this other context for new connections."""
        self._current = context
        self._renewed_at = int(time.time())

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> int | None:
        if self.context.verify_mode is ssl.CERT_REQUIRED and connection.session_reused:
            session = connection.session
            if session is None or session.time <= self._renewed_at:
                return ssl.ALERT_DESCRIPTION_CERTIFICATE_UNKNOWN  # who was let in then may be unwelcome now
        connection.context = self._current
        return None


class Contexts:
    """The contexts of a running proxy: ``upstream``, ``listener``, ``peers`` to other members, and
    ``peer_listener`` for them; None where there is no need of one.

    Raises:
        ConfigError: a file cannot be read, or does not hold what it should.
    """

    def __init__(self, settings: Settings) -> None:
        self.upstream = upstream_context(settings)
        self.listener = listener_context(settings)
        self.peers = peer_context(settings)
        self.peer_listener = peer_listener_context(settings)
        self._listener = None if self.listener is None else RenewableContext(self.listener)
        self._peer_listener = None if self.peer_listener is None else RenewableContext(self.peer_listener)

    def renew(self, settings: Settings) -> None:
        """Read all files again; what they hold counts for new connections.

        Raises:
            ConfigError: a file cannot be read, or does not hold what it should; everything is as it was.
        """
        listener = listener_context(settings)
        peer_listener = peer_listener_context(settings)
        if self.upstream is not None:
            upstream_context(settings)  # may fail; the one in use must not be half renewed
            renew_upstream(self.upstream, settings)
        if self.peers is not None and peer_listener is not None:
            _between_members(self.peers, settings)
            assert self._peer_listener is not None
            self._peer_listener.renew(peer_listener)
        if self._listener is not None and listener is not None:
            self._listener.renew(listener)


def _trust(context: ssl.SSLContext, path: Path, option: str) -> None:
    _require_readable(path, option)
    try:
        context.load_verify_locations(cafile=path)
    except ssl.SSLError:
        raise ConfigError(f"{option}: {path} holds no certificates in PEM form") from None


def _show(context: ssl.SSLContext, cert: Path, key: Path, cert_option: str, key_option: str) -> None:
    _require_readable(cert, cert_option)
    _require_readable(key, key_option)
    try:
        # Without this, OpenSSL would stop the program and ask the terminal for a passphrase.
        context.load_cert_chain(cert, key, password=lambda: _no_passphrase(key, key_option))
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigError(f"{key_option}: {key} is not the key of the certificate {cert}") from None
        raise ConfigError(
            f"{cert_option}, {key_option}: {cert} and {key} hold no certificate and key in PEM form"
        ) from None


def _no_passphrase(key: Path, option: str) -> str:
    raise ConfigError(f"{option}: {key} is encrypted; give a key without a passphrase")


def _require_readable(path: Path, option: str) -> None:
    try:
        with path.open("rb"):
            return
    except OSError as error:
        raise ConfigError(f"{option}: {path} cannot be read: {error.strerror}") from None
