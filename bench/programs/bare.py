"""The least that a reverse proxy on aiohttp and uvloop can do: the floor for this stack.

    python bare.py --port 8080 http://127.0.0.1:8000

It reads the request, sends it on with its end-to-end headers, and passes the body of the answer on as it
comes. It knows nothing of MCP.
"""

import argparse
import asyncio

import aiohttp
import uvloop
from aiohttp import web

HOP_BY_HOP = {"host", "connection", "keep-alive", "transfer-encoding", "content-length", "te", "upgrade"}


async def serve(port: int, origin: str) -> None:
    """Serve until killed."""
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=None)
    client = aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False)

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        headers = [pair for pair in request.headers.items() if pair[0].lower() not in HOP_BY_HOP]
        async with client.request(
            request.method, origin + request.path_qs, headers=headers, data=body, allow_redirects=False
        ) as answer:
            kept = [pair for pair in answer.headers.items() if pair[0].lower() not in HOP_BY_HOP]
            response = web.StreamResponse(status=answer.status, headers=kept)
            response.content_length = answer.content_length
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
            return response

    server = web.ServerRunner(web.Server(handle, access_log=None))
    await server.setup()
    await web.TCPSite(server, "127.0.0.1", port, backlog=4096).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("origin")
    chosen = parser.parse_args()
    uvloop.run(serve(chosen.port, chosen.origin))
