"""Log lines: how they are written, and the observer that writes one for each event.

Everything goes to standard error. What comes from outside (client names, error texts) cannot forge a
line or steer a terminal: characters that do not print are written as escapes.
"""

import logging
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, TextIO, TypeAlias

import msgspec

from ..events import Event, Level
from ..settings.config import LogFormat

_SEVERITY: Final = {
    Level.DEBUG: logging.DEBUG,
    Level.INFO: logging.INFO,
    Level.WARNING: logging.WARNING,
    Level.ERROR: logging.ERROR,
}
_encode: Final = msgspec.json.Encoder(enc_hook=repr).encode

Entry: TypeAlias = dict[str, Any]  # its first keys are timestamp, level and event
Render: TypeAlias = Callable[[Entry], str]
Writer: TypeAlias = Callable[[Event], None]


class Lines:
    """Where log lines go, and what each looks like: one for the process, as there is one ``logging``.

    ``stream`` may be None: what standard error is at the time.
    """

    def __init__(self) -> None:
        self.stream: TextIO | None = None
        self.render: Render = render_json

    def make(self, level: str, event: str, fields: Mapping[str, Any]) -> str:
        """A line, without its end."""
        entry = {"timestamp": _now(), "level": level, "event": event, **fields}
        return self.render(escape_values(entry))

    def write(self, level: str, event: str, fields: Mapping[str, Any]) -> None:
        """Write a line, at once."""
        stream = self.stream or sys.stderr
        stream.write(self.make(level, event, fields) + "\n")
        stream.flush()


class _LibraryFormatter(logging.Formatter):
    """What libraries log, in the same form as events."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {"logger": record.name}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return _lines.make(record.levelname.lower(), record.getMessage(), fields)


def configure(level: Level, log_format: LogFormat, stream: TextIO | None = None) -> None:
    """Set up logging for the whole process: our events, and what libraries log, in the same form."""
    _lines.stream = stream = stream or sys.stderr
    _lines.render = _console_renderer(stream) if _is_for_people(log_format, stream) else render_json
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_LibraryFormatter())
    logging.basicConfig(handlers=[handler], force=True)
    hush_libraries(level)


def hush_libraries(level: Level) -> None:
    """Give libraries a hearing only when something is wrong; the events tell the rest."""
    logging.getLogger().setLevel(max(_SEVERITY[level], logging.WARNING))


class EventLog:
    """The observer that writes events as log lines; one below the level costs next to nothing."""

    def __init__(self, level: Level) -> None:
        self._threshold = _SEVERITY[level]

    def set_level(self, level: Level) -> None:
        """Write events of this level and above from now on; whoever has listeners must ask for new ones."""
        self._threshold = _SEVERITY[level]

    def listener(self, kind: type[Event], /) -> Writer | None:
        """What writes events of this kind, unless its level is filtered."""
        if _SEVERITY[kind.level] < self._threshold:
            return None
        level, name, fields = kind.level.value, kind.name, kind.__struct_fields__

        def write(event: Event) -> None:
            _lines.write(level, name, _present({field: getattr(event, field) for field in fields}))

        return write


def _present(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields that say something; times to the microsecond, which is what they are good for."""
    return {
        name: round(value, 6) if isinstance(value, float) else value
        for name, value in fields.items()
        if value is not None
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def escape(text: str) -> str:
    """The same text with every character that does not print (line ends, terminal codes) as an escape."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text
    )


def escape_values(entry: Entry) -> Entry:
    """``escape`` for all texts of an entry, in place. A traceback keeps its lines, indented."""
    for key, value in entry.items():
        if isinstance(value, str):
            if key == "exception":
                entry[key] = "\n".join(f"    {escape(line)}" for line in value.splitlines())
            else:
                entry[key] = escape(value)
    return entry


def render_json(entry: Entry) -> str:
    """One JSON object in one line."""
    return _encode(entry).decode()


def _console_renderer(stream: TextIO) -> Render:
    # For people alone: with it comes all that draws tables and tracebacks, which takes long to load.
    from structlog import dev

    renderer = dev.ConsoleRenderer(
        colors=stream.isatty(), exception_formatter=dev.plain_traceback, sort_keys=False
    )
    return lambda entry: str(renderer(None, entry["level"], entry))


def _is_for_people(log_format: LogFormat, stream: TextIO) -> bool:
    return log_format is LogFormat.CONSOLE or (log_format is LogFormat.AUTO and stream.isatty())


_lines: Final = Lines()
