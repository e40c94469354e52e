"""One server: installed, called directly and through the proxy by a client without a session, and checked."""

import asyncio
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import aiohttp
from e2e.launch import SERVERS as PROGRAMS
from e2e.launch import Fleet, Kind, StartError, chromium, environment, node, program_environment
from e2e.wire import Caller, Reply

from .installing import NotInstalledError, prepare, version
from .server_page import ANSWERS, COMMAND, FORGETS, GOES_ON, Row
from .servers import Call, Server

CHECK_SECONDS: Final = 180.0
SUFFERS: Final = {"fails", "loses-state", "slow"}
LEAVES: Final = {
    "left": "leaves when its input is closed",
    "terminated": "leaves on SIGTERM only",
    "killed": "leaves only when killed",
    "exited": "leaves by itself",
}
# The longest that a server's own words may be in a cell.
WORDS: Final = 80


def newest(server: Server) -> Path:
    """The folder of the newest version, installed. Raises NotInstalledError."""
    return prepare(server, f"matrix-server-{server.key}")


def pinned(server: Server) -> Path:
    """The folder of the version that the end-to-end tests have."""
    return Path(sys.prefix) if server.pinned == "mcp-1.30" else environment(server.pinned)


def try_out(server: Server, fleet: Fleet, home: Path) -> Row:
    """Install the newest, call it both ways, and check it. Raises NotInstalledError."""
    folder = newest(server)
    with standing(server, folder, fleet, home) as stands:
        direct, proxied = stands.play_both()
        speaks, checked = stands.check()
    return Row(
        name=server.name,
        version=version(server, folder),
        transport=server.transport,
        speaks=speaks,
        direct=direct,
        proxied=proxied,
        checked=checked,
    )


@contextmanager
def standing(server: Server, folder: Path, fleet: Fleet, home: Path) -> Iterator["Standing"]:
    """A server that runs, and the proxy before it, until the fleet ends. Raises NotInstalledError."""
    with page_server() as page:
        stands = Standing(server, folder, fleet, home, page)
        try:
            stands.start()
        except StartError as error:
            raise NotInstalledError(str(error).strip().splitlines()[-1]) from None
        yield stands


class Standing:
    """A server, and the proxy before it."""

    def __init__(self, server: Server, folder: Path, fleet: Fleet, home: Path, page: str) -> None:
        self._server = server
        self._fleet = fleet
        self._home = home / f"server-{server.key}"
        self._home.mkdir()
        self._direct: str | None = None
        self._proxied = ""
        self._to_check: list[str] = []
        self._values: dict[str, Callable[[], str]] = {
            "python": lambda: str(folder / "bin" / "python"),
            "bin": lambda: str(folder / "bin"),
            "modules": lambda: str(folder / "node_modules"),
            "node": node,
            "chromium": chromium,
            "home": lambda: str(self._home),
            "servers": lambda: str(PROGRAMS),
            "page": lambda: page,
            "counter": lambda: fleet.new_server("mcp-1.30").url,
        }

    def start(self) -> None:
        """Start both. Raises StartError."""
        server = self._server
        # Filled in once: some of it starts something.
        words = [self._fill(word) for word in server.words]
        options = [self._fill(option) for option in server.options]
        if server.transport == "stdio":
            server.prepare(self._home)
            self._to_check = ["--stdio", *options, "--", *words]
            self._proxied = self._fleet.new_stdio_proxy(words, *options).url
        else:
            self._direct = self._fleet.new_server(self._kind(words)).url
            self._proxied = self._fleet.new_proxy(self._direct, *options).url
            self._to_check = [self._direct, "--through", self._proxied]

    def play_both(self) -> tuple[str, str]:
        """What two calls come to directly, and through the proxy."""
        direct = COMMAND if self._direct is None else asyncio.run(self._play(self._direct))
        return direct, asyncio.run(self._play(self._proxied))

    def check(self) -> tuple[str, str]:
        """What the server speaks, and what `check` says of it."""
        done = subprocess.run(
            [sys.executable, "-m", "mcp_session_proxy", "check", "--json", *self._to_check],
            env=program_environment(self._home),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=CHECK_SECONDS,
        )
        if not done.stdout:
            return "", f"fails: {done.stderr.strip()[-WORDS:]}"
        found = json.loads(done.stdout)
        return _of_command(found) if self._direct is None else _of_url(found)

    def _kind(self, words: Sequence[str]) -> Kind:
        server = self._server
        return Kind(
            name=server.key,
            command=lambda port: [word.replace("{port}", str(port)) for word in words],
            variables=lambda port: {
                name: self._fill(value).replace("{port}", str(port))
                for name, value in server.variables.items()
            },
            host=server.host,
            path=server.path,
            prepare=server.prepare,
        )

    async def _play(self, url: str) -> str:
        """Both calls, as somebody who knows of no session."""
        server = self._server
        async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), trust_env=False) as http:
            caller = Caller(http, url)
            for call in [server.first, server.then] if server.shows else [server.then]:
                try:
                    said = _text_of(await self._call(caller, call))
                except (aiohttp.ClientError, TimeoutError) as error:
                    return f"fails: {type(error).__name__}"
                except _RefusedError as error:
                    return str(error)
        if self._fill(server.shows or server.answer) in said:
            return GOES_ON if server.shows else ANSWERS
        return FORGETS if server.shows else f"says {said[:WORDS]}"

    async def _call(self, caller: Caller, call: Call) -> Reply:
        name, arguments = call
        return await caller.call(name, json.loads(self._fill(json.dumps(arguments))))

    def _fill(self, text: str) -> str:
        """With what is known put in for what stands in braces."""
        return re.sub(
            r"\{(\w+)\}",
            lambda found: self._values[found[1]]() if found[1] in self._values else found[0],
            text,
        )


