"""Headers that repeat what the body says: read, decoded, compared."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from selection import examples
from wire_types import json_objects, json_values

from mcp_session_proxy.errors import HeaderMismatch
from mcp_session_proxy.protocol import mirroring
from mcp_session_proxy.protocol.mirroring import InvalidMarks, MirroredParam

SAFE = 2**53 - 1
REGION = MirroredParam("mcp-param-region", ("region",), "string")
COUNT = MirroredParam("mcp-param-count", ("count",), "integer")
DRY = MirroredParam("mcp-param-dry", ("options", "dry"), "boolean")


def encode(text: str) -> str:
    """What a careful client does with any value (basic/transports/streamable-http, "Value Encoding")."""
    plain = all(c == "\t" or "\x20" <= c <= "\x7e" for c in text) and text == text.strip()
    if plain and not (text.startswith("=?base64?") and text.endswith("?=")):
        return text
    return f"=?base64?{base64.b64encode(text.encode()).decode()}?="


def refused(*marks: MirroredParam, arguments: object, **headers: list[str]) -> bool:
    """Whether a call with these arguments and Mcp-Param headers is refused."""
    raw = None if arguments is None else json.dumps(arguments).encode()
    try:
        mirroring.check_params(marks, raw, {f"mcp-param-{name}": values for name, values in headers.items()})
    except HeaderMismatch:
        return True
    return False


def invalid(schema: object) -> bool:
    """Whether a schema's annotations are invalid."""
    try:
        mirroring.read_marks(schema)
    except InvalidMarks:
        return True
    return False


# -- values ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("us-west1", "us-west1"),
        ("=?base64?SGVsbG8sIOS4lueVjA==?=", "Hello, \u4e16\u754c"),
        ("=?base64?IHBhZGRlZCA=?=", " padded "),
        ("=?base64?bGluZTEKbGluZTI=?=", "line1\nline2"),
        ("=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?=", "=?base64?literal?="),
        ("=?base64?SGVsbG8=", "=?base64?SGVsbG8="),
        ("SGVsbG8=?=", "SGVsbG8=?="),
        ("=?BASE64?SGVsbG8=?=", "=?BASE64?SGVsbG8=?="),
        ("=?base64??=", ""),
        ("", ""),
    ],
)
def test_decoding(header: str, value: str) -> None:
    """The specification's own examples, and values that only look encoded."""
    assert mirroring.decode(header) == value


@pytest.mark.parametrize(
    "header",
    ["=?base64?SGVsbG8?=", "=?base64?SGVs!!!bG8=?=", "=?base64?/w==?=", "caf\u00e9", "a\x00b", "a\nb"],
)
def test_bad_encoding(header: str) -> None:
    """Bad padding, strange characters, bytes that are no text, and what no header may hold are refused."""
    with pytest.raises(HeaderMismatch):
        mirroring.decode(header)


@given(text=st.text())
def test_any_value_survives_the_way(text: str) -> None:
    """Whatever a client encodes by the rules is what comes out."""
    assert mirroring.decode(encode(text)) == text


# -- Mcp-Method and Mcp-Name -------------------------------------------------------------------------


def routing(method: str, params: dict[str, object], **headers: list[str]) -> None:
    raw = {name: json.dumps(value).encode() for name, value in params.items()}
    mirroring.check_routing(method, raw, lambda name: headers.get(name.lower().replace("-", "_"), []))


@pytest.mark.parametrize(
    ("method", "member"), [("tools/call", "name"), ("prompts/get", "name"), ("resources/read", "uri")]
)
@given(name=st.text(max_size=20))
@pytest.mark.slow
def test_any_name_can_be_routed(method: str, member: str, name: str) -> None:
    """Names and URIs are compared as the body has them, however they are encoded."""
    routing(method, {member: name}, mcp_method=[method], mcp_name=[encode(name)])
    with pytest.raises(HeaderMismatch):
        routing(method, {member: name + "x"}, mcp_method=[method], mcp_name=[encode(name)])


def test_routing_of_other_methods() -> None:
    """Other methods have no name, so the header is neither wanted nor looked at."""
    routing("tools/list", {}, mcp_method=["tools/list"])
    routing("tools/list", {"name": "a"}, mcp_method=[" tools/list\t"], mcp_name=["b", "c"])


