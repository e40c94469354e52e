"""The proxy or the bare pass-through, counting the bytecodes that it executes.

    python counted.py FILE proxy|bare ARGUMENTS...

SIGUSR1 starts counting; SIGUSR2 writes the counts to FILE, as JSON: source file to bytecodes.
"""

import json
import runpy
import signal
import sys
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

counts: Counter[CodeType] = Counter()


def _local(frame: FrameType, event: str, _: Any) -> Any:
    if event == "opcode":
        counts[frame.f_code] += 1
    return _local


def _global(frame: FrameType, _event: str, _: Any) -> Any:
    frame.f_trace_opcodes = True
    frame.f_trace_lines = False
    return _local


def main() -> None:
    """Run the program under the trace."""
    file, program, *arguments = sys.argv[1:]

    def begin(*_: object) -> None:
        counts.clear()
        sys.settrace(_global)

    def end(*_: object) -> None:
        sys.settrace(None)
        by_file: Counter[str] = Counter()
        for code, number in counts.items():
            by_file[code.co_filename] += number
        draft = Path(file).with_suffix(".tmp")
        draft.write_text(json.dumps(by_file))
        draft.replace(file)

    signal.signal(signal.SIGUSR1, begin)
    signal.signal(signal.SIGUSR2, end)
    sys.argv = [program, *arguments]
    if program == "bare":
        runpy.run_path(str(Path(__file__).with_name("bare.py")), run_name="__main__")
    else:
        runpy.run_module("mcp_session_proxy", run_name="__main__")


if __name__ == "__main__":
    main()
