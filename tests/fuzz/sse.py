"""Fuzzes event streams, split anywhere."""

from harness import load_properties, run

properties = load_properties()


def check(data: bytes) -> None:
    """The first bytes say where the rest is split."""
    count = data[0] % 8 if data else 0
    positions, stream = data[1 : count + 1], data[count + 1 :]
    properties.check_sse(stream, sorted(min(position, len(stream)) for position in positions))


if __name__ == "__main__":
    run(
        check,
        [
            b'\x03\x05\x10\x20event: message\r\nid: 7\r\ndata: {"jsonrpc":"2.0","id":1,"result":{}}\r\n\r\n',
            b'\x02\x01\x30\xef\xbb\xbfretry: 5\nid:\ndata: {"jsonrpc":"2.0",\ndata: "method":"x"}\n\n: b\n\n',
        ],
    )
