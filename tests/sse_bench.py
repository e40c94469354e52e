"""A client and the proxy before a server that speaks HTTP+SSE."""

from typing import Any

from proxy_bench import Bench
from sse_server import SseServer


class SseBench(Bench):
    """A client, the proxy, and a server that speaks HTTP+SSE."""

    sse: SseServer

    async def start(self, **options: Any) -> None:
        await super().start(upstream=self.sse.url, **options)

    @property
    def url(self) -> str:
        return self.proxy.listen_url + "/sse"
