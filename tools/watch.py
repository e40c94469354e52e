"""What ``make watch`` runs after a change: the tests of what was changed, and if they pass, all quick ones.

    python -m tools.watch [PYTEST OPTIONS]

The first of these take a second or two, all of them a minute. With options of its own it runs what they name.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
QUICK: Final = "not e2e and not slow"
# Of pytest: it has found no test, or laid all aside.
_NO_TESTS: Final = 5


def nearest_to(path: Path, root: Path = ROOT) -> Path | None:
    """The tests of a file: itself, those of its room, or those of its name; None where there are no such."""
    inside = path.relative_to(root)
    if inside.parts[0] == "tests":
        found = path if path.name.startswith("test_") else path.parent
    else:
        inside = Path(*inside.parts[1:]) if inside.parts[0] == "mcp_session_proxy" else inside
        found = root / "tests" / inside.parts[0]
        if len(inside.parts) == 1:
            found = found.with_name(f"test_{path.name}")
    return found if found.exists() and found != root / "tests" else None


def near(changes: Iterable[Sequence[str]]) -> list[Path]:
    """Where to look first, of changes as ``watchfiles`` tells them: what happened, and the path."""
    return sorted({found for _, path in changes if (found := nearest_to(Path(path))) is not None})


def main() -> int:
    """Run the tests; gives the status of those that were near and failed, and becomes pytest otherwise."""
    pytest = [sys.executable, "-m", "pytest", "-x", "--failed-first", "-q", "-m", QUICK, *sys.argv[1:]]
    if len(sys.argv) == 1:
        first = near(json.loads(os.environ.get("WATCHFILES_CHANGES") or "[]"))
        if first:
            status = subprocess.run([*pytest, *map(str, first)], cwd=ROOT, check=False).returncode
            if status not in (0, _NO_TESTS):
                return status
        pytest += ["-n", "2", "--dist", "worksteal"]
    os.chdir(ROOT)
    return os.execv(pytest[0], pytest)


if __name__ == "__main__":
    sys.exit(main())
