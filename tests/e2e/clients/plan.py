"""What the Python clients here have in common: what each is given, and what it prints; run.py says more."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

Connection = Callable[[str, str, dict[str, Any]], Awaitable[dict[str, Any]]]


def text_of(result: Any) -> str:
    """The text of a tool's result, as the SDKs give it."""
    return "".join(getattr(part, "text", "") for part in result.content)


def run(connection: Connection) -> None:
    """Do the planned number of connections, one after the other, and print what each saw."""
    url, token, plan = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])

    async def all_of_them() -> list[dict[str, Any]]:
        return [await connection(url, token, plan) for _ in range(plan.get("connections", 1))]

    print(json.dumps(asyncio.run(all_of_them())))
