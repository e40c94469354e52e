import io
import json
import logging
import timeit

import msgspec
import pytest
import structlog

from mcp_session_proxy import events
from mcp_session_proxy.events import Level
from mcp_session_proxy.ops import logs
from mcp_session_proxy.ops.observers import Tee
from mcp_session_proxy.settings.config import LogFormat

CREATED = events.ClientSessionCreated(
    client="c1", session="s1", principal="p1", origin="minted", client_name="inspector"
)
FINISHED = events.RequestFinished(
    era="legacy",
    method="tools/call",
    outcome="ok",
    sessionless=False,
    seconds=0.0123456789,
    waited_seconds=None,
    upstream_seconds=None,
    request_id="r1",
    principal="p1",
    session="s1",
)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def _restore_logging():
    """Logging is the whole process's; leave it as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers = []  # so that pytest's own are not closed
    yield
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


def written(event, *, level=Level.INFO, log_format=LogFormat.JSON) -> str:
    """What the event log writes for an event."""
    stream = io.StringIO()
    logs.configure(level, log_format, stream)
    Tee(logs.EventLog(level))(event)
    return stream.getvalue()


class TestJson:
    def test_writes_the_event_with_its_fields(self):
        """One object in one line: time, level, event, and the event's own fields."""
        line = written(CREATED)
        assert line.count("\n") == 1
        entry = json.loads(line)
        assert list(entry)[:3] == ["timestamp", "level", "event"]
        assert entry.pop("timestamp").endswith("Z")
        assert entry == {
            "level": "info",
            "event": "client.created",
            "client": "c1",
            "session": "s1",
            "principal": "p1",
            "origin": "minted",
            "client_name": "inspector",
        }

    def test_leaves_out_what_says_nothing(self):
        """Fields without a value are not written, and times are rounded to the microsecond."""
        entry = json.loads(written(FINISHED, level=Level.DEBUG))
        assert "upstream_seconds" not in entry
        assert entry["seconds"] == 0.012346

    def test_writes_what_libraries_log_in_the_same_form(self):
        """A traceback of aiohttp's is a JSON line, too."""
        stream = io.StringIO()
        logs.configure(Level.INFO, LogFormat.JSON, stream)
        try:
            raise ValueError("odd")
        except ValueError:
            logging.getLogger("aiohttp.server").exception("unhandled %s", "thing")
        entry = json.loads(stream.getvalue())
        assert (entry["event"], entry["level"], entry["logger"]) == (
            "unhandled thing",
            "error",
            "aiohttp.server",
        )
        assert "ValueError: odd" in entry["exception"]


class TestConsole:
    def test_writes_for_people(self):
        """One readable line, without colours where there is no terminal."""
        line = written(CREATED, log_format=LogFormat.CONSOLE)
        assert "client.created" in line
        assert "client_name=inspector" in line
        assert "\x1b" not in line

    @pytest.mark.parametrize(("stream", "is_json"), [(io.StringIO(), True), (Terminal(), False)])
    def test_auto_looks_at_the_stream(self, stream, is_json):
        """People get words on their terminal, machines get JSON."""
        logs.configure(Level.INFO, LogFormat.AUTO, stream)
        Tee(logs.EventLog(Level.INFO))(CREATED)
        assert stream.getvalue().startswith("{") is is_json


class TestLevels:
    @pytest.mark.parametrize(("level", "is_written"), [(Level.DEBUG, True), (Level.INFO, False)])
    def test_filters(self, level, is_written):
        """Requests are logged at debug only."""
        assert bool(written(FINISHED, level=level)) is is_written

    def test_can_change(self):
        """A new level counts from the next event on, in both directions."""
        stream = io.StringIO()
        logs.configure(Level.INFO, LogFormat.JSON, stream)
        log = logs.EventLog(Level.INFO)
        for level in (Level.INFO, Level.DEBUG, Level.ERROR):
            log.set_level(level)
            Tee(log)(FINISHED)
            Tee(log)(CREATED)
        names = [json.loads(line)["event"] for line in stream.getvalue().splitlines()]
        assert names == ["client.created", "request.finished", "client.created"]

    def test_libraries_can_be_hushed(self):
        """At error, a library's warning is not heard."""
        stream = io.StringIO()
        logs.configure(Level.INFO, LogFormat.JSON, stream)
        logging.getLogger("aiohttp").warning("first")
        logs.hush_libraries(Level.ERROR)
        logging.getLogger("aiohttp").warning("second")
        assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["first"]

    def test_libraries_are_heard_only_when_something_is_wrong(self):
        """Debugging the proxy does not mean reading asyncio's chatter."""
        stream = io.StringIO()
        logs.configure(Level.DEBUG, LogFormat.JSON, stream)
        logging.getLogger("asyncio").info("chatter")
        assert stream.getvalue() == ""

    def test_a_filtered_event_costs_next_to_nothing(self):
        """Under ten microseconds on the slowest machine; a tenth of one was measured."""
        log = logs.EventLog(Level.INFO)
        assert min(timeit.repeat(lambda: Tee(log)(FINISHED), number=1000, repeat=5)) < 0.010


class TestEscaping:
    @pytest.mark.parametrize("log_format", [LogFormat.JSON, LogFormat.CONSOLE])
    @pytest.mark.parametrize(
        "evil", ["a\nb", "a\rb", "\x1b[2Ja", "a\u2028b", "a\u202eb", "a\x9bb", "a\ud800b"]
    )
    def test_no_name_can_forge_a_line_or_steer_a_terminal(self, evil, log_format):
        """What does not print is written as an escape."""
        line = written(msgspec.structs.replace(CREATED, client_name=evil), log_format=log_format)
        assert line[-1] == "\n"
        assert line[:-1].isprintable()

    def test_plain_text_stays_as_it_is(self):
        """Letters of any script need no escape."""
        assert logs.escape("Größe 測試") == "Größe 測試"

    def test_a_traceback_keeps_its_lines(self):
        """They are indented, so that none of them can pass for a log line of its own."""
        entry = logs.escape_values(None, "error", {"exception": "Traceback\n2026 forged\x1b"})
        assert entry == {"exception": "    Traceback\n    2026 forged\\x1b"}


def test_no_event_has_a_field_that_every_line_has():
    """An event's field called `level` would overwrite the line's."""
    for kind in events.Event.__subclasses__():
        names = set(kind.__struct_fields__)
        assert names.isdisjoint({"event", "level", "timestamp", "logger", "exception"}), kind