@pytest.mark.parametrize(
    "headers",
    [
        {"mcp_name": ["t"]},
        {"mcp_method": ["tools/call"]},
        {"mcp_method": [], "mcp_name": ["t"]},
        {"mcp_method": ["TOOLS/CALL"], "mcp_name": ["t"]},
        {"mcp_method": ["tools/call", "tools/call"], "mcp_name": ["t"]},
        {"mcp_method": ["tools/call"], "mcp_name": ["t", "t"]},
        {"mcp_method": ["tools/call"], "mcp_name": ["T"]},
        {"mcp_method": ["tools/call"], "mcp_name": [""]},
        {"mcp_method": ["=?base64?dG9vbHMvY2FsbA==?="], "mcp_name": ["t"]},
    ],
)
def test_routing_headers_that_do_not_match(headers: dict[str, list[str]]) -> None:
    """A header that is missing, twice there, or says something else is refused; methods are never encoded."""
    with pytest.raises(HeaderMismatch):
        routing("tools/call", {"name": "t"}, **headers)


@pytest.mark.parametrize("name", [None, 3, ["t"]])
def test_a_name_that_is_no_string(name: object) -> None:
    """A body without a proper name matches no header."""
    with pytest.raises(HeaderMismatch):
        routing("tools/call", {"name": name}, mcp_method=["tools/call"], mcp_name=["null"])


# -- marks in schemas --------------------------------------------------------------------------------


def marked(kind: object = "string", name: object = "Region") -> dict[str, Any]:
    return {"type": kind, "x-mcp-header": name}


def test_marks_at_any_depth_of_properties() -> None:
    """Annotated parameters are found through properties, however deep, and only those."""
    schema = {
        "type": "object",
        "properties": {
            "region": marked(),
            "plain": {"type": "number"},
            "options": {
                "properties": {
                    "dry": marked("boolean", "Dry"),
                    "more": {"properties": {"n": marked("integer", "N")}},
                }
            },
        },
    }
    assert mirroring.read_marks(schema) == (
        REGION,
        DRY,
        MirroredParam("mcp-param-n", ("options", "more", "n"), "integer"),
    )


@pytest.mark.parametrize("name", ["", " ", "a b", "a:b", "\u00fc", "a\n", 3, None, True, ["a"], "a,b", "(a)"])
def test_header_names_are_tokens(name: object) -> None:
    """A header name that is no token makes the tool invalid."""
    assert invalid({"properties": {"p": marked(name=name)}})


@pytest.mark.parametrize("name", ["a", "X-Y_z", "!#$%&'*+-.^_`|~09"])
def test_any_token_is_a_header_name(name: str) -> None:
    """Every token character may stand in a header name."""
    assert (
        mirroring.read_marks({"properties": {"p": marked(name=name)}})[0].header
        == f"mcp-param-{name.lower()}"
    )


@pytest.mark.parametrize("kind", ["number", "object", "array", "null", None, ["string", "null"], "String"])
def test_only_simple_parameters_are_mirrored(kind: object) -> None:
    """Integers, strings and booleans are; numbers and everything else are not."""
    assert invalid({"properties": {"p": marked(kind)}})


def test_names_are_unique_without_regard_to_case() -> None:
    """Two parameters cannot share a header."""
    assert invalid(
        {"properties": {"a": marked(name="Region"), "b": {"properties": {"c": marked(name="REGION")}}}}
    )


@pytest.mark.parametrize(
    "schema",
    [
        marked(),
        {"items": marked()},
        {"properties": {"p": {"items": {"properties": {"q": marked()}}}}},
        {"properties": {"p": {"prefixItems": [marked()]}}},
        {"oneOf": [{"properties": {"p": marked()}}]},
        {"properties": {"p": {"anyOf": [marked(), {"type": "null"}]}}},
        {"allOf": [{"properties": {"p": marked()}}]},
        {"not": {"properties": {"p": marked()}}},
        {"if": {"properties": {"p": marked()}}},
        {"then": {"properties": {"p": marked()}}},
        {"else": {"properties": {"p": marked()}}},
        {"$defs": {"d": {"properties": {"p": marked()}}}},
        {"additionalProperties": marked()},
        {"patternProperties": {"^x": marked()}},
    ],
)
def test_marks_out_of_reach(schema: object) -> None:
    """An annotation that is not reached through properties alone makes the tool invalid."""
    assert invalid(schema)


@pytest.mark.parametrize("where", ["default", "const", "examples", "enum"])
def test_values_are_not_schemas(where: str) -> None:
    """What only looks like an annotation, inside a value, is none."""
    value = {"x-mcp-header": "not a token"}
    schema = {
        "properties": {"p": {"type": "object", where: [value] if where in ("examples", "enum") else value}}
    }
    assert mirroring.read_marks(schema) == ()


def test_a_property_with_the_name_of_the_annotation() -> None:
    """A parameter may be called like the annotation, or like a keyword."""
    schema = {
        "properties": {
            "x-mcp-header": {"type": "string"},
            "properties": marked(name="P"),
            "items": marked(name="I"),
        }
    }
    assert [mark.path for mark in mirroring.read_marks(schema)] == [("properties",), ("items",)]


