"""Sockets that systemd passes on: which are taken, for whom, and what is said of wrong ones."""

import asyncio
import contextlib
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from http_server import HttpServer
from messages import call
from programs import running

from mcp_session_proxy.assembly.activation import Inherited, inherit
from mcp_session_proxy.assembly.sockets import CannotStart
from mcp_session_proxy.settings.config import load
from mcp_session_proxy.settings.values import Address

pytestmark = pytest.mark.slow


@pytest.fixture
def opened() -> Iterator[contextlib.ExitStack]:
    """What a test opens is closed again."""
    with contextlib.ExitStack() as stack:
        yield stack


def tcp() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def unix(path: Path) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen()
    return listening


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose name leaves room for a socket's."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def origin(listening: socket.socket) -> str:
    return f"http://127.0.0.1:{listening.getsockname()[1]}"


async def test_serves_on_them(server: HttpServer, tmp_path: Path) -> None:
    """The first is for clients and the second for operators, whatever --listen says; its URLs are told."""
    with tcp() as public, tcp() as admin:
        async with running(
            tmp_path, server.url, "--listen", "192.0.2.1:1", sockets=[public, admin]
        ) as program:
            announced = await program.ready()
            assert announced["endpoint"] == f"{origin(public)}/mcp"
            assert announced["admin"] == origin(admin)
            async with aiohttp.ClientSession() as http:
                async with http.post(announced["endpoint"], json=call()) as answer:
                    assert (await answer.json())["result"] == {"count": 1}
                async with http.get(f"{announced['admin']}/healthz") as answer:
                    assert answer.status == 200
            program.process.terminate()
            assert await program.ends() == 0


@pytest.mark.parametrize("names", ["admin:public", "admin-listen:x.socket", "x-admin.socket:x.socket"])
async def test_names_say_which_is_which(server: HttpServer, tmp_path: Path, names: str) -> None:
    """In any order: those that a socket unit gives, and those that systemd gives by itself."""
    with tcp() as admin, tcp() as public:
        async with running(tmp_path, server.url, sockets=[admin, public], names=names) as program:
            announced = await program.ready()
            assert (announced["listen"], announced["admin"]) == (origin(public), origin(admin))


async def test_several_for_clients(server: HttpServer, tmp_path: Path) -> None:
    """One unit may listen at several addresses; the admin listener is bound as ever."""
    with tcp() as one, tcp() as other:
        options = ("--admin-listen", "127.0.0.1:0")
        async with running(
            tmp_path, server.url, *options, sockets=[one, other], names="public:public"
        ) as program:
            announced = await program.ready()
            assert announced["admin"] not in (origin(one), origin(other))
            async with aiohttp.ClientSession() as http:
                for listening in (one, other):
                    async with http.post(f"{origin(listening)}/mcp", json=call()) as answer:
                        assert answer.status == 200


