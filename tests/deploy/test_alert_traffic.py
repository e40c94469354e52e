"""The alert rules over what a real proxy counts in front of a server that refuses callers, or that fails."""

import http.server
import json
import re
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from e2e.launch import Fleet, Proxy, get

from .test_monitoring import PROMETHEUS, promtool

pytestmark = pytest.mark.e2e

SECONDS_BETWEEN_SCRAPES = 10
INITIALIZE = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "stranger", "version": "1"},
}
Reply = tuple[int, Mapping[str, object]]


def rpc(result: Mapping[str, object]) -> Reply:
    """An answer in JSON-RPC; whatever is asked here has the id 1 upstream or is matched by the server."""
    return 200, {"jsonrpc": "2.0", **result}


class Server:
    """A server whose every POST is answered by ``reply``, which is given the message and the bearer token."""

    def __init__(self) -> None:
        self.reply: Callable[[Mapping[str, Any], str], Reply] = lambda message, token: (401, {})
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status, content = outer.reply(message, self.headers.get("Authorization", ""))
                if "jsonrpc" in content:
                    content = {"id": message.get("id"), **content}
                body = json.dumps(content).encode()
                self.send_response(status)
                if status == 401:
                    self.send_header("WWW-Authenticate", "Bearer")
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self) -> None:
                self.send_error(405)

            def log_message(self, *arguments: object) -> None: ...

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/mcp"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


@pytest.fixture
def server() -> Iterator[Server]:
    """The server; it says 401 to everybody until a test wants something else."""
    running = Server()
    yield running
    running.http.shutdown()
    running.http.server_close()


@pytest.fixture
def proxy(server: Server, tmp_path: Path) -> Iterator[Proxy]:
    """A proxy before it, with the default settings."""
    fleet = Fleet(tmp_path)
    yield fleet.new_proxy(server.url, "--log-format", "json")
    fleet.stop()


def knock(proxy: Proxy, method: str = "initialize", token: str | None = None) -> int:
    """One request of somebody; gives the status."""
    message = {"jsonrpc": "2.0", "id": 7, "method": method, "params": INITIALIZE}
    headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(proxy.url, json.dumps(message).encode(), headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=30) as answer:
            status: int = answer.status
            return status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


class History:
    """What Prometheus would have: each scrape is ten seconds after the one before, by promtool's clock."""

    def __init__(self, proxy: Proxy, folder: Path) -> None:
        self._proxy = proxy
        self._folder = folder
        self._scrapes: list[dict[str, str]] = []

    def scrape(self) -> None:
        """Take all samples."""
        _, body = get(f"{self._proxy.admin}/metrics")
        lines = [line for line in body.decode().splitlines() if line and not line.startswith("#")]
        self._scrapes.append(dict(line.rsplit(" ", 1) for line in lines))

    def firing(self) -> set[str]:
        """The alerts that fire at the end."""
        series = {name for scrape in self._scrapes for name in scrape}
        case = {
            "interval": f"{SECONDS_BETWEEN_SCRAPES}s",
            "input_series": [
                {"series": _labelled(name), "values": " ".join(each.get(name, "_") for each in self._scrapes)}
                for name in [*series]
            ]
            + [{"series": _labelled("up"), "values": f"1+0x{len(self._scrapes)}"}],
            "promql_expr_test": [
                {
                    "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                    "eval_time": f"{SECONDS_BETWEEN_SCRAPES * (len(self._scrapes) - 1)}s",
                    "exp_samples": [{"labels": '{alertname="none"}', "value": 1}],  # so what there is is told
                }
            ],
        }
        shutil.copy(PROMETHEUS / "alerts.yml", self._folder)
        test = {"rule_files": ["alerts.yml"], "evaluation_interval": "10s", "tests": [case]}
        (self._folder / "test.yml").write_text(json.dumps(test))
        told = promtool("test", "rules", str(self._folder / "test.yml"))
        words = told.stdout + told.stderr
        assert "got:" in words, words
        return set(re.findall(r'alertname="(\w+)"', words.partition("got:")[2]))


def _labelled(name: str) -> str:
    """A sample's name with the labels that Prometheus adds."""
    bare, _, labels = name.partition("{")
    return f'{bare}{{job="mcp-session-proxy",instance="here"{"," + labels if labels else "}"}'


@pytest.fixture
def history(proxy: Proxy, tmp_path: Path) -> History:
    """What is scraped of the proxy."""
    folder = tmp_path / "rules"
    folder.mkdir()
    return History(proxy, folder)


def log_of(proxy: Proxy) -> list[dict[str, Any]]:
    """The proxy's log lines, without the banner's."""
    lines = proxy.program.log.read_text().splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


REFUSALS: dict[str, Callable[[Mapping[str, Any], str], Reply]] = {
    "no token": lambda message, token: (401, {"error": "invalid_token"}),
    "wrong tenant": lambda message, token: (403, {"error": "insufficient_scope"}),
    "too often": lambda message, token: (429, {}),
    "in JSON-RPC": lambda message, token: rpc({"error": {"code": -32001, "message": "Unauthorized"}}),
    "unreadable": lambda message, token: (
        400,
        {"jsonrpc": "2.0", "error": {"code": -32602, "message": "Invalid request parameters"}},
    ),
}


@pytest.mark.share(2)
@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_caller_that_is_refused_pages_nobody(
    server: Server, proxy: Proxy, history: History, refusal: str
) -> None:
    """A knock every ten seconds for ten minutes: no alert, and one line for each, at info."""
    server.reply = REFUSALS[refusal]
    before = len(log_of(proxy))
    for number in range(60):
        knock(proxy, "initialize" if number % 2 else "tools/list")
        history.scrape()
    assert history.firing() == set()
    lines = log_of(proxy)[before:]
    assert {line["level"] for line in lines} == {"info"}
    assert [line["event"] for line in lines] == ["request.failed"] * 60
    counted = proxy.metrics()
    assert not any(name.startswith(("lease_failures", "upstream_session_open_failures")) for name in counted)
    refused = {value for name, value in counted.items() if 'fault="client"' in name}
    assert refused == {30.0}


def test_strangers_do_not_shut_out_those_with_a_token(server: Server, proxy: Proxy) -> None:
    """However many are refused, the server is not left alone for it."""

    def reply(message: Mapping[str, Any], token: str) -> Reply:
        if token != "Bearer good":
            return 401, {}
        return rpc({"result": {"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": {}}})

    server.reply = reply
    assert [knock(proxy) for _ in range(20)] == [401] * 20
    assert knock(proxy, token="good") == 200


TROUBLE: dict[str, Callable[[Mapping[str, Any], str], Reply]] = {
    "it fails": lambda message, token: (500, {"error": "no database"}),
    "it is full": lambda message, token: (503, {"error": "Too many open sessions"}),
    "another address": lambda message, token: (404, {"detail": "Not Found"}),
    "it says that it fails": lambda message, token: rpc({"error": {"code": -32603, "message": "Bug"}}),
}


@pytest.mark.share(2)
@pytest.mark.parametrize("trouble", TROUBLE)
def test_a_server_that_fails_pages_somebody(
    server: Server, proxy: Proxy, history: History, trouble: str
) -> None:
    """The same traffic before a server that serves nobody."""
    server.reply = TROUBLE[trouble]
    for _ in range(60):
        knock(proxy)
        history.scrape()
    assert {"McpSessionProxyLeaseFailures", "McpSessionProxyRequestsFail"} <= history.firing()
    assert any(line["level"] == "warning" for line in log_of(proxy))
