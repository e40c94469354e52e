"""The command line: ``command`` reads it, ``texts`` are what its help says, ``completion`` is the Tab key.

The rest of the package is imported only when it is needed, so that help and complaints come at once.
"""

from .command import main

__all__ = ["main"]
