"""What a child finds in its environment."""

import pytest

from mcp_session_proxy.errors import BadRequest
from mcp_session_proxy.upstream.stdio.environment import Environment, hide
from mcp_session_proxy.upstream.transport import NOBODY, Caller

BASE = {"PATH": "/bin", "API_KEY": "operators"}
FROM_HEADER = Environment(given=BASE, from_headers=(("x-token", "TOKEN"),))


def caller(*headers: tuple[str, str]) -> Caller:
    return Caller(headers=headers)


def test_a_header_becomes_a_variable() -> None:
    """Whatever its case; several of one name are one value."""
    assert FROM_HEADER.of(caller(("X-TOKEN", "a"))) == {**BASE, "TOKEN": "a"}
    assert FROM_HEADER.of(caller(("x-token", "a"), ("X-Token", "b"))) == {**BASE, "TOKEN": "a, b"}


def test_without_the_header() -> None:
    """The variable is not there, or what the operator gave."""
    assert FROM_HEADER.of(NOBODY) == BASE
    default = Environment(given={"TOKEN": "shared"}, from_headers=(("x-token", "TOKEN"),))
    assert default.of(NOBODY) == {"TOKEN": "shared"}
    assert default.of(caller(("x-token", "own"))) == {"TOKEN": "own"}


def test_a_nul_in_a_header() -> None:
    """It cannot become a variable, and the message does not repeat it."""
    with pytest.raises(BadRequest, match="x-token holds a NUL") as caught:
        FROM_HEADER.of(caller(("x-token", "se\0cret")))
    assert "cret" not in str(caught.value)


def test_what_is_secret() -> None:
    """Callers' values, and the operator's by the names of their variables; not what may stand anywhere."""
    environment = Environment(
        given={"PATH": "/bin", "API_KEY": "operators", "LEVEL": "debug", "X_TOKEN": "abc"},
        from_headers=(("authorization", "AUTH"), ("x-level", "CALLERS_LEVEL")),
    )
    variables = environment.of(caller(("Authorization", "Bearer sesame"), ("X-Level", "verbose")))
    assert environment.secrets(variables) == ("Bearer sesame", "operators", "verbose", "sesame")


def test_secrets_are_hidden() -> None:
    """In full and where only the token itself is repeated."""
    secrets = ("Bearer sesame", "sesame")
    assert hide("got 'Bearer sesame', i.e. sesame", secrets) == "got '***', i.e. ***"


def test_nothing_is_shown() -> None:
    """Not even by whoever prints the object."""
    assert "operators" not in repr(FROM_HEADER)
