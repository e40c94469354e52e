"""Fuzzes what JSON costs: a fragment, over and over, wherever a client may put one."""

from harness import load, run

effort = load("effort")


def check(data: bytes) -> None:
    """The first byte says where the fragment stands."""
    if len(data) > 1:
        effort.check_json_effort(effort.repeat(data[0], data[1:]))


if __name__ == "__main__":
    fragments = (
        b'"k#":1',
        b"[[[]",
        b'"\\"',
        b'{"jsonrpc":"2.0","id":#,"method":"ping"}',
        b'"\\ud83d"',
        b"1e9",
    )
    run(check, [bytes([place]) + fragment for place in range(effort.PLACES) for fragment in fragments])
