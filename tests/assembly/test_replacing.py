"""One process takes the place of another, sockets and clients included; and how that can go wrong."""

import asyncio
import contextlib
import errno
import itertools
import os
import signal
import socket
import stat
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from http_server import HttpServer, reply_to
from messages import INITIALIZE, call
from programs import Program, running
from proxy_bench import PATIENCE_SECONDS, until
from selection import THOROUGH

from mcp_session_proxy.aio import readable, unix_name
from mcp_session_proxy.assembly import replacing
from mcp_session_proxy.assembly.replacing import Predecessor, Replaceable, place
from mcp_session_proxy.assembly.sockets import CannotStart, Role, bind
from mcp_session_proxy.events import Event
from mcp_session_proxy.settings.values import Address

pytestmark = pytest.mark.slow

ANYWHERE = Address("127.0.0.1", 0)
OPTIONS = ("--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--replace")
# One takes three seconds.
REPLACEMENTS = 20 if THOROUGH else 4


# -- the program -------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def meeting(folder: Path, server: HttpServer, *options: str) -> AsyncIterator[Program]:
    """The program, where others of the same folder can take its place."""
    meeting_place = folder / "run"
    meeting_place.mkdir(exist_ok=True)
    async with running(
        folder, server.url, *OPTIONS, *options, RUNTIME_DIRECTORY=str(meeting_place)
    ) as program:
        yield program


async def test_replacements(server: HttpServer, tmp_path: Path) -> None:
    """Clients that call without pause notice nothing: none is refused, cut off or told to come again.

    And no call is executed twice, nor lost.
    """
    stop = asyncio.Event()
    told: dict[str, list[int]] = {"kept": [], "new": [], "session": []}

    async def call_on_one_connection() -> None:
        async with aiohttp.ClientSession() as http:
            while not stop.is_set():
                async with http.post(url, json=call()) as answer:
                    told["kept"].append(answer.status)

    async def call_on_new_connections() -> None:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as http:
            while not stop.is_set():
                async with http.post(url, json=call()) as answer:
                    told["new"].append(answer.status)

    async def call_in_a_session() -> None:
        async with aiohttp.ClientSession() as http:
            async with http.post(url, json=INITIALIZE) as answer:
                session = {"Mcp-Session-Id": answer.headers["Mcp-Session-Id"]}
            while not stop.is_set():
                async with http.post(url, json=call(), headers=session) as answer:
                    told["session"].append(answer.status)

    async with contextlib.AsyncExitStack() as stack:
        program = await stack.enter_async_context(meeting(tmp_path, server))
        announced = await program.ready()
        url = announced["endpoint"]
        clients = [
            asyncio.create_task(client())
            for client in (call_on_one_connection, call_on_new_connections, call_in_a_session) * 2
        ]
        for _ in range(REPLACEMENTS):
            successor = await stack.enter_async_context(meeting(tmp_path, server))
            assert await successor.ready() == announced
            assert (await successor.hears("proxy.took_over"))["pid"] == program.process.pid
            assert await program.ends() == 0
            before = {kind: len(statuses) for kind, statuses in told.items()}
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not all(len(told[kind]) > before[kind] + 2 for kind in told):
                    ended = [client for client in clients if client.done()]
                    assert not ended, ended
                    await asyncio.sleep(0.001)
            program = successor
        stop.set()
        await asyncio.gather(*clients)
    statuses = [status for each in told.values() for status in each]
    assert set(statuses) == {200}
    assert len(server.posts("tools/call")) == len(statuses)


