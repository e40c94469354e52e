"""The command line: tries the clients and writes docs/clients.md.

    python -m matrix [NAME ...]     (in the folder `tests`)

With names, only those are tried; the others stay on the page as they were seen before (`.cache/matrix.json`).
"""

import argparse
import datetime
import json
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from e2e.launch import TESTS, Fleet

from .clients import CLIENTS
from .table import Row, Side, page
from .trial import NotInstalledError, try_out

PAGE = TESTS.parent / "docs" / "clients.md"
SEEN = TESTS.parent / ".cache" / "matrix.json"


def main() -> int:
    """Try the clients; exits 1 when one that could be installed does not work through the proxy."""
    parser = argparse.ArgumentParser(description="Try every client, directly and through the proxy.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(each.key for each in CLIENTS))
    names = parser.parse_args().names
    seen = _seen() if names else {}
    with tempfile.TemporaryDirectory() as folder:
        fleet = Fleet(Path(folder))
        try:
            for client in [each for each in CLIENTS if not names or each.key in names]:
                started = time.monotonic()
                try:
                    row = seen[client.name] = try_out(client, fleet, Path(folder))
                    told = f"{row.direct.counts} -> {row.proxied.counts}"
                except NotInstalledError as error:
                    seen.pop(client.name, None)
                    told = f"not installed: {error}"
                print(f"{client.name}: {told} ({time.monotonic() - started:.0f} s)", file=sys.stderr)
                _write(seen)
        finally:
            fleet.stop()
    return 1 if any(row.proxied.trouble for row in seen.values()) else 0


def _write(seen: dict[str, Row]) -> None:
    SEEN.parent.mkdir(exist_ok=True)
    SEEN.write_text(json.dumps([asdict(row) for row in seen.values()]))
    rows = [seen[client.name] for client in CLIENTS if client.name in seen]
    PAGE.write_text(page(rows, datetime.date.today().isoformat()))


def _seen() -> dict[str, Row]:
    rows = json.loads(SEEN.read_text()) if SEEN.exists() else []
    return {
        row["name"]: Row(**{**row, "direct": Side(**row["direct"]), "proxied": Side(**row["proxied"])})
        for row in rows
    }


if __name__ == "__main__":
    sys.exit(main())
