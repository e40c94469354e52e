"""ContextForge, a gateway: a client of the Python SDK calls it, and it calls the server.

    contextforge_gateway.py URL TOKEN PLAN

The gateway is started and told of the server here, once for all connections; what it prints goes to a file.
"""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client
from plan import run, text_of

START_SECONDS = 180.0
ADMIN = "admin@example.com"
SECRET = "a secret for a gateway that lives for a minute"
SETTINGS = {
    "JWT_SECRET_KEY": SECRET,
    "AUTH_ENCRYPTION_SECRET": SECRET,
    "PLATFORM_ADMIN_EMAIL": ADMIN,
    "PLATFORM_ADMIN_PASSWORD": "Of-no-use-to-anybody-1",
    "DATABASE_URL": "sqlite:///./gateway.db",
    "CACHE_TYPE": "memory",
    "MCPGATEWAY_UI_ENABLED": "false",
    "MCPGATEWAY_ADMIN_API_ENABLED": "true",
    # The server is on this machine.
    "SSRF_ALLOW_LOCALHOST": "true",
    "SSRF_ALLOW_PRIVATE_NETWORKS": "true",
}


class Gateway:
    """The gateway, while it runs."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.origin = f"http://127.0.0.1:{self.port}"
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self.token = ""

    def __enter__(self) -> "Gateway":
        environment = {**os.environ, **SETTINGS}
        # Of the run before, at another server.
        for left in Path().glob("gateway.db*"):
            left.unlink()
        binaries = Path(sys.executable).parent
        with Path("gateway.log").open("wb") as log:
            self._process = subprocess.Popen(
                [binaries / "mcpgateway", "--host", "127.0.0.1", "--port", str(self.port)],
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.token = subprocess.run(
            [
                *(sys.executable, "-m", "mcpgateway.utils.create_jwt_token"),
                *("--username", ADMIN, "--exp", "60", "--secret", SECRET),
            ],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()[-1]
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(Path("gateway.log").read_text(errors="replace")[-3000:])
            time.sleep(0.2)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def tell(self, path: str, body: object = None) -> Any:
        """Ask its API; gives what it answers."""
        request = urllib.request.Request(
            self.origin + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"},
        )
        try:
            with self._opener.open(request, timeout=60) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            raise SystemExit(f"{path}: {error.code} {error.read().decode(errors='replace')}") from None

    def serve(self, url: str, token: str) -> str:
        """Have it offer the tools of a server; gives the URL for clients."""
        wanted = {"name": "it", "url": url, "transport": "STREAMABLEHTTP"}
        self.tell("/gateways", {**wanted, "auth_type": "bearer", "auth_token": token})
        tools = [tool["id"] for tool in self.tell("/tools")]
        server = self.tell("/servers", {"server": {"name": "all", "associated_tools": tools}})
        return f"{self.origin}/servers/{server['id']}/mcp"

    def _answers(self) -> bool:
        try:
            with self._opener.open(f"{self.origin}/health", timeout=5) as response:
                return bool(response.status == 200)
        except OSError:
            return False


async def connection(url: str, token: str, plan: dict[str, Any]) -> dict[str, Any]:
    """One session at the gateway, which puts its name for the server before each tool's."""
    async with (
        streamablehttp_client(url, headers={"Authorization": f"Bearer {token}"}) as (read, write, _),
        ClientSession(read, write) as session,
    ):
        await session.initialize()
        listed = [tool.name for tool in (await session.list_tools()).tools]
        answers = []
        for name, given in plan["calls"]:
            (found,) = [each for each in listed if each.endswith(name)]
            answers.append(text_of(await session.call_tool(found, given)))
    return {"answers": answers}


with Gateway() as gateway:
    sys.argv[1:3] = [gateway.serve(sys.argv[1], sys.argv[2]), gateway.token]
    run(connection)
