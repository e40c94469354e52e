"""The exporter: what is sent where, what happens when nobody takes it, and what is loaded without it."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from collector import Collector
from messages import call
from proxy_bench import PATIENCE_SECONDS, Bench

from mcp_session_proxy import __version__
from mcp_session_proxy.ops import tracing
from mcp_session_proxy.settings.sources import ConfigError
from mcp_session_proxy.tracing import read_trace_id

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The shutdown does not wait for spans."""
    monkeypatch.setattr(tracing, "_FLUSH_SECONDS", 0.2)
    return iter(())


# -- sending ---------------------------------------------------------------------------------------


async def test_spans_are_sent(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left at the end is sent where the standard variables say, under our name."""
    async with Collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        async with bench:
            await bench.start(tracing=True)
            await bench.post(call(name="count"))
        assert sorted(span.name for span in collector.spans) == ["lease", "tools/call", "tools/call"]
        assert len({span.trace_id for span in collector.spans}) == 1
    [resource] = collector.resources
    assert (resource["service.name"], resource["service.version"]) == ("mcp-session-proxy", __version__)


@pytest.mark.parametrize(
    ("variable", "value"),
    [("OTEL_SERVICE_NAME", "mine"), ("OTEL_RESOURCE_ATTRIBUTES", "service.name=mine,service.version=7")],
)
def test_variables_name_the_service(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    """The operator's names win over ours."""
    monkeypatch.setenv(variable, value)
    attributes = tracing._resource().attributes
    assert attributes["service.name"] == "mine"
    assert attributes["service.version"] == ("7" if "version" in value else __version__)


@pytest.mark.usefixtures("hurry")
@pytest.mark.parametrize("deaf", [True, False])
@pytest.mark.slow
async def test_nobody_waits_for_the_collector(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, *, deaf: bool
) -> None:
    """A collector that hangs, or is not there, delays neither requests nor the end."""
    async with Collector(deaf=True) as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url if deaf else "http://127.0.0.1:9")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "3600")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "1")
        async with asyncio.timeout(PATIENCE_SECONDS):
            async with bench:
                await bench.start(tracing=True)
                for number in range(20):
                    assert (await bench.post(call(number, name="count"))).status == 200
        assert bool(collector.requests) == deaf


async def test_an_end_with_nothing_to_send_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shutdown waits for the exporter, not for the clock."""
    monkeypatch.setattr(tracing, "_FLUSH_SECONDS", 3600)
    async with asyncio.timeout(PATIENCE_SECONDS):
        await tracing.open_tracer().close()


# -- turning it on ---------------------------------------------------------------------------------


async def test_a_wrong_variable(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is no use is told as what it is, before anything listens."""
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1000000")
    with pytest.raises(ConfigError, match="--tracing: OpenTelemetry does not start: max_export_batch_size"):
        await bench.start(tracing=True)


def run_without_the_extra(code: str) -> "subprocess.CompletedProcess[str]":
    """Run a piece of Python that finds nothing of OpenTelemetry's."""
    code = f"import sys; sys.modules['opentelemetry'] = None; {code}"
    return subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)


@pytest.mark.parametrize("command", ["['serve', URL, '--tracing']", "['config', 'check', URL, '--tracing']"])
@pytest.mark.slow
def test_without_the_extra(command: str) -> None:
    """Whoever turns it on without the extra is told what to install."""
    main = "from mcp_session_proxy.cli import main; URL = 'http://127.0.0.1:1/mcp'; sys.exit(main({}))"
    ended = run_without_the_extra(main.format(command))
    assert ended.returncode != 0
    needed = "--tracing: true is not allowed; it needs the extra otel: pip install 'mcp-session-proxy[otel]'"
    assert needed in ended.stdout + ended.stderr


@pytest.mark.slow
def test_nothing_is_loaded_without_it() -> None:
    """The whole program stands without a single module of OpenTelemetry's."""
    ended = run_without_the_extra("import mcp_session_proxy.cli, mcp_session_proxy.assembly.process")
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    ("traceparent", "found"),
    [
        (f"00-{TRACE}-{SPAN}-01", TRACE),
        (f"00-{TRACE}-{SPAN}-00", TRACE),
        (f"cc-{TRACE}-{SPAN}-01-what-comes-later", TRACE),
        (f"ff-{TRACE}-{SPAN}-01", None),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE.upper()}-{SPAN}-01", None),
        (TRACE, None),
        ("", None),
        (None, None),
    ],
)
def test_trace_ids(traceparent: str | None, found: str | None) -> None:
    """The trace id of a `traceparent`, if it is one (W3C Trace Context, section 3.2.2)."""
    assert read_trace_id(traceparent) == found
