"""The command line: tries clients and servers, and writes docs/clients.md and docs/servers.md.

    python -m matrix [clients|servers] [NAME ...]     (in the folder `tests`)

What is not tried stays on its page as it was seen before.
"""

import argparse
import datetime
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e2e.launch import TESTS, Fleet

from . import client_page, client_trial, server_page, server_trial
from .clients import CLIENTS
from .installing import NotInstalledError
from .servers import SERVERS
from .table import lines

DOCS = TESTS.parent / "docs"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What a page is about: all that there are, how each is tried, and how the page is written."""

    all: Sequence[Any]
    try_out: Callable[[Any, Fleet, Path], Any]
    page: Callable[[Mapping[str, str]], str]
    path: Path

    def write(self, found: dict[str, str]) -> None:
        """Write the page anew, with the rows in their order."""
        self.path.write_text(
            self.page({each.name: found[each.name] for each in self.all if each.name in found})
        )

    def try_all(self, names: Sequence[str]) -> bool:
        """Try those with these names, or all; gives whether all that could be installed work."""
        before = lines(self.path.read_text()) if self.path.exists() else {}
        found = before if names else {}
        works = True
        for one in [each for each in self.all if not names or each.key in names]:
            started = time.monotonic()
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
                fleet = Fleet(Path(folder))
                try:
                    row = self.try_out(one, fleet, Path(folder))
                    found[one.name] = row.line(datetime.date.today().isoformat())
                    works, told = works and not row.trouble, row.told
                except NotInstalledError as error:
                    found.pop(one.name, None)
                    told = f"not installed: {error}"
                finally:
                    fleet.stop()
            print(f"{one.name}: {told} ({time.monotonic() - started:.0f} s)", file=sys.stderr)
            self.write(found)
        return works


SUBJECTS = {
    "clients": Subject(
        all=CLIENTS, try_out=client_trial.try_out, page=client_page.page, path=DOCS / "clients.md"
    ),
    "servers": Subject(
        all=SERVERS, try_out=server_trial.try_out, page=server_page.page, path=DOCS / "servers.md"
    ),
}


def main() -> int:
    """Try them; exits 1 when one that could be installed does not work through the proxy."""
    parser = argparse.ArgumentParser(
        description="Try all clients and servers, directly and through the proxy."
    )
    parser.add_argument("subject", nargs="?", choices=SUBJECTS, help="only those (default: both)")
    every = {subject: ", ".join(each.key for each in about.all) for subject, about in SUBJECTS.items()}
    help_text = "; ".join(f"of the {subject}: {keys}" for subject, keys in every.items())
    parser.add_argument("names", nargs="*", metavar="NAME", help=help_text)
    given = parser.parse_args()
    subjects = [SUBJECTS[given.subject]] if given.subject else list(SUBJECTS.values())
    unknown = set(given.names) - {each.key for subject in subjects for each in subject.all}
    if unknown:
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    outcomes = [subject.try_all(given.names) for subject in subjects]
    return 0 if all(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
