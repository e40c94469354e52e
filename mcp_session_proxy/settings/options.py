"""The settings model turned into what people read: one :class:`Option` each, for the help and the docs."""

import ast
import inspect
from collections.abc import Callable, Iterator
from enum import StrEnum
from functools import cache
from itertools import pairwise
from typing import Any, TypeVar

import msgspec
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from .config import Settings
from .kinds import Group, Live
from .sources import flag_name, key_name
from .values import Form, show

T = TypeVar("T")


class Option(msgspec.Struct, frozen=True, kw_only=True):
    """One option, as help texts speak of it."""

    field: str
    group: Group
    metavar: str
    default: str | None
    show: Callable[[Any], str]
    is_switch: bool
    is_list: bool
    is_live: bool

    @property
    def flag(self) -> str:
        """Its flag."""
        return flag_name(self.field)

    @property
    def text(self) -> str:
        """What it is for, in one line."""
        return _texts()[self.field]

    @property
    def key(self) -> str:
        """Its key in the file."""
        return key_name(self.field)

    @property
    def choices(self) -> list[str]:
        """The words that it can be, where they are few."""
        return self.metavar[1:-1].split(",") if self.metavar.startswith("{") else []


def options() -> list[Option]:
    """All options, by their groups, and in each in the order of the settings model."""
    found = [_option(field, info) for field, info in Settings.model_fields.items()]
    order = list(Group)
    return sorted(found, key=lambda option: order.index(option.group))


def _option(field: str, info: FieldInfo) -> Option:
    form = _find(info, Form)
    write = form.show if form else show
    return Option(
        field=field,
        group=_find(info, Group) or Group.LISTENING,
        metavar=form.metavar if form else _choices(info.annotation),
        default=None if field == "upstream" else write(_default(info)),
        show=write,
        is_switch=info.annotation is bool,
        is_list=isinstance(info.default, tuple),
        is_live=_find(info, Live) is not None,
    )


@cache
def _texts() -> dict[str, str]:
    """What stands below each option in the source of the settings model.

    Not pydantic's ``use_attribute_docstrings``, which reads the source whenever the model is imported: that
    takes a quarter of the time in which the proxy starts.
    """
    parts = [part for part in Settings.__mro__ if issubclass(part, BaseModel) and part is not BaseModel]
    return {field: text for part in parts for field, text in _documented(part)}


def _documented(part: type[BaseModel]) -> Iterator[tuple[str, str]]:
    (definition,) = ast.parse(inspect.getsource(part)).body
    assert isinstance(definition, ast.ClassDef)
    for field, below in pairwise(definition.body):
        match field, below:
            case ast.AnnAssign(target=ast.Name(name)), ast.Expr(ast.Constant(str(text))):
                yield name, " ".join(text.split())


def _default(info: FieldInfo) -> Any:
    """What it is where a URL is all that is given."""
    return info.get_default(call_default_factory=True, validated_data={})


def _find(info: FieldInfo, kind: type[T]) -> T | None:
    return next((item for item in info.metadata if isinstance(item, kind)), None)


def _choices(annotation: Any) -> str:
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return "{" + ",".join(annotation) + "}"
    return "BOOL"
