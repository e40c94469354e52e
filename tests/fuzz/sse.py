"""Fuzzes event streams, split anywhere: the same events, at a bounded cost."""

from harness import load, run

properties = load("properties")
effort = load("effort")


def check(data: bytes) -> None:
    """The first bytes say where the rest is split."""
    count = data[0] % 8 if data else 0
    positions, stream = data[1 : count + 1], data[count + 1 :]
    cuts = sorted(min(position, len(stream)) for position in positions)
    properties.check_sse(stream, cuts)
    effort.check_sse_effort(stream, cuts)


if __name__ == "__main__":
    run(
        check,
        [
            b'\x03\x05\x10\x20event: message\r\nid: 7\r\ndata: {"jsonrpc":"2.0","id":1,"result":{}}\r\n\r\n',
            b'\x02\x01\x30\xef\xbb\xbfretry: 5\nid:\ndata: {"jsonrpc":"2.0",\ndata: "method":"x"}\n\n: b\n\n',
            b"\x01\x04" + b"a\n\n" * 200 + b"id\n\r\n" * 200 + b"data\n" * 200,
        ],
    )
