import asyncio
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from mcp_session_proxy import events
from mcp_session_proxy.ops.admin import build_admin_app
from mcp_session_proxy.ops.churn import Churn
from mcp_session_proxy.ops.introspection import (
    ClientSessionView,
    Gauges,
    Phase,
    Readiness,
    UpstreamSessionView,
)
from mcp_session_proxy.ops.metrics import Metrics
from mcp_session_proxy.ops.observers import Tee
from mcp_session_proxy.ops.recent import Recent
from mcp_session_proxy.sessions.modes import Sharing
from mcp_session_proxy.settings.values import Address


class View:
    """A proxy with as many sessions as wanted, each one second older than the one before."""

    def __init__(self, *, phase=Phase.READY, sessions=0):
        self.phase = phase
        self.sessions = sessions

    def readiness(self):
        return Readiness(phase=self.phase, ready=int(self.phase is Phase.READY), total=1)

    paused = False

    def replicas(self):
        return []

    def upstream_sessions(self, limit=None):
        views = [
            UpstreamSessionView(
                session=f"s{age}",
                principal="p1",
                affinity=False,
                state="idle",
                protocol_version="2025-11-25",
                client_name="inspector",
                age_seconds=age,
                idle_seconds=1.0,
                requests=2,
                in_flight=0,
                parked=0,
                attached=0,
                stream=True,
            )
            for age in range(self.sessions)
        ]
        return views[:limit]

    def client_sessions(self, limit=None):
        views = [
            ClientSessionView(
                client=f"c{age}",
                principal="p1",
                affinity=False,
                origin="minted",
                attached=False,
                upstream="s1",
                age_seconds=age,
                idle_seconds=1.0,
                requests=2,
                in_flight=0,
                parked=0,
            )
            for age in range(self.sessions)
        ]
        return views[:limit]

    def gauges(self):
        return Gauges(
            phase=Phase.READY,
            upstreams={},
            limits={},
            client_sessions=self.sessions,
            upstream_sessions={"idle": self.sessions},
            upstream_session_age_seconds=[],
            waiters=0,
            exchanges_parked=0,
            streams={},
        )


@pytest.fixture
def connect(aiohttp_client):
    """Gives a client of the admin listener over a view."""

    async def build(view=None, *, listen="127.0.0.1:9090"):
        metrics = Metrics()
        view = view or View()
        metrics.watch(view.gauges)
        Tee(metrics)(events.DeleteAbsorbed(client="c1", principal="p1"))
        app = build_admin_app(
            view=view,
            operations=cast(Any, None),  # nothing here changes anything
            going_round=cast(Any, None),
            metrics=metrics,
            churn=Churn(lambda: 0.0),
            recent=Recent(lambda: datetime.now(UTC)),
            observe=events.ignore,
            sharing=Sharing.HANDOVER,
            listen=Address.parse(listen),
            token=lambda: None,
        )
        return await aiohttp_client(app)

    return build


class TestReadiness:
    async def test_ready(self, connect):
        """Ready is 200 with the four facts."""
        response = await (await connect()).get("/readyz")
        assert response.status == 200
        assert await response.json() == {"status": "ready", "mode": "stateless", "ready": 1, "total": 1}

    @pytest.mark.parametrize("phase", [Phase.STARTING, Phase.UPSTREAM_DOWN, Phase.DRAINING])
    async def test_not_ready(self, connect, phase):
        """Starting, draining and a server that is down are 503, with the same facts and when to ask again."""
        response = await (await connect(View(phase=phase))).get("/readyz")
        assert response.status == 503
        assert int(response.headers["Retry-After"]) > 0
        assert await response.json() == {"status": phase, "mode": "stateless", "ready": 0, "total": 1}

    async def test_health_does_not_depend_on_the_server(self, connect):
        """A restart of the proxy would not bring the server back."""
        response = await (await connect(View(phase=Phase.UPSTREAM_DOWN))).get("/healthz")
        assert response.status == 200


class TestVersions:
    @pytest.mark.parametrize(("version", "status"), [("1.1", 200), ("1.0", 200), ("2.0", 505), ("0.9", 505)])
    async def test_http_1_is_spoken(self, connect, version, status):
        """A request line that names another version is refused here, too."""
        client = await connect()
        reader, writer = await asyncio.open_connection(client.host, client.port)
        writer.write(f"GET /readyz HTTP/{version}\r\nHost: {client.host}\r\n\r\n".encode())
        head = await reader.readline()
        assert head.startswith(b"HTTP/1.")
        assert f" {status} ".encode() in head
        writer.close()


class TestMetrics:
    async def test_prometheus_text(self, connect):
        """Without a preference the scrape is in Prometheus' text format."""
        response = await (await connect(View(sessions=1))).get("/metrics")
        assert response.headers["Content-Type"].startswith("text/plain")
        text = await response.text()
        assert "mcp_session_proxy_deletes_absorbed_total 1.0" in text
        assert "mcp_session_proxy_client_sessions 1.0" in text

    async def test_openmetrics(self, connect):
        """A scraper that prefers OpenMetrics gets it."""
        accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
        response = await (await connect()).get("/metrics", headers=accept)
        assert response.content_type == "application/openmetrics-text"
        assert (await response.text()).endswith("# EOF\n")


