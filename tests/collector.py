"""An OpenTelemetry collector as small as can be: takes spans by OTLP over HTTP and keeps them."""

import asyncio

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Collector:
    """Listens on a real socket. With ``deaf`` it takes every request and never answers."""

    def __init__(self, *, deaf: bool = False) -> None:
        self.url = ""
        self.spans: list[Span] = []
        self.resources: list[dict[str, str]] = []
        self.requests = 0
        self._deaf = deaf
        self._over = asyncio.Event()
        self._runner = web.AppRunner(self._app(), shutdown_timeout=0)

    async def __aenter__(self) -> "Collector":
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._over.set()
        await self._runner.cleanup()

    def _app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/v1/traces", self._take)
        return app

    async def _take(self, request: web.Request) -> web.Response:
        self.requests += 1
        if self._deaf:
            await self._over.wait()
        batch = ExportTraceServiceRequest.FromString(await request.read())
        for group in batch.resource_spans:
            self.resources.append({item.key: item.value.string_value for item in group.resource.attributes})
            for scope in group.scope_spans:
                self.spans.extend(scope.spans)
        return web.Response(content_type="application/x-protobuf")

    def named(self, name: str) -> list[Span]:
        """The spans with this name."""
        return [span for span in self.spans if span.name == name]
