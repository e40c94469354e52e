"""What the operator chose for the endpoint."""

from collections.abc import Sequence

import msgspec

from ..protocol.revisions import ServedEras
from .hops import Network


class EndpointRules(msgspec.Struct, frozen=True, kw_only=True):
    """All that the parts of the endpoint go by; each takes what concerns it."""

    max_body_bytes: int
    max_json_depth: int
    delete_status: int
    trusted_proxies: Sequence[Network] = ()
    eras: ServedEras = ServedEras.BOTH
    warn_of_anonymous: bool = False  # strangers can reach us, and would share sessions
