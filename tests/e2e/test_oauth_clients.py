"""Clients that sign in themselves, with access tokens of two seconds that they refresh: the count goes on.

Everything is real: mcp's authorization server, servers that check its tokens, the official client and
FastMCP's. OAUTH_SECONDS says for how long each counts. With THOROUGH=1, every client does at every server,
with all algorithms, in all sharing modes.
"""

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from selection import THOROUGH

from .launch import SERVERS, Fleet, Program, accepts_connections, program_environment, python, unused_port
from .run import CLIENTS

SECONDS = float(os.environ.get("OAUTH_SECONDS", "5"))
TOKEN_SECONDS = 2

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300 + 3 * SECONDS)]

CLIENT_ENVIRONMENTS = {"mcp": "mcp-1.30", "fastmcp": "mcp-2"}
SERVER_ENVIRONMENTS = {"mcp": "mcp-1.30", "fastmcp": "mcp-2"}


class Stand:
    """An authorization server, an MCP server that takes its tokens, and the proxy before that."""

    def __init__(self, url: str, issuer: str, home: Path) -> None:
        self.url = url
        self._issuer = issuer
        self._home = home

    async def count(self, client: str, mode: str) -> tuple[list[int], int]:
        """What a client counts, and how many tokens it had for that."""
        process = await asyncio.create_subprocess_exec(
            *(python(CLIENT_ENVIRONMENTS[client]), str(CLIENTS / f"oauth_{client}.py")),
            *(self.url, str(SECONDS), mode),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=program_environment(self._home),
        )
        told, complained = await process.communicate()
        assert process.returncode == 0, complained.decode()
        seen = json.loads(told)
        return [int(count) for count in seen["counts"]], seen["tokens"]

    async def refreshed(self) -> int:
        """How many tokens were refreshed ones, by the authorization server."""
        async with httpx.AsyncClient() as http:
            return int((await http.get(f"{self._issuer}/issued")).json()["refreshed"])


MakeStand = Callable[..., Stand]


@pytest.fixture
def stand(owned: Fleet, tmp_path: Path) -> Iterator[MakeStand]:
    """Starts all three."""
    running: list[Program] = []

    def run(name: str, environment: str, script: str, port: int, *options: str) -> None:
        program = Program(
            name=name,
            command=[python(environment), str(SERVERS / script), "--port", str(port), *options],
            log=tmp_path / f"{name}.log",
            environment=program_environment(tmp_path / "home"),
        )
        running.append(program)
        program.start(lambda: accepts_connections(port))

    def start(server: str, algorithm: str, sharing: str) -> Stand:
        inner, outer, signing_in = unused_port(), unused_port(), unused_port()
        public, issuer = f"http://127.0.0.1:{outer}", f"http://127.0.0.1:{signing_in}"
        private, known = _keys(algorithm)
        (tmp_path / "private").write_text(private)
        (tmp_path / "known").write_text(known)
        run(
            "sign-in",
            "mcp-1.30",
            "authorization_server.py",
            signing_in,
            *("--algorithm", algorithm, "--key", str(tmp_path / "private"), "--seconds", str(TOKEN_SECONDS)),
        )
        run(
            "server",
            SERVER_ENVIRONMENTS[server],
            "jwt_server.py",
            inner,
            *("--library", server, "--algorithm", algorithm, "--key", str(tmp_path / "known")),
            *("--issuer", issuer, "--audience", f"{public}/mcp", "--public", public),
        )
        proxy = owned.new_proxy(
            f"http://127.0.0.1:{inner}/mcp", "--sharing", sharing, listen=f"127.0.0.1:{outer}"
        )
        return Stand(proxy.url, issuer, tmp_path / "client")

    yield start
    for program in running:
        program.kill()


def _keys(algorithm: str) -> tuple[str, str]:
    """What tokens are signed with, and what they are checked with."""
    if algorithm == "HS256":
        return ("a secret of thirty-two bytes or more, as it should be",) * 2
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = serialization.Encoding.PEM
    public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return private.decode(), public.decode()


_ALL = [
    (client, server, algorithm, sharing)
    for client in ("mcp", "fastmcp")
    for server in ("mcp", "fastmcp")
    for algorithm in ("RS256", "HS256")
    for sharing in ("handover", "isolated", "shared", "fresh")
]
# Each of all that there is, and both clients at both servers.
_SOME = [
    ("mcp", "mcp", "RS256", "handover"),
    ("fastmcp", "mcp", "HS256", "isolated"),
    ("mcp", "fastmcp", "HS256", "shared"),
    ("fastmcp", "fastmcp", "RS256", "fresh"),
]


@pytest.mark.share(2)
@pytest.mark.parametrize(("client", "server", "algorithm", "sharing"), _ALL if THOROUGH else _SOME)
async def test_a_client_that_refreshes_goes_on_counting(
    stand: MakeStand,
    client: str,
    server: str,
    algorithm: str,
    sharing: str,
) -> None:
    """1, 2, 3 and so on, over a new token every two seconds."""
    at = stand(server, algorithm, sharing)
    # Modern requests have no session, and under `fresh` nothing in common.
    counts, tokens = await at.count(client, "legacy" if sharing == "fresh" else "auto")
    refreshed = await at.refreshed()
    print(
        f"{client}'s client, {server}'s server, {algorithm}, --sharing {sharing}: counted to {counts[-1]} in "
        f"{SECONDS:.0f} s with {tokens} tokens, {refreshed} of them refreshed"
    )
    assert counts == list(range(1, len(counts) + 1))
    assert refreshed >= SECONDS / (TOKEN_SECONDS + 2)