async def test_calls_in_flight_are_finished(server: HttpServer, tmp_path: Path) -> None:
    """The old process answers what it has begun, while the new one serves already."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(_: web.Request, message: Any) -> web.StreamResponse:
        if message["params"].get("slow"):
            begun.set()
            await go_on.wait()
        return reply_to(message, {"done": True})

    server.on["tools/call"] = slow
    async with meeting(tmp_path, server) as old, aiohttp.ClientSession() as http:
        url = (await old.ready())["endpoint"]
        asking = asyncio.create_task(http.post(url, json=call(slow=True)))
        await begun.wait()
        async with meeting(tmp_path, server) as new:
            await new.ready()
            await old.hears("proxy.draining")
            async with aiohttp.ClientSession() as other, other.post(url, json=call()) as answer:
                assert answer.status == 200
            assert old.process.returncode is None
            go_on.set()
            answer = await asking
            assert (answer.status, answer.headers["Connection"]) == (200, "close")
            assert await old.ends() == 0


async def test_state_goes_along(server: HttpServer, tmp_path: Path) -> None:
    """With --state-dir, the new process goes on in the sessions of the old one: the server counts on.

    It waits until the old one has let go of them, and nobody is refused meanwhile.
    """
    state = str(tmp_path / "state")
    stop = asyncio.Event()
    counts: list[int] = []

    async def count() -> None:
        async with aiohttp.ClientSession() as http:
            async with http.post(url, json=INITIALIZE) as answer:
                session = {"Mcp-Session-Id": answer.headers["Mcp-Session-Id"]}
            while not stop.is_set():
                async with http.post(url, json=call(), headers=session) as answer:
                    assert answer.status == 200, await answer.text()
                    counts.append((await answer.json())["result"]["count"])

    async with contextlib.AsyncExitStack() as stack:
        options = (*OPTIONS, "--state-dir", state)
        program = await stack.enter_async_context(running(tmp_path, server.url, *options))
        url = (await program.ready())["endpoint"]
        counting = asyncio.create_task(count())
        for _ in range(3):
            before = len(counts)
            await until(lambda: counting.done() or len(counts) > before + 10)  # noqa: B023
            successor = await stack.enter_async_context(running(tmp_path, server.url, *options))
            await successor.ready()
            assert await program.ends() == 0
            program = successor
        before = len(counts)
        await until(lambda: counting.done() or len(counts) > before + 10)
        stop.set()
        await counting
    assert counts == list(range(1, len(counts) + 1))
    assert len(server.posts("initialize")) == 1


async def test_one_that_does_not_start(server: HttpServer, tmp_path: Path) -> None:
    """The old process goes on as if nothing had happened, and can be replaced by the next one."""
    async with meeting(tmp_path, server) as old:
        announced = await old.ready()
        async with meeting(tmp_path, server, "--announce", str(tmp_path / "no" / "file")) as new:
            assert await new.ends() == 1
            assert "see --announce" in new.complaint
        failed = await old.hears("proxy.replacement_failed")
        assert (failed["pid"], failed["problem"]) == (new.process.pid, "it did not start")
        async with aiohttp.ClientSession() as http, http.post(announced["endpoint"], json=call()) as answer:
            assert answer.status == 200
        async with meeting(tmp_path, server) as new:
            assert await new.ready() == announced
            assert await old.ends() == 0


async def test_one_that_was_killed(server: HttpServer, tmp_path: Path) -> None:
    """What it leaves behind is in nobody's way."""
    async with meeting(tmp_path, server) as old:
        await old.ready()
        old.process.kill()
        await old.ends()
    (left,) = (tmp_path / "run").iterdir()
    assert left.is_socket()
    async with meeting(tmp_path, server) as new:
        await new.ready()
        async with meeting(tmp_path, server) as newer:
            await newer.ready()
            assert await new.ends() == 0


async def test_nothing_is_left_behind(server: HttpServer, tmp_path: Path) -> None:
    """Only its user can reach a process by its socket, and at its end that is removed."""
    async with meeting(tmp_path, server) as program:
        await program.ready()
        (waiting,) = (tmp_path / "run").iterdir()
        assert stat.S_IMODE(waiting.stat().st_mode) == 0o600
        program.process.terminate()
        assert await program.ends() == 0
    assert list((tmp_path / "run").iterdir()) == []


async def test_no_place_to_meet(server: HttpServer, tmp_path: Path) -> None:
    """Without a directory there is no way to find each other; the message says what to do."""
    async with running(tmp_path, server.url, *OPTIONS) as program:
        assert await program.ends() == 1
    assert "RUNTIME_DIRECTORY" in program.complaint


