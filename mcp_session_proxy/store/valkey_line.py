"""Connections to a Valkey or Redis: found, made, and made anew. The library's exceptions end here.

Commands on one *line* are sent in order; those that are wanted while others are under way are sent together.
A command that could not be sent within a second is not sent later: the system drops what was not confirmed by
then. So no command arrives after a newer one.
"""

import asyncio
import socket
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from redis import exceptions as foreign
from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection

from ..aio import Tasks
from .address import StoreAddress
from .engine import StoreFailure, StoreRefused
from .valkey_scripts import Script

TIMEOUT_SECONDS: Final = 1.0
# Each Sentinel has less time, so that one that is away leaves some for the others.
_SENTINEL_SECONDS: Final = 0.3
# How many inquiries are sent together at most: the first of them waits for the answers to all.
_TOGETHER: Final = 64

# A command: its name, or the two words of it, and its arguments.
Command: TypeAlias = Sequence[str | bytes | int | float]


class Store:
    """One store. Which server takes its writes is found out with each connection."""

    def __init__(self, address: StoreAddress, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self.address = address
        self.timeout_seconds = timeout_seconds
        self._moved: tuple[str, int] | None = None

    async def connect(self) -> AbstractConnection:
        """A connection to the server that takes writes. Raises what the library raises."""
        address = self.address
        login = {"username": address.username, "password": address.password, "db": address.database}
        if address.path is not None:
            connection: AbstractConnection = UnixDomainSocketConnection(
                path=address.path, **login, **self._common(self.timeout_seconds)
            )
        else:
            host, port = self._moved or await self._find()
            connection = self._dial(host, port, login, self.timeout_seconds)
        await connection.connect()  # type: ignore[no-untyped-call]
        return connection

    def moved(self, error: foreign.MovedError) -> None:
        """Connect to another node from now on, which has the keys (in a cluster of Redis nodes)."""
        self._moved = (error.host or self.address.hosts[0][0], error.port)

    def lost(self) -> None:
        """Forget which node has the keys, because a connection broke."""
        self._moved = None

    async def _find(self) -> tuple[str, int]:
        address = self.address
        if address.primary is None:
            return address.hosts[0]
        problems = []
        for host, port in address.hosts:
            try:
                found = await self._ask_sentinel(host, port, address.primary)
            except (foreign.RedisError, OSError) as error:
                problems.append(f"{host}:{port}: {error}")
                continue
            if found is not None:
                return found
            problems.append(f"{host}:{port} knows no server by this name")
        raise foreign.ConnectionError("No Sentinel says where the server is: " + "; ".join(problems))

    async def _ask_sentinel(self, host: str, port: int, name: str) -> tuple[str, int] | None:
        address = self.address
        login = {"username": address.sentinel_username, "password": address.sentinel_password}
        connection = self._dial(host, port, login, _SENTINEL_SECONDS)
        try:
            async with asyncio.timeout(_SENTINEL_SECONDS):
                await connection.connect()  # type: ignore[no-untyped-call]
                await connection.send_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", name)
                found = await connection.read_response()
        finally:
            await connection.disconnect(nowait=True)
        return None if not found else (found[0].decode(), int(found[1]))

    def _dial(self, host: str, port: int, login: dict[str, Any], timeout_seconds: float) -> Connection:
        address, given = self.address, {"host": host, "port": port, **login, **self._common(timeout_seconds)}
        given |= {"socket_keepalive": True, "socket_keepalive_options": _keep_alive(timeout_seconds)}
        if not address.tls:
            return Connection(**given)
        return SSLConnection(
            **given,
            ssl_ca_certs=address.ca_file,
            ssl_certfile=address.cert_file,
            ssl_keyfile=address.key_file,
            ssl_cert_reqs="required",
            ssl_check_hostname=True,
        )

    def _common(self, timeout_seconds: float) -> dict[str, Any]:
        # RESP2 is what every version and every service speaks.
        return {
            "protocol": 2,
            # Each inquiry has a deadline; a timeout for each command would cost as much as all else.
            "socket_timeout": None,
            "socket_connect_timeout": timeout_seconds,
            "client_name": "mcp-session-proxy",
        }


def _keep_alive(timeout_seconds: float) -> dict[int, int]:
    # The system drops data that were not confirmed by then, even if the connection was closed.
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    return {} if option is None else {option: round(timeout_seconds * 1000)}


class _Inquiry(NamedTuple):
    """Commands that wait to be sent. ``deadline`` is for their answers, by the event loop's clock."""

    commands: Sequence[Command]
    deadline: float
    answers: "asyncio.Future[list[Any]]"


class Line:
    """One connection. It is made when it is first needed, and made anew after it broke."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._connection: AbstractConnection | None = None
        self._is_asking = False
        self._waiting: list[_Inquiry] = []
        self._tasks = Tasks()

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[str | bytes | float]) -> Any:
        """Run a script; gives its answer. The script itself is sent only if the store does not have it.

        Raises:
            StoreFailure: it failed. If there was no answer, it may have been run all the same.
        """
        (answer,) = await self._ask([("EVALSHA", script.digest, len(keys), *keys, *args)])
        if isinstance(answer, foreign.NoScriptError):
            (answer,) = await self._ask([("EVAL", script.text, len(keys), *keys, *args)])
        if isinstance(answer, Exception):
            raise self.failure(answer) from answer
        return answer

    async def ask(self, *commands: Command) -> list[Any]:
        """Send commands together; gives what the store answers to each. Raises StoreFailure."""
        answers = await self._ask(commands)
        for answer in answers:
            if isinstance(answer, Exception):
                raise self.failure(answer) from answer
        return answers

    async def _ask(self, commands: Sequence[Command]) -> list[Any]:
        """What the store answers to each command, errors included.

        Commands that come while others are under way wait for those, and are then sent together, which costs
        both sides less.

        Raises:
            StoreFailure: there is no answer to some of them.
        """
        loop, seconds = asyncio.get_running_loop(), self._store.timeout_seconds
        if not self._is_asking:
            self._is_asking = True
            try:
                return await self._ask_until(loop.time() + seconds, commands)
            finally:
                self._go_on()
        question = _Inquiry(commands, loop.time() + seconds, loop.create_future())
        self._waiting.append(question)
        try:
            async with asyncio.timeout_at(question.deadline):
                return await question.answers
        except TimeoutError:
            raise self._no_answer() from None

    def _go_on(self) -> None:
        """Send the inquiries that have come meanwhile, if they still wait. Nothing may be under way."""
        together = [question for question in self._waiting if not question.answers.done()][:_TOGETHER]
        self._waiting = self._waiting[len(together) :] if together else []
        self._is_asking = bool(together)
        if together:
            self._tasks.spawn(self._ask_together(together), "store")

    async def _ask_together(self, questions: Sequence["_Inquiry"]) -> None:
        try:
            commands = [command for question in questions for command in question.commands]
            answers = await self._ask_until(max(question.deadline for question in questions), commands)
        except StoreFailure as failure:
            for question in questions:
                if not question.answers.done():
                    question.answers.set_exception(failure)
        else:
            for question in questions:
                own, answers = answers[: len(question.commands)], answers[len(question.commands) :]
                if not question.answers.done():
                    question.answers.set_result(own)
        finally:
            self._go_on()

    async def _ask_until(self, deadline: float, commands: Sequence[Command]) -> list[Any]:
        store = self._store
        try:
            async with asyncio.timeout_at(deadline):
                answers = await self._try(commands)
                moved = [n for n, answer in enumerate(answers) if isinstance(answer, foreign.MovedError)]
                if moved:
                    await self._drop()
                    store.moved(answers[moved[0]])
                    again = await self._try([commands[n] for n in moved])
                    for n, answer in zip(moved, again, strict=True):
                        answers[n] = answer
                if any(isinstance(answer, foreign.ReadOnlyError) for answer in answers):
                    # This server is the primary no longer: the next connection is to the one that is.
                    await self._drop()
        except TimeoutError:
            raise self._no_answer() from None
        except (foreign.RedisError, OSError, ValueError) as error:
            raise self.failure(error) from error
        return answers

    def _no_answer(self) -> StoreFailure:
        return self._failure(f"no answer within {self._store.timeout_seconds:g} s")

    def failure(self, error: Exception) -> StoreFailure:
        """The error to raise for one of the library's."""
        # While it connects, the library hides some errors behind others.
        if isinstance(error.__context__, foreign.AuthenticationError):
            error = error.__context__
        refused = isinstance(error, foreign.AuthenticationError | foreign.NoPermissionError)
        return self._failure(_explain(error), StoreRefused if refused else StoreFailure)

    def _failure(self, problem: str, kind: type[StoreFailure] = StoreFailure) -> StoreFailure:
        """A failure of this kind, whose text has no password in it."""
        address = self._store.address
        for secret in (address.password, address.sentinel_password):
            if secret:
                problem = problem.replace(secret, "***")
        return kind(f"{address}: {problem}")

    async def close(self) -> None:
        """Close the connection."""
        self._tasks.cancel()
        await self._drop()

    async def _try(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands, on a new connection if the one that there was had been closed meanwhile."""
        if self._connection is not None:
            try:
                return await self._send(commands)
            except (foreign.ConnectionError, OSError):
                pass
        return await self._send(commands)

    async def _send(self, commands: Sequence[Command]) -> list[Any]:
        if self._connection is None:
            self._connection = await self._store.connect()
        connection = self._connection
        try:
            await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
            return [await _read(connection) for _ in commands]
        except BaseException:
            # Answers that are still to come would be taken for those to other commands.
            await self._drop()
            self._store.lost()
            raise

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)


async def _read(connection: AbstractConnection) -> Any:
    try:
        return await connection.read_response()
    except foreign.ResponseError as error:
        return error


def _explain(error: Exception) -> str:
    """What the store, or the library, says of a failure, for an operator."""
    text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    if isinstance(error, foreign.AuthenticationError):
        return f"it refuses the user or the password ({text})"
    if isinstance(error, foreign.NoPermissionError):
        return f"its user may not do what is needed ({text})"
    if isinstance(error, foreign.OutOfMemoryError):
        return f"it has no memory left, see its maxmemory ({text})"
    if isinstance(error, foreign.ReadOnlyError):
        return f"it takes no writes, for it is a replica ({text})"
    return text
