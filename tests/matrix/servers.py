"""Which servers there are. A new one is a row here.

In words, variables, options and arguments, what stands in braces is filled in by ``server_trial``:
``{python}``, ``{bin}`` and ``{modules}`` of the environment, ``{node}``, ``{chromium}``, ``{port}``,
``{home}``, ``{servers}`` (the folder of the tests' own), ``{page}`` (the URL of a page whose heading is
"Start") and ``{counter}`` (the URL of another server, which counts).
"""

import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from e2e.launch import KINDS, write_playwright_config

from .installing import key

Call = tuple[str, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Server:
    """A server: what to install for it (newest versions), how to start it, and two calls.

    The second call's answer has ``shows`` in it if the first one left something in the server's memory, its
    session's or its folder's; a server that remembers nothing is only called ``then``. ``pinned`` is the
    environment of the end-to-end tests that has it as well. ``options`` are for the proxy.
    """

    name: str
    packages: Sequence[str]
    words: Sequence[str]
    transport: Literal["stdio", "HTTP", "HTTP+SSE"] = "HTTP"
    first: Call = ("increment", {})
    then: Call = ("increment", {})
    shows: str = ""
    answer: str = ""
    pinned: str = ""
    path: str = "/mcp"
    host: str = "127.0.0.1"
    variables: Mapping[str, str] = field(default_factory=dict)
    options: Sequence[str] = ()
    prepare: Callable[[Path], object] = lambda home: None
    note: str = ""

    @property
    def key(self) -> str:
        """Its name, as a file or a flag would have it."""
        return key(self.name)

    @property
    def is_javascript(self) -> bool:
        """Whether its packages are npm's."""
        return "{node}" in self.words


def _repository(home: Path) -> None:
    """A repository with a file that was not added yet."""
    folder = home / "repository"
    folder.mkdir()
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    (folder / "note.txt").write_text("remember me\n")


_OFFICIAL: Final = "{modules}/@modelcontextprotocol"
_EVERYTHING: Final = f"{_OFFICIAL}/server-everything/dist/index.js"
_TOGGLE: Final[Call] = ("toggle-simulated-logging", {})
_THOUGHT: Final = {"thought": "Hm.", "thoughtNumber": 1, "totalThoughts": 2, "nextThoughtNeeded": True}
_SECOND_THOUGHT: Final = {**_THOUGHT, "thoughtNumber": 2}
_THINKING: Final = f"{_OFFICIAL}/server-sequential-thinking/dist/index.js"
_LOOPBACK: Final = ("--host", "127.0.0.1", "--port", "{port}")

SERVERS: Final = (
    Server(
        name="Python SDK",
        packages=["mcp"],
        words=["{python}", "{servers}/both_eras_server.py", "{port}"],
        shows="2",
        pinned="mcp-2",
    ),
    Server(
        name="Python SDK 1.x",
        packages=["mcp<2"],
        words=["{python}", "{servers}/counter_server.py", "--port", "{port}"],
        shows="2",
        pinned="mcp-1.30",
    ),
    Server(
        name="FastMCP 4",
        packages=["fastmcp"],
        words=["{python}", "{servers}/fastmcp_counter_server.py", "--transport", "http", "--port", "{port}"],
        shows="2",
        pinned="mcp-2",
    ),
    Server(
        name="FastMCP 3",
        packages=["fastmcp<4"],
        words=["{python}", "{servers}/fastmcp_counter_server.py", "--transport", "http", "--port", "{port}"],
        shows="2",
        pinned="fastmcp-3",
    ),
    Server(
        name="FastMCP 2",
        packages=["fastmcp<3"],
        words=["{python}", "{servers}/fastmcp_counter_server.py", "--transport", "http", "--port", "{port}"],
        shows="2",
    ),
    Server(
        name="FastMCP 4, HTTP+SSE",
        packages=["fastmcp"],
        words=["{python}", "{servers}/fastmcp_counter_server.py", "--port", "{port}"],
        transport="HTTP+SSE",
        path="/sse",
        shows="2",
        pinned="mcp-2",
    ),
    Server(
        name="TypeScript SDK 1.x, its example",
        packages=["@modelcontextprotocol/sdk"],
        words=["{node}", f"{_OFFICIAL}/sdk/dist/esm/examples/server/simpleStreamableHttp.js"],
        variables={"MCP_PORT": "{port}"},
        then=("greet", {"name": "Ada"}),
        answer="Hello, Ada",
        pinned="node",
    ),
    Server(
        name="FastMCP for TypeScript",
        packages=["fastmcp"],
        words=["{node}", "{servers}/fastmcp_server.mjs", "{port}"],
        variables={"E2E_NODE_MODULES": "{modules}"},
        shows="2",
        pinned="node",
    ),
    Server(
        name="server-everything",
        packages=["@modelcontextprotocol/server-everything"],
        words=["{node}", _EVERYTHING, "streamableHttp"],
        variables={"PORT": "{port}"},
        first=_TOGGLE,
        then=_TOGGLE,
        shows="Stopped",
        pinned="node",
    ),
    Server(
        name="server-everything, HTTP+SSE",
        packages=["@modelcontextprotocol/server-everything"],
        words=["{node}", _EVERYTHING, "sse"],
        transport="HTTP+SSE",
        path="/sse",
        variables={"PORT": "{port}"},
        first=_TOGGLE,
        then=_TOGGLE,
        shows="Stopped",
        pinned="node",
    ),
    Server(
        name="server-everything, a command",
        packages=["@modelcontextprotocol/server-everything"],
        words=["{node}", _EVERYTHING, "stdio"],
        transport="stdio",
        first=_TOGGLE,
        then=_TOGGLE,
        shows="Stopped",
        pinned="node",
    ),
    Server(
        name="server-memory",
        packages=["@modelcontextprotocol/server-memory"],
        words=["{node}", f"{_OFFICIAL}/server-memory/dist/index.js"],
        transport="stdio",
        options=["--stdio-env", "MEMORY_FILE_PATH={home}/memory.jsonl"],
        first=(
            "create_entities",
            {"entities": [{"name": "Ada", "entityType": "person", "observations": ["counts"]}]},
        ),
        then=("read_graph", {}),
        shows="Ada",
        pinned="stdio",
    ),
    Server(
        name="server-filesystem",
        packages=["@modelcontextprotocol/server-filesystem"],
        words=["{node}", f"{_OFFICIAL}/server-filesystem/dist/index.js", "."],
        transport="stdio",
        options=["--stdio-cwd", "{home}/{session}"],
        first=("write_file", {"path": "note.txt", "content": "remember me"}),
        then=("read_text_file", {"path": "note.txt"}),
        shows="remember me",
        pinned="stdio",
    ),
    Server(
        name="server-sequential-thinking",
        packages=["@modelcontextprotocol/server-sequential-thinking"],
        words=["{node}", _THINKING],
        transport="stdio",
        first=("sequentialthinking", _THOUGHT),
        then=("sequentialthinking", _SECOND_THOUGHT),
        shows='"thoughtHistoryLength": 2',
        pinned="stdio",
    ),
    Server(
        name="@playwright/mcp",
        packages=["@playwright/mcp"],
        words=[
            *("{node}", "{modules}/@playwright/mcp/cli.js", *_LOOPBACK, "--headless", "--isolated"),
            *("--no-sandbox", "--executable-path", "{chromium}", "--config", "playwright.json"),
        ],
        host="localhost",  # the only Host it accepts
        first=("browser_navigate", {"url": "{page}"}),
        then=("browser_snapshot", {}),
        shows="Start",
        pinned="node",
        prepare=write_playwright_config,
    ),
    Server(
        name="chrome-devtools-mcp",
        packages=["chrome-devtools-mcp"],
        words=[
            *("{node}", "{modules}/chrome-devtools-mcp/build/src/bin/chrome-devtools-mcp.js", "--headless"),
            *("--isolated", "--executablePath", "{chromium}", "--chromeArg=--no-sandbox"),
            *("--usageStatistics", "false"),
        ],
        transport="stdio",
        first=("new_page", {"url": "{page}"}),
        then=("list_pages", {}),
        shows="{page}",
        pinned="stdio",
    ),
    Server(
        name="mcp-server-git",
        packages=["mcp-server-git"],
        words=["{bin}/mcp-server-git"],
        transport="stdio",
        first=("git_add", {"repo_path": "{home}/repository", "files": ["note.txt"]}),
        then=("git_status", {"repo_path": "{home}/repository"}),
        shows="Changes to be committed",
        prepare=_repository,
    ),
    Server(
        name="mcp-server-fetch",
        packages=["mcp-server-fetch"],
        words=["{bin}/mcp-server-fetch", "--ignore-robots-txt", "--allow-private-ips"],
        transport="stdio",
        then=("fetch", {"url": "{page}", "raw": True}),
        answer="Start",
    ),
    Server(
        name="mcp-server-time",
        packages=["mcp-server-time"],
        words=["{bin}/mcp-server-time", "--local-timezone", "UTC"],
        transport="stdio",
        then=("get_current_time", {"timezone": "UTC"}),
        answer="datetime",
    ),
    Server(
        name="kubernetes-mcp-server",
        packages=["kubernetes-mcp-server"],
        words=[
            *("{node}", "{modules}/kubernetes-mcp-server/bin/index.js", "--kubeconfig", "kubeconfig"),
            *("--config", "kubernetes.toml", "--bind-address", "127.0.0.1", "--port", "{port}"),
        ],
        then=("configuration_view", {}),
        answer="nowhere",
        pinned="node",
        prepare=KINDS["kubernetes"].prepare,
        note="made with the Go SDK.",
    ),
    Server(
        name="supergateway",
        packages=["supergateway", "@modelcontextprotocol/server-sequential-thinking"],
        words=[
            *("{node}", "{modules}/supergateway/dist/index.js"),
            *("--stdio", "'{node}' '" + _THINKING + "'", "--outputTransport", "streamableHttp"),
            *("--stateful", "--port", "{port}"),
        ],
        first=("sequentialthinking", _THOUGHT),
        then=("sequentialthinking", _SECOND_THOUGHT),
        shows='"thoughtHistoryLength": 2',
        note="makes a server over HTTP of one that is a command, here of server-sequential-thinking.",
    ),
    Server(
        name="mcp-proxy",
        packages=["mcp-proxy", "mcp<2"],
        words=[
            *("{bin}/mcp-proxy", *_LOOPBACK, "--", "{python}", "{servers}/counter_server.py", "--stdio"),
        ],
        shows="2",
        note="the same, with one process for everybody.",
    ),
    Server(
        name="mcp-remote",
        packages=["mcp-remote"],
        words=[
            *("{node}", "{modules}/mcp-remote/dist/proxy.js", "{counter}"),
            *("--allow-http", "--transport", "http-only"),
        ],
        transport="stdio",
        options=["--stdio-env", "MCP_REMOTE_CONFIG_DIR={home}/remote"],
        shows="2",
        pinned="node",
        note="makes a command of a server over HTTP, here of one of the Python SDK.",
    ),
)
