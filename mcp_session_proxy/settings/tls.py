"""TLS contexts, for servers, clients and other members, made from the files of the configuration.

All of them take TLS 1.2 or newer.
"""

import ssl
import time
from pathlib import Path
from typing import Final

from .config import Settings
from .sources import ConfigError

_LEAST: Final = ssl.TLSVersion.TLSv1_2


def upstream_context(settings: Settings) -> ssl.SSLContext | None:
    """The context for connections to the server; None if the defaults are enough.

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
    """The context for connections of clients; None if they connect without TLS.

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
        # A TLS session that is resumed is not verified again, so none is offered. For TLS 1.2 see
        # RenewableContext.
        context.num_tickets = 0
    return context


def peer_listener_context(settings: Settings) -> ssl.SSLContext | None:
    """The context for connections of other members; None if they connect without TLS.

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
    """The context for connections to other members. Their certificates must name the host in their URL.

    Raises:
        ConfigError: a file cannot be read, or does not hold what it should.
    """
    if settings.peer_ca is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["http/1.1"])
    return _between_members(context, settings)


def _between_members(context: ssl.SSLContext, settings: Settings) -> ssl.SSLContext:
    """Set what is the same on both sides: the certificate to show, and the authorities to trust."""
    context.minimum_version = _LEAST
    assert settings.peer_ca is not None
    _trust(context, settings.peer_ca, "--peer-ca")
    if settings.peer_cert is not None and settings.peer_key is not None:
        _show(context, settings.peer_cert, settings.peer_key, "--peer-cert", "--peer-key")
    elif settings.tls_cert is not None and settings.tls_key is not None:
        _show(context, settings.tls_cert, settings.tls_key, "--tls-cert", "--tls-key")
    return context


def renew_upstream(context: ssl.SSLContext, settings: Settings) -> None:
    """Read the files of a context of ``upstream_context`` again, for new connections.

    Authorities are only added: the context goes on trusting those that it trusts already.

    Raises:
        ConfigError: a file cannot be read, or does not hold what it should; others may have been renewed.
    """
    if settings.upstream_ca is not None:
        _trust(context, settings.upstream_ca, "--upstream-ca")
    if settings.upstream_cert is not None and settings.upstream_key is not None:
        _show(context, settings.upstream_cert, settings.upstream_key, "--upstream-cert", "--upstream-key")


class RenewableContext:
    """A listener's context whose certificates can be replaced while it listens.

    Connections keep the certificate that they began with. Whether clients are asked for one cannot change.
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
                # It was verified by the former authorities, which may not be trusted any more.
                return ssl.ALERT_DESCRIPTION_CERTIFICATE_UNKNOWN
        connection.context = self._current
        return None


class Contexts:
    """The contexts of a running proxy: to the server, of its listener, to other members, of their listener.

    Each is None where none is needed.

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
        """Read all files again, for new connections.

        Raises:
            ConfigError: a file cannot be read, or does not hold what it should; nothing has changed.
        """
        listener = listener_context(settings)
        peer_listener = peer_listener_context(settings)
        if self.upstream is not None:
            upstream_context(settings)  # may fail, before the one in use is renewed in part
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