class _RefusedError(Exception):
    """A call was not executed; the message is the status, and the server's words."""


def _text_of(reply: Reply) -> str:
    """What a tool answered. Raises _RefusedError."""
    try:
        answer = reply.response
    except (AssertionError, ValueError):
        answer = {"error": {"message": reply.body.decode(errors="replace").strip()}}
    if "error" in answer:
        said = " ".join(re.sub(r"<[^>]*>", " ", str(answer["error"].get("message", ""))).split())
        status = "" if reply.status == HTTPStatus.OK else f"{reply.status} "
        raise _RefusedError(f"{status}{said}"[:WORDS].strip())
    parts = answer["result"].get("content", [])
    said = "".join(part.get("text", "") for part in parts)
    if answer["result"].get("isError"):
        raise _RefusedError(f"tool error: {said}"[:WORDS])
    return said


def _of_url(found: Mapping[str, Any]) -> tuple[str, str]:
    """Of a server over HTTP, and of the proxy before it."""
    if found["direct"]["problem"] is not None:
        return "", str(found["direct"]["problem"]["key"])
    about = found["direct"]["server"] or {}
    spoken = [about.get("protocol_version"), *about.get("modern_versions", [])]
    counts = []
    for side in ("direct", "through"):
        verdicts = [fate["verdict"] for fate in found[side]["clients"].values()]
        counts.append((sum(verdict in SUFFERS for verdict in verdicts), len(verdicts)))
    (suffer, kinds), (still, _) = counts
    told = ", ".join(dict.fromkeys(version for version in spoken if version))
    return told, f"{suffer} of {kinds} kinds suffer, {still or 'none'} from the proxy"


def _of_command(found: Mapping[str, Any]) -> tuple[str, str]:
    """Of a server that is a command."""
    if found["problem"] is not None:
        return "", str(found["problem"])
    facts = found["facts"]
    return str(facts["protocol"]), f"two at once work; {LEAVES[facts['leaves']]}"


class _Page(BaseHTTPRequestHandler):
    """One page, whatever was asked for."""

    def do_GET(self) -> None:
        """Answer with it."""
        body = b"<!doctype html><html><head><title>Start</title></head><body><h1>Start</h1></body></html>"
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as the base class names it
        """Say nothing."""


@contextmanager
def page_server() -> Iterator[str]:
    """A page on loopback; gives its URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Page) as listening:
        thread = threading.Thread(target=listening.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_address[1]}/"
        listening.shutdown()
        thread.join()
