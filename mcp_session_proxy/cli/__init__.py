"""The command line: ``command`` reads it, ``texts`` are what its help says, ``completion`` is the Tab key.

The rest of the package is imported only when it is needed, so that help and complaints come at once.
"""

import gc
from collections.abc import Sequence
from typing import Final

# Nothing of what is imported becomes garbage: to look for some takes a tenth of the start.
_THRESHOLDS: Final = (50_000, 50, 50)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; see ``command.main``."""
    gc.set_threshold(*_THRESHOLDS)
    from .command import main as run

    return run(argv)
