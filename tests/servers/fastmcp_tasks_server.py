"""A stateful MCP server with tasks by FastMCP 3, whose worker runs in the same process.

    python fastmcp_tasks_server.py --port 8000

The tools are those of `tasks_server.py` that FastMCP can have: a task asks one thing at a time, and nothing
before it is a task; and whatever goes wrong is a failed tool.
"""

import argparse
import asyncio
import json
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from fastmcp import Context, FastMCP
from fastmcp.dependencies import Progress
from fastmcp.exceptions import ToolError
from fastmcp.server.tasks import TaskConfig
from starlette.requests import Request
from starlette.responses import JSONResponse

STEP_SECONDS = 0.05

runs: Counter[str] = Counter()
cancelled: Counter[str] = Counter()
mcp: FastMCP[None] = FastMCP("fastmcp-tasks")


@dataclass
class Name:
    """Who somebody is."""

    name: str


@dataclass
class Confirmed:
    """Whether something is wanted."""

    confirm: bool


def _task(mode: Literal["optional", "required"]) -> TaskConfig:
    return TaskConfig(mode=mode, poll_interval=timedelta(seconds=STEP_SECONDS))


def _count(tool: str, **arguments: object) -> None:
    runs[f"{tool} {json.dumps(arguments, sort_keys=True)}"] += 1


@mcp.tool(output_schema=None)
async def greet(name: str) -> str:
    """Say hello."""
    _count("greet", name=name)
    return f"Hello, {name}!"


@mcp.tool(task=_task("required"), output_schema=None)
async def report(topic: str, progress: Progress = Progress()) -> str:  # noqa: B008
    """Say how far it is."""
    _count("report", topic=topic)
    for step in (1, 2):
        await progress.set_message(f"{step} of 2")
        await asyncio.sleep(STEP_SECONDS)
    return f"Report on {topic}"


@mcp.tool(task=_task("required"), output_schema=None)
async def register(ctx: Context) -> str:
    """Ask for a name."""
    _count("register")
    answer: Any = await ctx.elicit("What is your name?", Name)
    return f"Registered {answer.data.name if answer.action == 'accept' else 'nobody'}"


@mcp.tool(task=_task("optional"), output_schema=None)
async def slow_compute(seconds: float, label: str = "slow") -> str:
    """Take its time."""
    _count("slow_compute", seconds=seconds, label=label)
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        cancelled[label] += 1
        raise
    return f"{label}: done"


@mcp.tool(task=_task("optional"), output_schema=None)
async def confirm_delete(filename: str, ctx: Context) -> str:
    """Ask whether to."""
    _count("confirm_delete", filename=filename)
    answer: Any = await ctx.elicit(f"Delete {filename}?", Confirmed)
    wanted = answer.action == "accept" and answer.data.confirm
    return f"Deleted {filename}" if wanted else f"Kept {filename}"


@mcp.tool(output_schema=None)  # no task: what one asks a model goes to the stream of a call that is over
async def ask_model(prompt: str, ctx: Context) -> str:
    """Ask the client's model."""
    _count("ask_model", prompt=prompt)
    return str((await ctx.sample(prompt)).text)


@mcp.tool(task=_task("required"), output_schema=None)
async def failing_job() -> str:
    """Report that it failed."""
    _count("failing_job")
    await asyncio.sleep(STEP_SECONDS)
    raise ToolError("The job failed")


@mcp.custom_route("/stats", methods=["GET"])
async def stats(_: Request) -> JSONResponse:
    """What was run."""
    return JSONResponse({"runs": runs, "cancelled": cancelled})


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    mcp.run(transport="http", host="127.0.0.1", port=parser.parse_args().port, show_banner=False)
