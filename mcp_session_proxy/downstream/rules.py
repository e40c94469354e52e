"""What the operator chose for the endpoint."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..protocol.revisions import ServedEras
from .hops import Network


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointRules:
    """All that the parts of the endpoint go by; each takes what concerns it."""

    max_body_bytes: int
    max_json_depth: int
    delete_status: int
    trusted_proxies: Sequence[Network] = ()
    eras: ServedEras = ServedEras.BOTH
    warn_of_anonymous: bool = False  # strangers can reach us, and would share sessions