def test_endless_schemas() -> None:
    """A schema that is nested too deeply is invalid rather than the end of us."""
    schema: dict[str, Any] = {}
    for _ in range(500):
        schema = {"properties": {"p": schema}}
    assert invalid(schema)


@given(schema=json_values | json_objects.map(lambda value: {"properties": value}))
@pytest.mark.slow
def test_any_json_can_be_read(schema: object) -> None:
    """Whatever a server calls a schema is either read or refused."""
    assert invalid(schema) in (True, False)


# -- Mcp-Param-* -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "headers", "is_refused"),
    [
        ({"region": "a"}, {"region": ["a"]}, False),
        ({"region": "a"}, {"region": [" a\t"]}, False),
        ({"region": "a"}, {"region": ["=?base64?YQ==?="]}, False),
        ({"region": "a"}, {"region": ["b"]}, True),
        ({"region": "a"}, {"region": ["A"]}, True),
        ({"region": "a"}, {"region": ["a", "a"]}, True),
        ({"region": "a"}, {"region": []}, True),
        ({"region": "a"}, {}, True),
        ({"region": "a"}, {"region": ["=?base64?YQ?="]}, True),
        ({"region": None}, {}, False),
        ({"region": None}, {"region": ["null"]}, True),
        ({}, {}, False),
        ({}, {"region": ["a"]}, True),
        (None, {}, False),
        (None, {"region": ["a"]}, True),
        ([], {}, False),
        ({"region": ""}, {"region": [""]}, False),
        ({"region": ["a"]}, {"region": ["a"]}, True),
        ({"region": {"a": 1}}, {"region": ["a"]}, True),
        ({"other": "a"}, {"unknown": ["x"]}, False),
    ],
)
def test_strings(arguments: object, headers: dict[str, list[str]], is_refused: bool) -> None:
    """The header says what the body says, and is there exactly when the body has the value."""
    assert refused(REGION, arguments=arguments, **headers) is is_refused


@pytest.mark.parametrize(
    ("value", "header", "is_refused"),
    [
        (42, "42", False),
        (42, "42.0", False),
        (42.0, "42", False),
        (-7, "-7", False),
        (0, "-0", False),
        (42, "43", True),
        (42, "", True),
        (42, "forty-two", True),
        (42, "nan", True),
        (SAFE, str(SAFE), False),
        (SAFE + 1, str(SAFE + 1), True),
        (True, "1", True),
        (True, "true", False),
        ("42", "42", False),
        ("42", "42.0", True),
    ],
)
def test_integers_are_compared_as_numbers(value: object, header: str, is_refused: bool) -> None:
    """An integer is the same however it is written, within what every client can represent."""
    assert refused(COUNT, arguments={"count": value}, count=[header]) is is_refused


@pytest.mark.parametrize(
    ("value", "header", "is_refused"),
    [
        (True, "true", False),
        (False, "false", False),
        (True, "True", True),
        (False, "0", True),
        (True, "false", True),
    ],
)
def test_booleans(value: bool, header: str, is_refused: bool) -> None:
    """Booleans are written in lower case; this one lies deeper in the arguments."""
    assert refused(DRY, arguments={"options": {"dry": value}}, dry=[header]) is is_refused


@pytest.mark.parametrize(
    "arguments", [{}, {"options": None}, {"options": 3}, {"options": {}}, {"options": [True]}]
)
def test_a_path_that_leads_nowhere(arguments: object) -> None:
    """Where the body has nothing at the annotated path, no header is expected."""
    assert not refused(DRY, arguments=arguments)


@settings(max_examples=examples(200))
@given(
    region=st.none() | st.text(max_size=10),
    count=st.none() | st.integers(-SAFE, SAFE),
    dry=st.none() | st.booleans(),
)
def test_a_careful_client_is_never_refused(region: str | None, count: int | None, dry: bool | None) -> None:
    """Whatever the arguments, headers made by the rules match; one of them changed does not."""
    arguments = {"region": region, "count": count, "options": {"dry": dry}}
    headers = {
        name: [encode(text)]
        for name, text in (
            ("region", region),
            ("count", None if count is None else str(count)),
            ("dry", None if dry is None else str(dry).lower()),
        )
        if text is not None
    }
    marks = (REGION, COUNT, DRY)
    assert not refused(*marks, arguments=arguments, **headers)
    for name, (value,) in headers.items():
        assert refused(*marks, arguments=arguments, **{**headers, name: [value + "5"]})
        assert refused(*marks, arguments=arguments, **{k: v for k, v in headers.items() if k != name})
