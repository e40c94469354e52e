"""A stateful MCP server over stdio that writes what it is told to write, byte for byte.

Tools, with their arguments:

    echo     gives its arguments back
    write    writes these pieces (latin-1), so many times, each by itself, then an end, then answers
    large    answers with a text of so many bytes, `first` bytes of the line before the rest of it
    notes    tells so many log messages and as much progress, before its answer and after it
    ask      asks its client (`method`, `params`), and answers with what it says
    hold     does not answer before so many are held; then all, the last one first
"""

import json
import sys
from typing import Any

out = sys.stdout.buffer
held: list[dict[str, Any]] = []
asked: dict[str, dict[str, Any]] = {}


def line_of(message: dict[str, Any]) -> bytes:
    return json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n"


def write(*messages: dict[str, Any]) -> None:
    out.write(b"".join(line_of(message) for message in messages))
    out.flush()


def answer(message: dict[str, Any], value: object) -> dict[str, Any]:
    return {"id": message["id"], "result": {"content": [{"type": "text", "text": json.dumps(value)}]}}


def notes(message: dict[str, Any], count: int) -> list[dict[str, Any]]:
    token = message["params"].get("_meta", {}).get("progressToken")
    found: list[dict[str, Any]] = []
    for number in range(count):
        data = {"level": "info", "data": number}
        found.append({"method": "notifications/message", "params": data})
        if token is not None:
            params = {"progressToken": token, "progress": number}
            found.append({"method": "notifications/progress", "params": params})
    return found


def call(message: dict[str, Any]) -> None:
    name, given = message["params"]["name"], message["params"].get("arguments", {})
    if name == "write":
        for piece in [*given["pieces"] * given["times"], given["end"]]:
            out.write(piece.encode("latin-1"))
            out.flush()
    elif name == "large":
        line = line_of(answer(message, "x" * given["bytes"]))
        for piece in (line[: given.get("first", 0)], line[given.get("first", 0) :]):
            out.write(piece)
            out.flush()
        return
    elif name == "notes":
        write(*notes(message, given["count"]), answer(message, "told"), *notes(message, given["count"]))
        return
    elif name == "ask":
        identifier = f"q{len(asked)}"
        asked[identifier] = message
        write({"id": identifier, "method": given["method"], "params": given["params"]})
        return
    elif name == "hold":
        held.append(message)
        if len(held) == given["count"]:
            write(*(answer(each, each["params"]["arguments"]["number"]) for each in reversed(held)))
            held.clear()
        return
    write(answer(message, given))


for line in sys.stdin:
    message = json.loads(line)
    method = message.get("method")
    if method is None:
        write(answer(asked.pop(message["id"]), message.get("result", message.get("error"))))
    elif "id" not in message:
        continue
    elif method == "initialize":
        known = {"tools": {}, "logging": {}}
        version = message["params"]["protocolVersion"]
        info = {"name": "messages", "version": "1"}
        write(
            {
                "id": message["id"],
                "result": {"protocolVersion": version, "capabilities": known, "serverInfo": info},
            }
        )
    elif method == "tools/call":
        call(message)
    else:
        write({"id": message["id"], "result": {"tools": []} if method == "tools/list" else {}})
