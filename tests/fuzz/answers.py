"""Fuzzes the answers of servers as HTTP, split anywhere: the same comes of them, and it is bounded."""

from harness import load, run

properties = load("answer_properties")


def check(data: bytes) -> None:
    """The first bytes say where the rest is split."""
    count = data[0] % 8 if data else 0
    positions, answer = data[1 : count + 1], data[count + 1 :]
    properties.check_answer(answer, sorted(min(position, len(answer)) for position in positions))


if __name__ == "__main__":
    ok = b"HTTP/1.1 200 OK\r\n"
    run(
        check,
        [
            b"\x02\x05\x20" + ok + b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
            b"\x01\x30" + ok + b"Transfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nX-A: 1\r\n\r\n",
            b"\x01\x09HTTP/1.1 103 -\r\nLink: x\r\n\r\nHTTP/1.0 404 -\r\n\r\nno",
            b"\x00HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n",
            b"\x00HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\n." + ok,
            b"\x00HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
        ],
    )
