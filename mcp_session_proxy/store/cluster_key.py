"""The key that all members of a cluster have: read from text, with those before it (rotation). Pure."""

import string
from typing import Final

from .sealing import KEY_BYTES

_MOST: Final = 16


class BadClusterKey(ValueError):
    """It is none. The text says what is wrong, and never what was found."""


def read_cluster_key(text: str) -> tuple[bytes, ...]:
    """The keys of a file: hex, one a line. The first seals, all of them open.

    Blank lines, and what follows a # at the beginning of a line, are passed over.

    Raises:
        BadClusterKey: a line is no key, or there is none.
    """
    keys = []
    for number, line in enumerate(text.splitlines(), 1):
        word = line.strip()
        if not word or word.startswith("#"):
            continue
        if len(word) != 2 * KEY_BYTES or not set(word) <= set(string.hexdigits):
            raise BadClusterKey(
                f"line {number} is no key: it must be {2 * KEY_BYTES} hex digits (try: openssl rand -hex 32)"
            )
        keys.append(bytes.fromhex(word))
    if not keys:
        raise BadClusterKey("there is no key in it (try: openssl rand -hex 32)")
    if len(keys) > _MOST:
        raise BadClusterKey(f"there are more than {_MOST} keys in it")
    if len(set(keys)) < len(keys):
        raise BadClusterKey("a key is in it twice")
    return tuple(keys)
