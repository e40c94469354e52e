"""FastMCP's `create_proxy` in its stateless mode: what comes nearest to this proxy's job.

python create_proxy.py --port 8080 http://127.0.0.1:8000/mcp
"""

import argparse

from fastmcp.server import create_proxy

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("url")
    chosen = parser.parse_args()
    create_proxy(chosen.url).run(
        transport="http",
        host="127.0.0.1",
        port=chosen.port,
        path="/mcp",
        stateless_http=True,
        show_banner=False,
        log_level="CRITICAL",
        uvicorn_config={"access_log": False, "backlog": 4096},
    )
