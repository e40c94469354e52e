"""Runs a program with the privileges that a systemd unit leaves it, as far as that goes without systemd.

    python confined.py FILTER.json COMMAND...

The file has `syscalls` and `families` (those that are allowed) and `deny_writable_code`. What is not allowed
fails with EPERM. Needs libseccomp, which systemd itself goes by.
"""

import ctypes
import errno
import json
import os
import socket
import sys
from typing import Any

ALLOW = 0x7FFF0000
DENY = 0x00050000 | errno.EPERM
NO_NEW_PRIVS = 38
NOT_EQUAL, EQUAL, MASKED_EQUAL = 1, 4, 7
PROT_WRITE, PROT_EXEC = 2, 4
LAST_FAMILY = 45


class Comparison(ctypes.Structure):
    """A condition on one argument of a system call."""

    _fields_ = [
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("a", ctypes.c_uint64),
        ("b", ctypes.c_uint64),
    ]


def confine(rules: dict[str, Any]) -> None:
    """From now on, for this process and its children."""
    seccomp, libc = ctypes.CDLL("libseccomp.so.2"), ctypes.CDLL(None)
    seccomp.seccomp_init.restype = ctypes.c_void_p

    def load(default: int, conditions: list[tuple[int, str, Comparison | None]]) -> None:
        context = ctypes.c_void_p(seccomp.seccomp_init(ctypes.c_uint32(default)))
        for action, name, condition in conditions:
            number = seccomp.seccomp_syscall_resolve_name(name.encode())
            if number == -1:  # not known here
                continue
            more = [] if condition is None else [condition]
            code = seccomp.seccomp_rule_add(context, ctypes.c_uint32(action), number, len(more), *more)
            assert code == 0, (name, code)
        assert seccomp.seccomp_load(context) == 0

    assert libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    families = {getattr(socket, name) for name in rules["families"]}
    load(
        ALLOW,
        [
            (DENY, "socket", Comparison(0, EQUAL, family, 0))
            for family in range(LAST_FAMILY)
            if family not in families
        ],
    )
    if rules["deny_writable_code"]:
        both = PROT_WRITE | PROT_EXEC
        load(
            ALLOW,
            [
                (DENY, "mmap", Comparison(2, MASKED_EQUAL, both, both)),
                (DENY, "mprotect", Comparison(2, MASKED_EQUAL, PROT_EXEC, PROT_EXEC)),
                (DENY, "pkey_mprotect", Comparison(2, MASKED_EQUAL, PROT_EXEC, PROT_EXEC)),
            ],
        )
    load(DENY, [(ALLOW, name, None) for name in rules["syscalls"]])


def main() -> None:
    """Give up what is not needed, then become the program."""
    with open(sys.argv[1]) as file:
        rules = json.load(file)
    confine(rules)
    os.execv(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
