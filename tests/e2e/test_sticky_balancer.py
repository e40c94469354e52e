"""Two replicas of a real server behind a real balancer that tells sessions apart by its own cookie."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from mcp import types

from .launch import Fleet, Program, Proxy, accepts_connections, install, program_environment, unused_port
from .modern_wire import ModernCaller
from .sdk import call, connected
from .wire import Caller, Reply

pytestmark = pytest.mark.e2e

CONFIGURATION = """
global
    maxconn 200
defaults
    mode http
    timeout connect 10s
    timeout client 1h
    timeout server 1h
frontend clients
    bind 127.0.0.1:{port}
    default_backend replicas
backend replicas
    balance roundrobin
    cookie ROUTE insert indirect nocache
    server one 127.0.0.1:{one} cookie one
    server two 127.0.0.1:{two} cookie two
"""
# Each session of `server-everything` has a switch.
SWITCH = "toggle-simulated-logging"


@pytest.fixture(scope="module")
def balancer(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """HAProxy before two replicas: whoever brings no cookie is sent to the next one in turn."""
    program = install.find_program("haproxy")
    assert program is not None, "haproxy is not installed: run `make envs`"
    home = tmp_path_factory.mktemp("haproxy")
    port = unused_port()
    one, two = (fleet.new_server("everything").port for _ in range(2))
    configuration = Path(home / "haproxy.cfg")
    configuration.write_text(CONFIGURATION.format(port=port, one=one, two=two))
    haproxy = Program(
        name="haproxy",
        command=[program, "-db", "-f", str(configuration)],
        log=home / "output.log",
        environment=program_environment(home),
    )
    haproxy.start(lambda: accepts_connections(port))
    yield f"http://127.0.0.1:{port}/mcp"
    haproxy.terminate()


@pytest.fixture(scope="module")
def proxy(fleet: Fleet, balancer: str) -> Proxy:
    """The proxy before that."""
    return fleet.new_proxy(balancer)


async def test_a_client_without_cookies_fails_by_itself(balancer: str, http: aiohttp.ClientSession) -> None:
    """What these tests are about: past the proxy, the second request of a session meets another replica."""
    caller = Caller(http, balancer)
    reply = await caller.initialize()
    assert "ROUTE=" in reply.headers["Set-Cookie"]
    assert (await caller.notify("notifications/initialized", session=reply.session)).status == 400


@pytest.mark.parametrize("era", ["session", "sessionless", "modern"])
async def test_a_session_stays_at_its_replica(era: str, proxy: Proxy, http: aiohttp.ClientSession) -> None:
    """Clients of every era find their session's state again, and never see the balancer's cookie."""
    caller = ModernCaller(http, proxy.url)
    session = None
    if era == "session":
        opened = await caller.initialize()
        assert "Set-Cookie" not in opened.headers
        session = opened.session
        assert (await caller.notify("notifications/initialized", session=session)).status == 202

    async def switch() -> Reply:
        return await (caller.call_modern(SWITCH) if era == "modern" else caller.call(SWITCH, session=session))

    replies = [await switch() for _ in range(4)]
    assert [reply.text.split()[0] for reply in replies] == ["Started", "Stopped"] * 2
    assert all("Set-Cookie" not in reply.headers for reply in replies)


async def test_many_callers(proxy: Proxy, http: aiohttp.ClientSession) -> None:
    """Each caller's session has the cookie of its own replica, whatever runs beside it."""

    async def use(caller: Caller) -> list[str]:
        return [(await caller.call(SWITCH)).text.split()[0] for _ in range(4)]

    seen = await asyncio.gather(*(use(Caller(http, proxy.url)) for _ in range(20)))
    assert seen == [["Started", "Stopped"] * 2] * 20


async def test_questions_and_answers_go_the_same_way(proxy: Proxy) -> None:
    """What the server asks and what the client answers meet at the same replica, too."""

    async def sampled(*_: Any) -> types.CreateMessageResult:
        content = types.TextContent(type="text", text="forty-two")
        return types.CreateMessageResult(role="assistant", content=content, model="none")

    for caller in ("ada", "bob", "cyd"):
        async with connected(proxy.url, caller, sampling_callback=sampled) as client:
            told = await call(client, "trigger-sampling-request", prompt="What is it?", maxTokens=10)
            assert "forty-two" in told
