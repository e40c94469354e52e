"""The proxy or the bare pass-through, counting what it executes.

    python counted.py FILE proxy|bare ARGUMENTS...

SIGUSR1 starts counting; SIGUSR2 writes the counts to FILE, as JSON: each function with its source file, how
often it was entered and how many bytecodes it took; and how many objects of each of the proxy's classes were
made.
"""

import dis
import json
import runpy
import signal
import sys
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import msgspec

bytecodes: Counter[CodeType] = Counter()
entered: Counter[CodeType] = Counter()
made: Counter[type] = Counter()
_ENTRY = bytes((dis.opmap["RESUME"], 0))


class _Struct(msgspec.Struct):
    """The proxy's structs are made of this one: else C code makes them, and nobody sees it."""

    def __post_init__(self) -> None:
        made[type(self)] += 1


def _local(frame: FrameType, event: str, _: Any) -> Any:
    if event == "opcode":
        bytecodes[frame.f_code] += 1
    return _local


def _global(frame: FrameType, _event: str, _: Any) -> Any:
    frame.f_trace_opcodes = True
    frame.f_trace_lines = False
    code = frame.f_code
    # Who goes on behind a ``yield`` or an ``await`` comes here, too, with another number behind that code.
    if code.co_code[frame.f_lasti : frame.f_lasti + 2] == _ENTRY:
        entered[code] += 1
        _note_object(frame, code)
    return _local


def _note_object(frame: FrameType, code: CodeType) -> None:
    """Count what this function makes, if it is how its class makes objects and not how a base of it does."""
    if not code.co_argcount:
        return
    if code.co_name == "__init__":
        kind = type(frame.f_locals[code.co_varnames[0]])
        maker = kind.__init__
    elif code.co_varnames[0] == "_cls":  # that of a named tuple is generated, and has no name
        kind = frame.f_locals["_cls"]
        maker = kind.__new__
    else:
        return
    if getattr(maker, "__code__", None) is code:
        made[kind] += 1


def main() -> None:
    """Run the program under the trace."""
    file, program, *arguments = sys.argv[1:]

    def begin(*_: object) -> None:
        for counter in (bytecodes, entered, made):
            counter.clear()
        sys.settrace(_global)

    def end(*_: object) -> None:
        sys.settrace(None)
        found = {
            "functions": [
                (code.co_filename, code.co_qualname, entered[code], number)
                for code, number in bytecodes.items()
                if code.co_filename != __file__
            ],
            "objects": [(kind.__module__, kind.__qualname__, number) for kind, number in made.items()],
        }
        draft = Path(file).with_suffix(".tmp")
        draft.write_text(json.dumps(found))
        draft.replace(file)

    signal.signal(signal.SIGUSR1, begin)
    signal.signal(signal.SIGUSR2, end)
    sys.argv = [program, *arguments]
    if program == "bare":
        runpy.run_path(str(Path(__file__).with_name("bare.py")), run_name="__main__")
    else:
        msgspec.Struct = _Struct  # type: ignore[misc, assignment]
        runpy.run_module("mcp_session_proxy", run_name="__main__")


if __name__ == "__main__":
    main()
