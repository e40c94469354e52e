"""Certificates for tests: an authority, what it issued, and files of both."""

import ssl
from pathlib import Path

import trustme


class Authority:
    """A certificate authority, and its certificates as files in a folder."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._ca = trustme.CA()
        self._folder = folder
        self.file = folder / f"{name}.pem"
        self._ca.cert_pem.write_to_path(self.file)

    def issue(self, name: str) -> tuple[Path, Path]:
        """The files of a new certificate for this name, and of its key."""
        leaf = self._ca.issue_cert(name, common_name=name)
        cert, key = self._folder / f"{name}-cert.pem", self._folder / f"{name}-key.pem"
        cert.unlink(missing_ok=True)
        for blob in leaf.cert_chain_pems:
            blob.write_to_path(cert, append=True)
        leaf.private_key_pem.write_to_path(key)
        return cert, key

    def server_context(self, *, wants_client: bool = False) -> ssl.SSLContext:
        """The context of a server on 127.0.0.1, which may want certificates of this authority's."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._ca.issue_cert("127.0.0.1").configure_cert(context)
        if wants_client:
            self._ca.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def client_context(self, identity: tuple[Path, Path] | None = None) -> ssl.SSLContext:
        """The context of a client that trusts this authority, and shows this certificate if it has one."""
        context = ssl.create_default_context(cafile=self.file)
        if identity is not None:
            context.load_cert_chain(*identity)
        return context
