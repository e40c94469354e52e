"""Checks tokens with their issuer's keys, by the library that does this well: PyJWT, of the extra ``jwt``."""

from typing import Final

import jwt

from .. import events
from ..events import Observer
from ..upstream.key_set import Key, KeySet, KeysUnavailable

_ALGORITHMS: Final = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA"),
)


class Verifier:
    """Checks signature, ``exp``, ``nbf`` and, where given, issuer and audience (RFC 7519, section 4.1).

    Clocks are taken to agree: a token of which the server thinks otherwise counts by its bytes for that time.
    """

    def __init__(self, keys: KeySet, *, issuer: str | None, audience: str | None, observe: Observer) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._observe = observe
        self._told = False

    async def accepts(self, authorization: str) -> bool:
        """Whether the token in this header is good; never where the keys cannot be had."""
        token = authorization.partition(" ")[2].strip()
        try:
            header = jwt.get_unverified_header(token)
            keys = await self._keys.find(header.get("kid"))
        except jwt.PyJWTError:
            return False
        except KeysUnavailable as error:
            if not self._told:
                self._told = True
                self._observe(events.KeysMissing(problem=str(error)))
            return False
        self._told = False
        return any(self._is_signed_with(key, header["alg"], token) for key in keys)

    def _is_signed_with(self, key: Key, algorithm: str, token: str) -> bool:
        try:
            jwt.decode(
                token,
                jwt.PyJWK(dict(key), algorithm=key.get("alg", algorithm)),
                algorithms=list(_ALGORITHMS),
                issuer=self._issuer,
                audience=self._audience,
                options={"verify_aud": self._audience is not None, "verify_iat": False},
            )
        except (jwt.PyJWTError, ValueError, TypeError):
            return False
        return True