async def test_unix_sockets(server: HttpServer, tmp_path: Path, short: Path) -> None:
    """Clients and operators come by path; the address of none of them is made up; the files stay."""
    with unix(short / "mcp") as public, unix(short / "admin") as admin:
        async with running(tmp_path, server.url, sockets=[public, admin], names="public:admin") as program:
            announced = await program.ready()
            assert announced["endpoint"] == f"http://unix:{short}/mcp:/mcp"
            async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(short / "mcp"))) as http:
                said = {"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "https"}
                async with http.post("http://localhost/mcp", json=call(), headers=said) as answer:
                    assert answer.status == 200
                async with http.get("http://localhost/other", headers=said) as answer:
                    assert answer.status == 404
            connector = aiohttp.UnixConnector(str(short / "admin"))
            async with aiohttp.ClientSession(connector=connector) as http:
                async with http.get("http://localhost/healthz") as answer:
                    assert answer.status == 200
                async with http.get("http://localhost/healthz", headers={"Host": "evil.example"}) as answer:
                    assert answer.status == 403
            program.process.terminate()
            assert await program.ends() == 0
        assert (short / "mcp").is_socket()
    assert server.posts("tools/call")[0][0].headers.get("X-Forwarded-For") is None


async def test_a_restart_refuses_nobody(server: HttpServer, tmp_path: Path) -> None:
    """While one process ends and the next one starts, clients wait; whoever is in has its answers."""
    stop = asyncio.Event()
    told: list[int] = []

    async def ask() -> None:
        async with aiohttp.ClientSession() as http:
            while not stop.is_set():
                async with http.post(url, json=call()) as answer:
                    told.append(answer.status)

    with tcp() as public:
        url = f"{origin(public)}/mcp"
        asking: list[asyncio.Task[None]] = []
        for _ in range(3):
            async with running(
                tmp_path, server.url, "--admin-listen", "off", sockets=[public], names="public"
            ) as program:
                await program.ready()
                asking = asking or [asyncio.create_task(ask()) for _ in range(4)]
                before = len(told)
                while len(told) < before + 20:
                    await asyncio.sleep(0.01)
                    assert not any(each.done() for each in asking)
                program.process.terminate()
                assert await program.ends() == 0
        async with running(
            tmp_path, server.url, "--admin-listen", "off", sockets=[public], names="public"
        ) as program:
            await program.ready()
            stop.set()
            await asyncio.gather(*asking)
    assert set(told) == {200}
    # Each exactly once.
    assert len(server.posts("tools/call")) == len(told)


async def test_reloading_keeps_the_address(server: HttpServer, tmp_path: Path) -> None:
    """SIGHUP does not take the passed sockets' addresses for a change that needs a restart."""
    with tcp() as public:
        file = tmp_path / "proxy.toml"
        file.write_text('admin-listen = "off"\n')
        async with running(tmp_path, server.url, "--config", str(file), sockets=[public]) as program:
            await program.ready()
            file.write_text('admin-listen = "off"\nmax-sessions = 7\n')
            program.process.send_signal(1)
            reloaded = await program.hears("config.reloaded")
    assert (reloaded["changed"], reloaded.get("needs_restart")) == ("max-sessions", None)


@pytest.mark.parametrize(
    ("environment", "problem"),
    [
        ({"LISTEN_FDS": "2"}, "file descriptor 4, which is not open"),
        ({"LISTEN_FDS": "many"}, "LISTEN_FDS is 'many', which is no number"),
        ({"LISTEN_FDS": "-1"}, "LISTEN_FDS is '-1', which is no number"),
        ({"LISTEN_FDS": "4000000000"}, "file descriptor 4, which is not open"),
    ],
)
async def test_wrong_numbers(
    server: HttpServer, tmp_path: Path, environment: dict[str, str], problem: str
) -> None:
    """One line says which variable promises what is not there."""
    with tcp() as public:
        async with running(tmp_path, server.url, sockets=[public], **environment) as program:
            assert await program.ends() == 1
    assert len(program.said) == 1
    assert problem in program.complaint


async def test_wrong_kinds(server: HttpServer, tmp_path: Path) -> None:
    """A datagram socket, one that does not listen, a connection, a file: none of them can be served on."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram,
        socket.socket() as bound,
        tcp() as other,
    ):
        bound.bind(("127.0.0.1", 0))
        with socket.create_connection(other.getsockname()) as connection, open(os.devnull) as file:
            for given, problem in (
                (datagram, "it is no stream socket (in a socket unit: ListenStream=)"),
                (bound, "it does not listen (in a socket unit: Accept=no)"),
                (connection, "it does not listen (in a socket unit: Accept=no)"),
                (file.fileno(), "file descriptor 3, which is something else"),
            ):
                async with running(tmp_path, server.url, sockets=[given]) as program:
                    assert await program.ends() == 1
                assert problem in program.complaint
                assert len(program.said) == 1


async def test_names_that_do_not_fit(server: HttpServer, tmp_path: Path) -> None:
    """As many names as sockets; and more than two sockets need some."""
    with tcp() as one, tcp() as two, tcp() as three:
        for sockets, names, problem in (
            ([one], "public:admin", "LISTEN_FDNAMES has 2 names for the 1 sockets of LISTEN_FDS"),
            ([one, two, three], "none", "3 sockets were passed without names"),
        ):
            async with running(tmp_path, server.url, sockets=sockets, names=names) as program:
                assert await program.ends() == 1
            assert problem in program.complaint


async def test_meant_for_somebody_else(server: HttpServer, tmp_path: Path) -> None:
    """Variables that name another process are none of our business."""
    options = ("--listen", "127.0.0.1:0", "--admin-listen", "off")
    with tcp() as public:
        async with running(tmp_path, server.url, *options, sockets=[public], LISTEN_PID="1") as program:
            announced = await program.ready()
            assert announced["listen"] != origin(public)


def test_children_hear_nothing_of_it(opened: contextlib.ExitStack) -> None:
    """The variables are taken away and the sockets are closed in programs that are started."""
    listening = tcp()
    number = listening.detach()
    os.set_inheritable(number, True)
    environment = {
        "LISTEN_PID": str(os.getpid()),
        "LISTEN_FDS": "1",
        "LISTEN_FDNAMES": "public",
        "OTHER": "1",
    }
    found = inherit(environment, first=number)
    assert environment == {"OTHER": "1"}
    assert found.public is not None
    opened.callback(found.public.close)
    assert not os.get_inheritable(number)


def test_nothing_was_passed() -> None:
    """The usual case changes nothing."""
    settings = load({"upstream": "http://127.0.0.1/mcp"})
    assert inherit({}) == Inherited()
    assert Inherited().fit(settings) == settings
    assert inherit({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "0"}) == Inherited()


def test_what_others_can_reach_counts(opened: contextlib.ExitStack) -> None:
    """With one listener on loopback and one on every interface, other machines can connect."""
    loopback, everywhere = opened.enter_context(tcp()), opened.enter_context(socket.create_server(("", 0)))
    with pytest.raises(CannotStart):
        inherit({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "x"})
    from mcp_session_proxy.assembly.sockets import adopt

    assert not adopt([loopback, everywhere]).address.is_loopback
    assert adopt([loopback]).address == Address("127.0.0.1", loopback.getsockname()[1])