class TestSessions:
    async def test_shows_both_kinds_newest_first(self, connect):
        """Everything that the views hold, and the totals."""
        response = await (await connect(View(sessions=3))).get("/sessions")
        body = await response.json()
        assert body["sharing"] == "handover"
        assert body["totals"] == {"upstream_sessions": 3, "client_sessions": 3}
        assert [entry["session"] for entry in body["upstream_sessions"]] == ["s0", "s1", "s2"]
        assert [entry["client"] for entry in body["client_sessions"]] == ["c0", "c1", "c2"]
        assert body["upstream_sessions"][0]["protocol_version"] == "2025-11-25"

    async def test_limit(self, connect):
        """The newest are shown, the totals stay whole."""
        response = await (await connect(View(sessions=3))).get("/sessions?limit=1")
        body = await response.json()
        assert [entry["session"] for entry in body["upstream_sessions"]] == ["s0"]
        assert body["totals"]["client_sessions"] == 3

    async def test_default_limit(self, connect):
        """A busy proxy answers with a page, not with a flood."""
        body = await (await (await connect(View(sessions=1001))).get("/sessions")).json()
        assert len(body["client_sessions"]) == 1000

    @pytest.mark.parametrize("limit", ["-1", "x", "", "1.5", "9" * 5000])
    async def test_wrong_limit(self, connect, limit):
        """A limit that is no number is the caller's mistake."""
        response = await (await connect()).get(f"/sessions?limit={limit}")
        assert response.status == 400
        assert "limit" in (await response.json())["error"]


class TestTheRest:
    async def test_index_names_the_pages(self, connect):
        """Whoever opens the listener in a browser sees where to go."""
        text = await (await (await connect()).get("/")).text()
        for path in ("/metrics", "/healthz", "/readyz", "/sessions"):
            assert path in text

    async def test_unknown_page(self, connect):
        """JSON here, too."""
        response = await (await connect()).get("/nothing")
        assert response.status == 404
        assert await response.json() == {"error": "not found"}

    @pytest.mark.parametrize("path", ["/", "/page.js", "/metrics", "/healthz", "/readyz", "/sessions"])
    async def test_pages_are_read_only(self, connect, path):
        """They take GET and HEAD, and say so to other verbs."""
        client = await connect()
        for verb in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
            response = await client.request(verb, path)
            assert response.status == 405
            assert response.headers["Allow"] == "GET,HEAD"
        assert (await client.head(path)).status == 200

    async def test_browsers_get_the_page(self, connect):
        """Whoever accepts HTML gets it; caches know that it depends."""
        response = await (await connect()).get("/", headers={"Accept": "text/html,*/*;q=0.8"})
        assert response.content_type == "text/html"
        assert response.headers["Vary"] == "Accept"
        assert "<title>mcp-session-proxy</title>" in await response.text()

    @pytest.mark.parametrize(
        ("path", "kind"),
        [("/page.css", "text/css"), ("/page.js", "text/javascript"), ("/icon.svg", "image/svg+xml")],
    )
    async def test_files_of_the_page(self, connect, path, kind):
        """They are served as what they are, and not again to those who have them."""
        client = await connect()
        response = await client.get(path)
        assert (response.status, response.content_type) == (200, kind)
        assert await response.read()
        again = await client.get(path, headers={"If-None-Match": response.headers["ETag"]})
        assert (again.status, await again.read()) == (304, b"")

    @pytest.mark.parametrize("path", ["/", "/sessions", "/nothing", "/metrics"])
    async def test_browsers_are_told_to_be_careful(self, connect, path):
        """No frames, no other site's scripts, no guessing of types, on errors as well."""
        headers = (await (await connect()).get(path)).headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert "Access-Control-Allow-Origin" not in headers

    async def test_a_bug_is_not_shown(self, connect):
        """An exception becomes a clean 500; its text stays in the log."""

        class Broken(View):
            def readiness(self):
                return 1 / 0

        view = Broken()
        response = await (await connect(view)).get("/readyz")
        assert response.status == 500
        assert "division" not in await response.text()


class TestRebinding:
    async def test_loopback_answers_to_loopback_names_only(self, connect):
        """A page that points its own name at this machine reads nothing."""
        client = await connect()
        assert (await client.get("/sessions", headers={"Host": "evil.example"})).status == 403
        assert (await client.get("/sessions", headers={"Host": "localhost:1"})).status == 200

    async def test_foreign_pages_are_refused(self, connect):
        """A browser that shows another site's page gets nothing either."""
        client = await connect()
        response = await client.get("/sessions", headers={"Origin": "https://evil.example"})
        assert response.status == 403
        assert await response.json() == {"error": "origin-not-allowed"}

    async def test_beyond_loopback_any_name_will_do(self, connect):
        """A scraper calls by the pod's address or the service's name."""
        client = await connect(listen=":9090")
        assert (await client.get("/metrics", headers={"Host": "proxy.monitoring"})).status == 200
