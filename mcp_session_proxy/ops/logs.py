"""Log lines: how they are written, and the observer that writes one for each event.

Everything goes to standard error. What comes from outside (client names, error texts) cannot forge a
line or steer a terminal: characters that do not print are written as escapes.
"""

import logging
import sys
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, Final, TextIO

import msgspec

from ..events import Event, Level
from ..settings.config import LogFormat


@contextmanager
def _as_if_absent(module: str) -> Iterator[None]:
    """Whoever would load this module meanwhile is told that it is not installed."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]  # the import system's word for that
    try:
        yield
    finally:
        del sys.modules[module]


# Where rich is installed, structlog loads it to draw tracebacks. Here they are plain, and to load it takes a
# fifteenth of the start.
with _as_if_absent("rich"):
    import structlog

_SEVERITY: Final = {
    Level.DEBUG: logging.DEBUG,
    Level.INFO: logging.INFO,
    Level.WARNING: logging.WARNING,
    Level.ERROR: logging.ERROR,
}
_FIRST_KEYS: Final = ("timestamp", "level", "event")
_encode: Final = msgspec.json.Encoder(enc_hook=repr).encode

EventDict = MutableMapping[str, Any]
Writer = Callable[[Event], None]


def configure(level: Level, log_format: LogFormat, stream: TextIO | None = None) -> None:
    """Set up logging for the whole process: our events, and what libraries log, in the same form."""
    stream = stream or sys.stderr
    renderer = _console_renderer(stream) if _is_for_people(log_format, stream) else render_json
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        escape_values,
    ]
    structlog.configure(
        processors=[*shared, renderer],
        # Everything that comes here is written: EventLog has seen to the level, which may change.
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=structlog.WriteLoggerFactory(file=stream),
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
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
        log = getattr(structlog.get_logger(), kind.level.value)
        fields = kind.__struct_fields__

        def write(event: Event) -> None:
            log(kind.name, **_present({name: getattr(event, name) for name in fields}))

        return write


def _present(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields that say something; times to the microsecond, which is what they are good for."""
    return {
        name: round(value, 6) if isinstance(value, float) else value
        for name, value in fields.items()
        if value is not None
    }


def escape(text: str) -> str:
    """The same text with every character that does not print (line ends, terminal codes) as an escape."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text
    )


def escape_values(_logger: Any, _method: str, event_dict: EventDict) -> EventDict:
    """A structlog processor: ``escape`` for all texts. A traceback keeps its lines, indented."""
    for key, value in event_dict.items():
        if isinstance(value, str):
            if key == "exception":
                event_dict[key] = "\n".join(f"    {escape(line)}" for line in value.splitlines())
            else:
                event_dict[key] = escape(value)
    return event_dict


def render_json(_logger: Any, _method: str, event_dict: EventDict) -> str:
    """A structlog processor: one JSON object in one line, the fields that every line has in front."""
    first = {key: event_dict[key] for key in _FIRST_KEYS if key in event_dict}
    return _encode({**first, **event_dict}).decode()


def _console_renderer(stream: TextIO) -> structlog.dev.ConsoleRenderer:
    return structlog.dev.ConsoleRenderer(
        colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback, sort_keys=False
    )


def _is_for_people(log_format: LogFormat, stream: TextIO) -> bool:
    return log_format is LogFormat.CONSOLE or (log_format is LogFormat.AUTO and stream.isatty())
