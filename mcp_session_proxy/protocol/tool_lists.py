"""What has to be known of the tools in a list before one is called, and the list for modern clients. Pure.

A list may have megabytes, and reading one takes a tenth of a second. So it is read by a generator, which
stops after each tool; whoever drives it lets others have their turn.
"""

from collections.abc import Generator, Mapping
from typing import Final, NamedTuple

from ..bounds import TOOL_BYTES
from . import jsonrpc, lifting, mirroring
from .mirroring import MirroredParam
from .tasks import Support, ease_tool, read_support


class ToolMarks(NamedTuple):
    """What has to be known of a tool before it is called."""

    mirrored: tuple[MirroredParam, ...]
    support: Support = Support.FORBIDDEN

    @property
    def needs_task(self) -> bool:
        """Whether it only runs as a task (2025-11-25, basic/utilities/tasks)."""
        return self.support is Support.REQUIRED


Marks = Mapping[str, ToolMarks]  # by name, and only of tools about which there is something to know
_UNMARKED: Final = ToolMarks(())


class ToolList(NamedTuple):
    """What was made of one page of tools. ``lifted`` is None where a modern client gets it as it came."""

    marks: Marks
    lifted: bytes | None


def may_be_marked(text: bytes) -> bool:
    """Whether anything has to be known of any tool in a list; many servers have no such tools."""
    return any(name in text for name in (b"x-mcp-header", b"execution", b"\\u"))


def read(result: bytes) -> Generator[None, None, ToolList]:
    """Read a ``tools/list`` result (raw): its marked tools, and the list without those that are left out.

    A modern client cannot call those whose ``x-mcp-header`` annotations are invalid or too large to be looked
    for. How the others may run as tasks means nothing to it, and is left out.
    """
    members = jsonrpc.read_object(result)
    yield
    tools = jsonrpc.read_array(members.get("tools", b""))
    yield
    marks: dict[str, ToolMarks] = {}
    lifted: list[bytes] = []
    changed = False
    for tool in tools:
        if not may_be_marked(tool):
            lifted.append(tool)
        else:
            kept = None if len(tool) > TOOL_BYTES else lifting.lift_tool(tool)
            changed = changed or kept is not tool
            if kept is not None:
                lifted.append(kept)
            name, found = _read_marks(tool)
            if name is not None and found != _UNMARKED:
                marks[name] = found
        yield
    if not changed:
        return ToolList(marks, None)
    members["tools"] = jsonrpc.write_batch(lifted)
    return ToolList(marks, jsonrpc.write_object(members))


def _read_marks(tool: bytes) -> tuple[str | None, ToolMarks]:
    """A tool's name and its marks; of what is left out of the client's list, there is nothing to check."""
    if len(tool) > TOOL_BYTES:
        return None, _UNMARKED
    name = jsonrpc.read_string(jsonrpc.read_object(tool).get("name"))
    try:
        return name, ToolMarks(mirroring.read_marks(lifting.read_input_schema(tool)), read_support(tool))
    except mirroring.InvalidMarks:
        return None, _UNMARKED


def ease(result: bytes) -> Generator[None, None, bytes]:
    """A ``tools/list`` result (raw) in which no tool needs a task, for clients of earlier revisions."""
    members = jsonrpc.read_object(result)
    yield
    tools = jsonrpc.read_array(members.get("tools", b""))
    yield
    eased: list[bytes] = []
    for tool in tools:
        eased.append(ease_tool(tool))
        yield
    if all(new is old for new, old in zip(eased, tools, strict=True)):
        return result
    members["tools"] = jsonrpc.write_batch(eased)
    return jsonrpc.write_object(members)
