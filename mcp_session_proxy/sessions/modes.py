"""The operator's choices about who gets which session: the names only; the rules are in ``policy``."""

from enum import StrEnum


class Sharing(StrEnum):
    """How upstream sessions are shared among the client sessions of one principal."""

    HANDOVER = "handover"
    ISOLATED = "isolated"
    SHARED = "shared"
    FRESH = "fresh"


class Anonymous(StrEnum):
    """What callers get who show no credential at all."""

    POOL = "pool"
    ISOLATE = "isolate"


class UnknownSessionRule(StrEnum):
    """What happens to a session id that this proxy did not mint."""

    ADOPT = "adopt"
    REJECT = "reject"


class OnStop(StrEnum):
    """What becomes of upstream sessions when the proxy stops."""

    KEEP = "keep"
    END = "end"


class TokenIdentity(StrEnum):
    """What makes a token count as whoever it claims to speak for."""

    SERVER = "server"
    JWKS = "jwks"
    BYTES = "bytes"