async def test_a_directory_that_is_not_there(server: HttpServer, tmp_path: Path) -> None:
    """The program serves, and says that nobody can take its place."""
    missing = str(tmp_path / "missing")
    async with running(tmp_path, server.url, *OPTIONS, RUNTIME_DIRECTORY=missing) as program:
        await program.ready()
        assert missing in (await program.hears("proxy.not_replaceable"))["problem"]


async def test_systemd_has_the_sockets(server: HttpServer, tmp_path: Path) -> None:
    """They would go to the next process anyway."""
    with socket.create_server(("127.0.0.1", 0)) as public:
        async with running(
            tmp_path, server.url, *OPTIONS, sockets=[public], RUNTIME_DIRECTORY=str(tmp_path)
        ) as program:
            assert await program.ends() == 1
    assert "--replace: systemd has passed the sockets" in program.complaint


async def test_another_admin_listener(server: HttpServer, tmp_path: Path) -> None:
    """What is asked for elsewhere is bound there, and what nobody asks for any more is closed."""
    async with meeting(tmp_path, server) as old:
        admin = (await old.ready())["admin"]
        async with meeting(tmp_path, server, "--admin-listen", "off") as new:
            assert (await new.ready())["admin"] is None
            assert await old.ends() == 0
            async with aiohttp.ClientSession() as http:
                with pytest.raises(aiohttp.ClientConnectorError):
                    await http.get(f"{admin}/healthz")


async def test_streams_end_gracefully(server: HttpServer, tmp_path: Path) -> None:
    """A client's GET stream is ended and not cut, and finds the new process when it is opened again."""
    async with meeting(tmp_path, server) as old, aiohttp.ClientSession() as http:
        url = (await old.ready())["endpoint"]
        async with http.post(url, json=INITIALIZE) as answer:
            session = {"Mcp-Session-Id": answer.headers["Mcp-Session-Id"]}
        async with http.get(url, headers=session) as stream:
            assert stream.status == 200
            async with meeting(tmp_path, server) as new:
                await new.ready()
                await stream.content.read()
                async with http.get(url, headers=session) as again:
                    assert again.status == 200
                    assert await old.ends() == 0


# -- the two sides -----------------------------------------------------------------------------------


class Older:
    """A process that can be replaced, without the process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ceased = 0
        self.wait_seconds: float | None = None
        self.replaced = asyncio.Event()
        self.events: list[Event] = []
        self.stack = contextlib.ExitStack()

    async def start(self) -> "Older":
        bound = await bind(ANYWHERE, "--listen")
        self.stack.callback(bound.close)
        self.port = bound.address.port
        self.side = Replaceable(
            self.path,
            {(Role.PUBLIC, ANYWHERE): bound.sockets},
            cease=self.cease,
            replaced=self.replaced.set,
            wait_seconds=lambda: self.wait_seconds,
            observe=self.events.append,
        )
        self.side.open()
        self.stack.callback(self.side.leave)
        self.stack.callback(self.side.close)
        return self

    async def cease(self) -> None:
        self.ceased += 1

    def told(self) -> list[tuple[str, str | None]]:
        return [(event.name, getattr(event, "problem", None)) for event in self.events]


@pytest.fixture
async def older(tmp_path: Path) -> AsyncIterator[Older]:
    older = await Older(tmp_path / "replace.sock").start()
    with older.stack:
        yield older


@contextlib.contextmanager
def asking(path: Path) -> Iterator[socket.socket]:
    """Whoever connects, and says what it likes."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        with unix_name(path) as name:
            connection.connect(name)
        connection.setblocking(False)
        yield connection


async def found(path: Path) -> Predecessor:
    predecessor = await Predecessor.find(path)
    assert predecessor is not None
    return predecessor


