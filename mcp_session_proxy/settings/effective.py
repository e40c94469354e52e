"""``config show`` and ``config check``: every option with its value, and all that is wrong.

Secrets are masked by the forms of their options.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ssl import SSLContext
from typing import Any, Final, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .cluster import check_cluster_key
from .config import Settings, load
from .kinds import Group
from .options import Option, options
from .sources import ConfigError, Provenance, Source, origin
from .stdio import check_command
from .tls import listener_context, peer_context, upstream_context
from .values import show

# What checks that the files and programs that a configuration names are on this machine.
_LOOKS: Final[tuple[Callable[[Settings], SSLContext | None], ...]] = (
    listener_context,
    upstream_context,
    peer_context,
    check_command,
    check_cluster_key,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One option, its value without secrets, and where the value comes from."""

    option: Option
    value: Any
    origin: Provenance

    @property
    def text(self) -> str:
        """The value as people write it."""
        return self.option.show(self.value)

    @property
    def plain(self) -> Any:
        """The value as a TOML file or a JSON document would have it; nothing is None."""
        if isinstance(self.value, tuple):
            return [self.option.show((item,)) for item in self.value]
        is_itself = self.value is None or (isinstance(self.value, bool | int) and self.option.show is show)
        return self.value if is_itself else self.text


def collect(flags: Mapping[str, Any]) -> list[Row]:
    """Every option with its value, in the order of the settings model.

    Raises:
        ConfigError: the configuration is wrong.
    """
    settings = load(flags)
    given = settings.model_fields_set
    return [
        Row(
            option=option,
            value=getattr(settings, option.field),
            origin=origin(option.field, flags) if option.field in given else Provenance(Source.DEFAULT),
        )
        for option in options()
    ]


def problems(flags: Mapping[str, Any]) -> list[str]:
    """All that is wrong with the configuration and with the files that it names, a line for each."""
    try:
        settings = load(flags)
    except ConfigError as error:
        return str(error).splitlines()
    found = []
    for read in _LOOKS:
        try:
            read(settings)
        except ConfigError as error:
            found += str(error).splitlines()
    return found


def write(rows: Sequence[Row], stream: TextIO, *, as_json: bool) -> None:
    """Write the options as JSON, as a table on a terminal, or as aligned text elsewhere."""
    if as_json:
        json.dump({row.option.key: _entry(row) for row in rows}, stream, indent=2, ensure_ascii=False)
        stream.write("\n")
    elif stream.isatty():
        Console(file=stream).print(_table(rows))
    else:
        stream.writelines(f"{line}\n" for line in _lines(rows))


def _entry(row: Row) -> dict[str, Any]:
    return {"value": row.plain, "source": row.origin.source, "name": row.origin.name}


def _table(rows: Sequence[Row]) -> Table:
    table = Table(highlight=False)
    table.add_column("option", no_wrap=True)
    table.add_column("value", overflow="fold")
    table.add_column("from", overflow="fold")
    for group in Group:
        for row in rows:
            if row.option.group is group:
                # As Text, because brackets in a plain string would be markup.
                cells = [Text(cell) for cell in (row.option.key, row.text, _where(row))]
                table.add_row(*cells, style=None if row.origin.source is Source.DEFAULT else "bold")
        table.add_section()
    return table


def _lines(rows: Sequence[Row]) -> list[str]:
    """The value comes last, because only that can be long."""
    key_width = max(len(row.option.key) for row in rows)
    where_width = max(len(_where(row)) for row in rows)
    return [f"{row.option.key:<{key_width}}  {_where(row):<{where_width}}  {row.text}" for row in rows]


def _where(row: Row) -> str:
    return row.origin.name or row.origin.source
