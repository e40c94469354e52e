"""The command line: ``command`` reads it, ``texts`` are what its help says, ``completion`` is the Tab key,
and ``loading`` is for what takes long to import.

The rest of the package is imported only when it is needed, so that help and complaints come at once.
"""

from collections.abc import Sequence

from .loading import uncollected


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; see ``command.main``."""
    with uncollected():
        from .command import main as run

    return run(argv)
