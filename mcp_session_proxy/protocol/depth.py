"""How deep JSON is nested, and what can be told of a message that is too deep to be read. Pure.

JSON parsers recurse, and what they refuse depends on the interpreter's stack. This measures without
recursion, so that the limit is ours. Ordinary bodies have fewer brackets than the limit, and cost no more
than a count.
"""

import re
from typing import Final

DEFAULT_MAX_DEPTH: Final = 512

# The innermost brackets are taken off, all at once, while they are many: 1 of this many. What is left
# then is deep, and has few turns at which the depth has to be looked at.
_WORTH_TAKING_OFF: Final = 16
_MAX_TOKENS: Final = 20_000
_LONG_BYTES: Final = 16 * 1024
_FEW: Final = 8

_ALIKE: Final = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b'{}[]"'))
_RUNS: Final = re.compile(rb"\[+|\]+")

_STRING: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_TOKENS: Final = re.compile(_STRING + rb"|[\[{]+|[\]}]+", re.DOTALL)
_SCALAR: Final = re.compile(rb"\s*:\s*(" + _STRING + rb"|[-+.0-9A-Za-z]+)?", re.DOTALL)


def is_deeper(data: bytes, limit: int) -> bool:
    """Whether a JSON text has more arrays and objects within one another than this.

    What is no JSON may be called too deep or not; a parser does not get deeper into it than this says.
    """
    if len(data) <= limit or not opens_more(data, limit):
        return False
    brackets = _brackets(data)
    depth = 0
    while depth < limit:
        outer = brackets.replace(b"[]", b"")
        depth += 1
        if not outer:
            return False
        taken, brackets = len(brackets) - len(outer), outer
        if taken * _WORTH_TAKING_OFF < len(outer):
            break
    for run in _RUNS.finditer(brackets):
        start, end = run.span()
        if brackets[start] == 0x5D:  # "]"
            depth -= end - start
        else:
            depth += end - start
            if depth > limit:
                return True
    return False


def opens_more(data: bytes, most: int) -> bool:
    """Whether there are more opening brackets than this, strings and all.

    ``bytes.count`` looks at every single byte, ``find`` at many at once; but each find costs a round of this
    loop. So a long text is searched as long as it may be a file, say, in a few brackets.
    """
    if len(data) > _LONG_BYTES:
        found = 0
        for bracket in (b"[", b"{"):
            at = data.find(bracket)
            while at >= 0 and found <= _FEW:
                found += 1
                at = data.find(bracket, at + 1)
        if found <= _FEW:
            return found > most
    return data.count(b"[") + data.count(b"{") > most


def _brackets(data: bytes) -> bytes:
    """The brackets outside of strings, all of one kind."""
    if b"\\" in data:
        # Backslashes in pairs first, so that what is left before a quote escapes it.
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    # Two quotes in a row change nothing about what is within a string.
    marks = data.translate(_ALIKE, _NO_BRACKETS).replace(b'""', b"")
    return marks if b'"' not in marks else b"".join(marks.split(b'"')[::2])


def peek_members(data: bytes) -> dict[bytes, bytes]:
    """The members of a JSON object, however deep, of which something can be told: raw keys and raw values.

    Values that are arrays or objects are empty. Of a long text, only the beginning is looked at.
    """
    members: dict[bytes, bytes] = {}
    depth = 0
    for token, _ in zip(_TOKENS.finditer(data), range(_MAX_TOKENS), strict=False):
        mark = data[token.start()]
        if mark in b"[{":
            depth += token.end() - token.start()
        elif mark in b"]}":
            depth -= token.end() - token.start()
        elif depth == 1 and (value := _SCALAR.match(data, token.end())) is not None:
            members.setdefault(token[0], value[1] or b"")
    return members