async def test_the_sockets_are_the_same(older: Older) -> None:
    """They are had by role and address; nothing else is; and both have them until the newer one is ready."""
    predecessor = await found(older.path)
    bound = predecessor.sockets(Role.PUBLIC, ANYWHERE)
    assert bound is not None
    assert bound.address.port == older.port
    older.stack.callback(bound.close)
    assert predecessor.sockets(Role.ADMIN, ANYWHERE) is None
    assert predecessor.sockets(Role.PUBLIC, Address("127.0.0.1", 1)) is None
    assert older.ceased == 0
    await predecessor.replace()
    assert older.ceased == 1
    await older.replaced.wait()
    predecessor.close()


@pytest.fixture
def several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each connection seems to be another process's."""
    numbers = itertools.count(1_000_000)
    monkeypatch.setattr(replacing, "peer_process", lambda _: (next(numbers), os.geteuid()))


@pytest.mark.usefixtures("several_processes")
async def test_the_first_that_is_ready(older: Older) -> None:
    """Of several that are starting it takes the place; the others are told so, then and for ever after."""
    first, second = await found(older.path), await found(older.path)
    await second.replace()
    with pytest.raises(CannotStart, match="goes on: it is being replaced already"):
        await first.replace()
    with pytest.raises(CannotStart, match="hands nothing over: it is being replaced already"):
        await Predecessor.find(older.path)
    first.close()
    second.close()
    assert older.ceased == 1


@pytest.mark.usefixtures("several_processes")
async def test_one_that_is_stuck(older: Older) -> None:
    """Processes that ask and are never ready keep nobody from taking the place, however many they are.

    There are few of them at a time: the first ones make room.
    """
    with contextlib.ExitStack() as stack:
        stuck = [stack.enter_context(asking(older.path)) for _ in range(20)]
        predecessor = await found(older.path)
        handed = stuck[0].recv(10_000)
        assert b'"sockets":[[' in handed
        assert stuck[0].recv(10_000) == b"others have asked since"
        await until(lambda: len(older.told()) >= 12)
        await predecessor.replace()
        predecessor.close()
    assert older.ceased == 1


async def test_a_process_asks_once(older: Older) -> None:
    """When it asks again, its first question is over."""
    with asking(older.path) as first:
        predecessor = await found(older.path)
        assert first.recv(10_000) != b""
        assert first.recv(10_000) == b"others have asked since"
        await predecessor.replace()
        predecessor.close()


@pytest.mark.usefixtures("several_processes")
async def test_the_older_one_ends_while_several_start(older: Older) -> None:
    """Who has asked last goes on, and no other: the sockets are for one."""
    first, second = await found(older.path), await found(older.path)
    older.stack.close()
    await second.replace()
    with pytest.raises(CannotStart, match="goes on: it is being replaced already"):
        await first.replace()
    first.close()
    second.close()


