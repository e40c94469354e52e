"""FastMCP's client with its own OAuth: signs in, and counts. Usage: oauth_fastmcp.py URL SECONDS MODE

Prints what oauth_mcp.py prints. The browser that it opens is a function here.
"""

import asyncio
import json
import sys
import threading
import time
import urllib.error
import urllib.request
import webbrowser

from fastmcp import Client
from fastmcp.client.auth import OAuth
from plan import text_of


class CountingOAuth(OAuth):
    """Counts the tokens that it is given."""

    given = 0

    def _bind(self, mcp_url: str) -> None:
        super()._bind(mcp_url)
        keep = self.token_storage_adapter.set_tokens

        async def count(tokens: object) -> None:
            self.given += 1
            await keep(tokens)

        self.token_storage_adapter.set_tokens = count


def browse(url: str) -> bool:
    """Follow the redirects, to the page that the client serves for this."""

    def follow() -> None:
        for _ in range(100):  # it serves that only once it has sent the browser on its way
            try:
                urllib.request.urlopen(url, timeout=10).read()
            except urllib.error.URLError:
                time.sleep(0.1)
            else:
                return

    threading.Thread(target=follow, daemon=True).start()
    return True


async def main(url: str, seconds: float, mode: str) -> None:
    """Count until the time is over."""
    webbrowser.open = browse
    auth = CountingOAuth()
    counts: list[str] = []
    async with Client(url, auth=auth, mode=mode) as client:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            counts.append(text_of(await client.call_tool("increment", {})))
            await asyncio.sleep(0.05)
    print(json.dumps({"counts": counts, "tokens": auth.given}))


asyncio.run(main(sys.argv[1], float(sys.argv[2]), sys.argv[3]))
