"""What a token claims, and which ones claim nothing."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from token_server import AUDIENCE, ISSUER, encode, token, unsigned

from mcp_session_proxy.bounds import TOKEN_BYTES
from mcp_session_proxy.protocol.tokens import damage, read_claims


def identity(text: str, names: tuple[str, ...] = ("iss", "sub", "aud")) -> bytes | None:
    claims = read_claims(f"Bearer {text}", names)
    return None if claims is None else claims.identity


def made_of(payload: object, header: object = None) -> str:
    return f"{encode({'alg': 'RS256'} if header is None else header)}.{encode(payload)}.c2ln"


def test_what_identifies() -> None:
    """Issuer and names count, what changes with each token does not."""
    claims = read_claims(f"Bearer {token('alice', exp=123)}", ("sub", "aud"))
    assert claims is not None
    assert claims.issuer == ISSUER
    assert json.loads(claims.identity) == {"iss": ISSUER, "sub": "alice", "aud": AUDIENCE}
    assert claims.expires_at == 123
    assert identity(token("alice")) == identity(token("alice")) != identity(token("bob"))


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer  "])
def test_the_scheme_has_no_case(scheme: str) -> None:
    """HTTP's schemes are written as one likes (RFC 9110, section 11.1)."""
    assert read_claims(f"{scheme} {token()}") is not None


def test_an_audience_has_no_order() -> None:
    """The same audiences in another order are the same."""
    assert identity(token(aud=["a", "b"])) == identity(token(aud=["b", "a"])) != identity(token(aud=["a"]))


def test_a_number_is_no_text() -> None:
    """Values of different types are different."""
    assert identity(token(aud=5)) != identity(token(aud="5"))


@pytest.mark.parametrize("name", ["sub", "client_id", "azp"])
def test_one_name_is_enough(name: str) -> None:
    """A token names a user, or a program."""
    more: dict[str, Any] = {name: "x"}
    assert identity(token(None, **more)) is not None


@pytest.mark.parametrize(
    "text",
    [
        token(None),
        token("  "),
        token(iss=None),
        token(iss=5),
        token(exp="tomorrow"),
        token(exp=True),
        unsigned(),
        token(alg="NONE"),
        "opaque",
        "a.b",
        "a.b.c.d.e",
        token().rpartition(".")[0] + ".",
        token() + ".more",
        token() + "?",
        made_of({"iss": "i", "sub": "s"}, {}),
        made_of([1]),
        made_of(b'{"iss":"i","sub":"a","sub":"b"}'),
        made_of(b'{"iss":"i","sub":"a","exp":NaN}'),
        made_of(b'{"iss":"i","sub":"a","exp":1e999}'),
        made_of(b'{"iss":"i","sub":"a","exp":' + b"9" * 1000 + b"}"),
        made_of(b'{"iss":"i","sub":"a","aud":' + b"[" * 30 + b"]" * 30 + b"}"),
        made_of(b'{"iss":"i","sub":"' + b"a" * TOKEN_BYTES + b'"}'),
        made_of(b"\xff"),
        made_of(b""),
    ],
)
def test_what_claims_nothing(text: str) -> None:
    """Whatever is no signed JWT that plainly names somebody counts by its bytes."""
    assert read_claims(f"Bearer {text}") is None


def test_other_schemes_claim_nothing() -> None:
    """A JWT that is no bearer token may be bound to something else."""
    assert read_claims(f"DPoP {token()}") is None
    assert read_claims(token()) is None


def test_a_damaged_token_differs_in_its_signature_alone() -> None:
    """What is left of it claims the same, and no byte of the signature is what it was by chance."""
    whole = f"Bearer {token()}"
    damaged = damage(whole)
    assert damaged.rpartition(".")[0] == whole.rpartition(".")[0]
    assert _signature(damaged) != _signature(whole)
    assert read_claims(damaged) == read_claims(whole)


def _signature(text: str) -> bytes:
    return base64.urlsafe_b64decode(text.rpartition(".")[2] + "==")


@given(st.text(max_size=200))
def test_any_text(text: str) -> None:
    """Whatever comes: claims or none, and no exception."""
    read_claims(f"Bearer {text}")


@given(st.binary(max_size=200), st.binary(max_size=200))
@pytest.mark.slow
def test_any_parts(header: bytes, payload: bytes) -> None:
    """The same for what looks like a token."""
    read_claims(f"Bearer {encode(header)}.{encode(payload)}.c2ln")