async def test_no_descriptors_are_left(older: Older, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who cannot be accepted waits, and the process has better things to do than to try without end."""
    tried = 0

    def accept(_: socket.socket) -> None:
        nonlocal tried
        tried += 1
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(replacing, "_PAUSE_SECONDS", 0.01)
    with monkeypatch.context() as without:
        without.setattr(socket.socket, "accept", accept)
        finding = asyncio.create_task(found(older.path))
        await until(lambda: tried)
        for _ in range(100):
            await asyncio.sleep(0)
        assert tried < 10
    predecessor = await finding
    await predecessor.replace()
    predecessor.close()


async def test_a_queue_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever finds the queue full waits for a place in it, but not for ever."""
    path = tmp_path / "replace.sock"
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as busy,
        contextlib.ExitStack() as waiting,
    ):
        busy.bind(str(path))
        busy.listen(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                one = waiting.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
                one.setblocking(False)
                one.connect(str(path))
        monkeypatch.setattr(replacing, "_PAUSE_SECONDS", 0.01)
        with monkeypatch.context() as hasty:
            hasty.setattr(replacing, "_ANSWER_SECONDS", 0.03)
            with pytest.raises(CannotStart, match="too many others ask there"):
                await Predecessor.find(path)
        finding = asyncio.create_task(Predecessor.find(path))
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not finding.done():
                busy.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    busy.accept()[0].close()
                await asyncio.sleep(0.001)
        assert await finding is None


@contextlib.asynccontextmanager
async def asked(folder: Path) -> AsyncIterator[tuple["asyncio.Task[Predecessor | None]", socket.socket]]:
    """Who looks for an older one, and the connection on which a strange one was asked."""
    path = folder / "replace.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as strange:
        strange.bind(str(path))
        strange.listen()
        finding = asyncio.create_task(Predecessor.find(path))
        await readable(strange)
        connection, _ = strange.accept()
        with connection:
            yield finding, connection


@pytest.mark.parametrize("word", ["x", "-1", "nan", ""])
async def test_a_time_that_is_none(tmp_path: Path, word: str) -> None:
    """An older one that names no time to wait for is not waited for."""
    packet = b'{"version": "9", "sockets": [["public", "127.0.0.1:0"]]}'
    async with asked(tmp_path) as (finding, connection):
        with socket.create_server(("127.0.0.1", 0)) as one:
            socket.send_fds(connection, [packet], [one.fileno()])
        predecessor = await finding
        assert predecessor is not None
        connection.send(f"wait {word}".encode())
        with pytest.raises(CannotStart, match="does not answer"):
            await predecessor.replace()
        predecessor.close()


async def test_one_that_gives_up(older: Older) -> None:
    """Its turn is over, and the next one's begins."""
    (await found(older.path)).close()
    await until(lambda: older.told() == [("proxy.replacement_failed", "it did not start")])
    second = await found(older.path)
    await second.replace()
    second.close()
    assert older.ceased == 1


async def test_one_that_takes_too_long(older: Older, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told so and accepts nobody; the older one goes on."""
    monkeypatch.setattr(replacing, "_START_SECONDS", 0.01)
    predecessor = await found(older.path)
    await until(lambda: older.events)
    with pytest.raises(CannotStart, match="goes on: it took too long to start"):
        await predecessor.replace()
    predecessor.close()
    assert (older.ceased, older.told()) == (0, [("proxy.replacement_failed", "it took too long to start")])


async def test_one_that_says_something_else(older: Older) -> None:
    """What is not the agreed word is no readiness."""
    with asking(older.path) as connection:
        connection.send(b"READY")
        await until(lambda: older.events)
    assert older.told() == [("proxy.replacement_failed", "it did not start")]
    assert older.ceased == 0


async def test_the_older_one_ends_meanwhile(older: Older) -> None:
    """Then it accepts nobody, so the newer one does, with sockets that are still open."""
    predecessor = await found(older.path)
    bound = predecessor.sockets(Role.PUBLIC, ANYWHERE)
    assert bound is not None
    older.stack.close()
    await predecessor.replace()
    with socket.create_connection(("127.0.0.1", older.port)):
        pass
    bound.close()
    predecessor.close()


async def test_the_older_one_keeps_state(older: Older) -> None:
    """It has to let go of its directory before the newer one goes on."""
    older.wait_seconds = PATIENCE_SECONDS
    predecessor = await found(older.path)
    replacing_it = asyncio.create_task(predecessor.replace())
    await older.replaced.wait()
    older.side.close()
    assert not replacing_it.done()
    older.side.leave()
    await replacing_it
    predecessor.close()


async def test_the_older_one_does_not_let_go(older: Older) -> None:
    """Not for ever: it has said how long that may take."""
    older.wait_seconds = 0.01
    predecessor = await found(older.path)
    with pytest.raises(CannotStart, match=f"process {os.getpid()} does not answer"):
        await predecessor.replace()
    predecessor.close()


async def test_the_older_one_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is stuck is not waited for for ever."""
    monkeypatch.setattr(replacing, "_ANSWER_SECONDS", 0.01)
    path = tmp_path / "replace.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stuck:
        stuck.bind(str(path))
        stuck.listen()
        with pytest.raises(CannotStart, match=f"process {os.getpid()} does not answer"):
            await Predecessor.find(path)


@pytest.mark.parametrize(
    "packet",
    [b"{", b'{"version": "9"}', b'{"version": "9", "sockets": [["public", "x:1"]]}', b'{"sockets": 1}'],
)
async def test_the_older_one_speaks_differently(tmp_path: Path, packet: bytes) -> None:
    """What cannot be understood, or has other sockets than it says, is refused; and nothing leaks."""
    async with asked(tmp_path) as (finding, connection):
        with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
            socket.send_fds(connection, [packet], [one.fileno(), two.fileno()])
        connection.close()
        with pytest.raises(CannotStart, match=f"--replace: process {os.getpid()} hands nothing over"):
            await finding


async def test_the_older_one_is_ending(tmp_path: Path) -> None:
    """By itself, that is: it listens no more, so there is nothing to be had."""
    path = tmp_path / "replace.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as ending:
        ending.bind(str(path))
        ending.listen()
        finding = asyncio.create_task(Predecessor.find(path))
        await readable(ending)
        ending.accept()[0].close()
        assert await finding is None


async def test_nobody_is_there(tmp_path: Path) -> None:
    """No file, or one that a killed process left: there is nobody to replace."""
    assert await Predecessor.find(tmp_path / "replace.sock") is None
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as left:
        left.bind(str(tmp_path / "replace.sock"))
    assert await Predecessor.find(tmp_path / "replace.sock") is None


async def test_other_users_get_nothing(older: Older, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs as somebody else is not answered, whatever the file's mode has become."""
    monkeypatch.setattr(replacing, "peer_process", lambda _: (7, os.geteuid() + 1))
    with asking(older.path) as connection:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await readable(connection)
        assert connection.recv(100) == b""
    assert older.told() == [("proxy.replacement_failed", f"it is another user's (uid {os.geteuid() + 1})")]


async def test_nothing_is_taken_from_other_users(older: Older, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else may have put a socket there."""
    theirs = os.geteuid() + 1
    monkeypatch.setattr(replacing, "peer_process", lambda _: (7, theirs))
    with pytest.raises(CannotStart, match=rf"belongs to a process of another user \(uid {theirs}\)"):
        await Predecessor.find(older.path)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs two users")
async def test_the_system_says_who_it_is() -> None:
    """Credentials are the system's word, not the peer's."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        older = await Older(Path(folder) / "replace.sock").start()
        with older.stack:
            older.path.chmod(0o666)
            pid = os.fork()
            if pid == 0:
                with contextlib.suppress(BaseException):
                    os.setuid(65534)
                    with asking(older.path):
                        signal.pause()
                os._exit(0)
            try:
                await until(lambda: older.events)
            finally:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
    assert older.told() == [("proxy.replacement_failed", "it is another user's (uid 65534)")]


async def test_a_file_that_is_no_socket(tmp_path: Path) -> None:
    """It is somebody's, and stays."""
    older = Older(tmp_path / "replace.sock")
    older.path.write_text("mine")
    with older.stack, pytest.raises(FileExistsError):
        await older.start()
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


async def test_a_long_path(tmp_path: Path) -> None:
    """The system's limit for names of unix sockets is not ours."""
    folder = tmp_path / ("x" * 100) / ("y" * 100)
    folder.mkdir(parents=True)
    older = await Older(place(folder, ANYWHERE)).start()
    with older.stack:
        predecessor = await found(older.path)
        await predecessor.replace()
        predecessor.close()


async def test_the_place_of_a_successor_is_left_alone(older: Older) -> None:
    """The file that the successor has put there is not the older one's to remove."""
    predecessor = await found(older.path)
    await predecessor.replace()
    newer = await Older(older.path).start()
    with newer.stack:
        older.stack.close()
        assert older.path.is_socket()
    predecessor.close()
    assert not older.path.exists()


def test_one_directory_for_several(tmp_path: Path) -> None:
    """Processes that listen elsewhere do not meet."""
    addresses = [Address("", 8080), Address("127.0.0.1", 8080), Address("::1", 8080), Address("", 8081)]
    assert len({place(tmp_path, address) for address in addresses}) == len(addresses)
