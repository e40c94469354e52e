"""Everything that a revision's schema allows, as Hypothesis strategies, and the schema as a judge.

`mcp-types` describes each revision's messages by pydantic models. From a model comes a strategy for JSON
values that it accepts: all required members, any of the optional ones, and now and then one nobody knows.
"""

import json
import types
import typing
from functools import cache
from typing import Any, Literal, Union

from annotated_types import Ge, Le, MaxLen
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from mcp_types import methods
from pydantic import BaseModel, TypeAdapter

LEGACY = "2025-11-25"
MODERN = "2026-07-28"
_MAX_SAFE = 2**53 - 1

numbers = st.floats(allow_nan=False, allow_infinity=False, width=32)
integers = st.integers(-_MAX_SAFE, _MAX_SAFE)
scalars = st.none() | st.booleans() | integers | numbers | st.text(max_size=8)
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
json_objects = st.dictionaries(st.text(max_size=8), json_values, max_size=3)


def results_of(method: str) -> SearchStrategy[dict[str, Any]]:
    """Results of a server that speaks the latest legacy revision."""
    return values_of(methods.SERVER_RESULTS[method, LEGACY])


def questions_of(method: str) -> SearchStrategy[dict[str, Any]]:
    """What such a server may ask: `method` and perhaps `params`."""
    return values_of(methods.SERVER_REQUESTS[method, LEGACY]).map(_without_envelope)


def notifications_of(method: str) -> SearchStrategy[dict[str, Any]]:
    """Notifications of such a server: `method` and perhaps `params`."""
    return values_of(methods.SERVER_NOTIFICATIONS[method, LEGACY]).map(_without_envelope)


def requests_of(method: str) -> SearchStrategy[dict[str, Any]]:
    """Requests of a modern client: `method` and `params`."""
    return values_of(methods.CLIENT_REQUESTS[method, MODERN]).map(_without_envelope)


def _without_envelope(message: dict[str, Any]) -> dict[str, Any]:
    return {name: message[name] for name in ("method", "params") if name in message}


@cache
def judge(annotation: Any) -> TypeAdapter[Any]:
    """A validator; it raises pydantic's ValidationError."""
    return TypeAdapter(annotation)


def assert_result(method: str, result: bytes | dict[str, Any], version: str = MODERN) -> dict[str, Any]:
    """Fail unless this is a result that the revision's schema allows; the result as JSON."""
    value: dict[str, Any] = json.loads(result) if isinstance(result, bytes) else result
    judge(methods.SERVER_RESULTS[method, version]).validate_python(value)
    return value


def assert_notification(message: dict[str, Any]) -> None:
    """Fail unless a modern client may be sent this notification."""
    whole = {"jsonrpc": "2.0", **message}
    judge(methods.SERVER_NOTIFICATIONS[message["method"], MODERN]).validate_python(whole)


def assert_legacy_request(method: str, params: dict[str, Any] | None) -> None:
    """Fail unless a legacy server may be sent this request."""
    whole = {"jsonrpc": "2.0", "id": 1, "method": method}
    if params is not None:
        whole["params"] = params
    judge(methods.CLIENT_REQUESTS[method, LEGACY]).validate_python(whole)


# -- strategies --------------------------------------------------------------------------------------


def values_of(annotation: Any, constraints: tuple[Any, ...] = ()) -> SearchStrategy[Any]:
    """JSON values that a type accepts."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        inner, *more = typing.get_args(annotation)
        return values_of(inner, (*more, *constraints))
    if origin is Literal:
        return st.sampled_from(typing.get_args(annotation))
    if origin in (Union, types.UnionType):
        return st.one_of([values_of(arm, constraints) for arm in typing.get_args(annotation)])
    if origin is list:
        longest = min([c.max_length for c in constraints if isinstance(c, MaxLen)], default=3)
        return st.lists(values_of(*typing.get_args(annotation)), max_size=min(longest, 3))
    if origin is dict:
        return st.dictionaries(st.text(max_size=8), values_of(typing.get_args(annotation)[1]), max_size=2)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return _model(annotation)
    return _plain(annotation, constraints)


def _plain(annotation: Any, constraints: tuple[Any, ...]) -> SearchStrategy[Any]:
    low: Any = next((c.ge for c in constraints if isinstance(c, Ge)), None)
    high: Any = next((c.le for c in constraints if isinstance(c, Le)), None)
    if annotation is int:
        return st.integers(-_MAX_SAFE if low is None else int(low), _MAX_SAFE if high is None else int(high))
    if annotation is float:
        return st.floats(low, high, allow_nan=False, allow_infinity=False)
    simple = {str: st.text(max_size=12), bool: st.booleans(), type(None): st.none()}
    return simple.get(annotation, json_values)  # Any, and the alias of any JSON


@cache
def _model(model: type[BaseModel]) -> SearchStrategy[dict[str, Any]]:
    return st.deferred(lambda: _members(model))


@cache
def _members(model: type[BaseModel]) -> SearchStrategy[dict[str, Any]]:
    required: dict[str, SearchStrategy[Any]] = {}
    optional: dict[str, SearchStrategy[Any]] = {}
    for name, field in model.model_fields.items():
        constraints = tuple(field.metadata)
        if field.is_required():
            required[field.alias or name] = values_of(field.annotation, constraints)
        else:
            optional[field.alias or name] = values_of(_given(field.annotation), constraints)
    optional["x-unknown"] = json_values
    return st.fixed_dictionaries(required, optional=optional)


def _given(annotation: Any) -> Any:
    """An optional member's type when it is there: not null."""
    if typing.get_origin(annotation) not in (Union, types.UnionType):
        return annotation
    arms = [arm for arm in typing.get_args(annotation) if arm is not type(None)]
    return Union[tuple(arms)]  # noqa: UP007
