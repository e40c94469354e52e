"""The requests of one connection: one after the other, in one task, and what comes between them."""

import asyncio
import json
from typing import Any

import pytest
from messages import call
from proxy_bench import PATIENCE_SECONDS, Bench, until


def written(message: Any, *, more: str = "", length: int | None = None) -> bytes:
    """A POST; its body may be said to be longer than it is."""
    body = json.dumps(message).encode()
    size = len(body) if length is None else length
    head = (
        f"POST /mcp HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n{more}Content-Length: {size}"
    )
    return head.encode() + b"\r\n\r\n" + body


class Client:
    """A connection to the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, bench: Bench) -> "Client":
        host, _, port = bench.proxy.listen_url.removeprefix("http://").partition(":")
        return cls(*await asyncio.open_connection(host, int(port)))

    async def read(self) -> tuple[int, Any]:
        """The status and the JSON of the next answer."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            head = await self.reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
            body = await self.reader.readexactly(length)
        return int(head.split(b" ", 2)[1]), json.loads(body) if body else None


async def test_one_task(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers all of them."""
    await bench.start()
    tasks: set[Any] = set()
    handle = bench.endpoint.handle

    async def noted(*args: Any) -> Any:
        tasks.add(asyncio.current_task())
        return await handle(*args)

    monkeypatch.setattr(bench.endpoint, "handle", noted)
    client = await Client.connect(bench)
    for number in range(3):
        client.writer.write(written(call(number)))
        status, answer = await client.read()
        assert (status, answer["id"]) == (200, number)
    assert len(tasks) == 1
    client.writer.close()


async def test_requests_that_come_together(bench: Bench) -> None:
    """Each is answered, in their order, however many they are."""
    await bench.start()
    client = await Client.connect(bench)
    client.writer.write(b"".join(written(call(number)) for number in range(50)))
    assert [(await client.read())[1]["id"] for _ in range(50)] == list(range(50))
    client.writer.close()


async def test_an_answer_before_the_end_of_the_request(bench: Bench) -> None:
    """What is still sent is read, so that the answer arrives, and the connection goes on."""
    await bench.start()
    client = await Client.connect(bench)
    message = call(1, text="x" * 300_000)
    whole = written(message, more="Origin: http://evil.example\r\n")
    client.writer.write(whole[:1000])
    assert (await client.read())[0] == 403
    client.writer.write(whole[1000:])
    await until(lambda: all(connection.is_idle for connection in bench.listener.connections))
    client.writer.write(written(call(2)))
    assert (await client.read())[1]["id"] == 2
    client.writer.close()


async def test_a_client_that_leaves_amid_its_request(bench: Bench) -> None:
    """Nothing of it is left, and the others are served."""
    await bench.start()
    client = await Client.connect(bench)
    client.writer.write(written(call(1), length=5000))
    await client.writer.drain()
    client.writer.close()
    await client.writer.wait_closed()
    await until(lambda: not bench.listener.connections)
    assert (await bench.post(call(2))).status == 200
