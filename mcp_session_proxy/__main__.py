"""``python -m mcp_session_proxy`` is ``mcp-session-proxy``."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
