"""The options of proxies that share a store, on one machine or many. Part of ``config.Settings``."""

import hashlib
import os
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from pydantic import BaseModel, BeforeValidator, ConfigDict, SecretStr

from ..store.address import StoreAddress
from ..store.cluster_key import BadClusterKey, read_cluster_key
from .kinds import Group, OptionalPath
from .sources import ConfigError
from .values import Form, show, show_secret

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_DIGEST_BYTES: Final = 8
# More than any file of keys has. A device that is read has no end.
_KEY_FILE_BYTES: Final = 65536
# What the extra has.
_VALKEY: Final = ("redis", "cryptography")


def _parse_store(value: object) -> StoreAddress | None:
    return None if value in (None, "") else StoreAddress.parse(value)


def _parse_name(value: object) -> str | None:
    if value in (None, ""):
        return None
    if not isinstance(value, str) or _NAME.fullmatch(value) is None:
        raise ValueError("must be a name of at most 64 letters, digits, dots, dashes and underscores")
    return value


def _parse_key(value: object) -> SecretStr | None:
    if value in (None, ""):
        return None
    text = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
    # Most ways to set a variable take one line, so blanks separate keys as well.
    text = "\n".join(text.split())
    try:
        read_cluster_key(text)
    except BadClusterKey:
        raise ValueError("must be keys of 64 hex digits each (try: openssl rand -hex 32)") from None
    return SecretStr(text)


Store = Annotated[StoreAddress | None, BeforeValidator(_parse_store), Form("URL", show)]
ClusterName = Annotated[str | None, BeforeValidator(_parse_name), Form("NAME", show)]
ClusterKey = Annotated[SecretStr | None, BeforeValidator(_parse_key), Form("KEY", show_secret)]


class ClusterSettings(BaseModel):
    """The part of the settings that is about a store that several proxies may share."""

    # Only the whole is ever made.
    model_config = ConfigDict(defer_build=True)

    store: Annotated[Store, Group.CLUSTER] = None
    """A Valkey, or a Redis from 6.2 on, in which sessions outlive the proxy and its machine:
    valkey://HOST:PORT/DATABASE (or redis://), valkeys:// (or rediss://) for TLS, unix:///PATH, or
    sentinel://HOST1,HOST2/NAME. It may hold a user and a password, then better given as a variable or in the
    file; after a question mark, ssl_ca_certs, ssl_certfile and ssl_keyfile name files for TLS. It has to
    answer when the proxy starts. Needs the extra valkey (pip install 'mcp-session-proxy[valkey]')."""

    cluster: Annotated[ClusterName, Group.CLUSTER] = None
    """Which proxies belong together in one store: those with the same name, which have the same server behind
    them. Those whose options tell callers apart in another way are by themselves, whatever their name."""

    cluster_key_file: Annotated[OptionalPath, Group.CLUSTER] = None
    """A file with the key that seals what is stored, the same for all proxies of a cluster: 64 hex digits
    (openssl rand -hex 32). With several lines the first seals and all of them open, so that keys can be
    changed: add the new one below, then move it to the top, then leave the old one out."""

    cluster_key: Annotated[ClusterKey, Group.CLUSTER] = None
    """The same without a file: keys parted by blanks. Better given as a variable than as a flag: other users
    of the machine can read flags."""

    def cluster_conflicts(self) -> Iterator[tuple[str, str]]:
        """Options that need others, each with the end of a sentence that says so."""
        if self.store is None:
            for name in ("cluster", "cluster_key_file", "cluster_key"):
                if getattr(self, name) is not None:
                    yield name, "needs --store"
            return
        if not all(map(find_spec, _VALKEY)):
            yield "store", "needs the extra valkey: pip install 'mcp-session-proxy[valkey]'"
        if self.cluster is None:
            yield "store", "needs --cluster NAME, which says what proxies belong together there"
        if self.cluster_key_file is None and self.cluster_key is None:
            yield (
                "store",
                "needs --cluster-key-file FILE, or MCP_SESSION_PROXY_CLUSTER_KEY: what is stored is sealed",
            )
        if self.cluster_key_file is not None and self.cluster_key is not None:
            yield "cluster_key", "must not be given together with --cluster-key-file"


def cluster_keys(settings: ClusterSettings) -> tuple[bytes, ...]:
    """The keys of the cluster, of which the first seals; none without a store.

    Raises:
        ConfigError: the file cannot be read, or holds something else.
    """
    if settings.cluster_key is not None:
        return read_cluster_key(settings.cluster_key.get_secret_value())
    if settings.cluster_key_file is None:
        return ()
    path = settings.cluster_key_file
    try:
        return read_cluster_key(_read_start(path))
    except OSError as error:
        raise ConfigError(f"--cluster-key-file: {path} cannot be read: {error.strerror}") from None
    except BadClusterKey as error:
        raise ConfigError(f"--cluster-key-file: {path}: {error}") from None


def _read_start(path: Path) -> str:
    # The path may be that of a pipe, which must not be waited for.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        return file.read(_KEY_FILE_BYTES).decode("ascii", errors="replace")


def check_cluster_key(settings: ClusterSettings) -> None:
    """Whether the key can be read. Raises ConfigError."""
    cluster_keys(settings)


def namespace_of(settings: Any) -> str:
    """The name of a cluster in its store: its own, and a digest of the options that tell callers apart.

    Proxies that differ in these options would take one caller for another, so they must not share records.
    """
    said = [
        settings.endpoint_path,
        sorted(name.lower() for name in settings.credential_header),
        settings.credential_query,
        [name.lower() for name in settings.affinity_header],
        settings.affinity_meta,
        settings.anonymous,
        settings.token_identity,
        sorted(settings.identity_claims),
        sorted(each.header.lower() for each in settings.stdio_env_from_header),
    ]
    digest = hashlib.blake2b(msgspec.json.encode(said), digest_size=_DIGEST_BYTES).hexdigest()
    return f"{settings.cluster}.{digest}"
