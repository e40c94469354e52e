"""A stateful MCP server over its standard input and output, with nothing but the standard library.

It does what its arguments and the tools that are called say, well-behaved or not. ``--at STEP WHAT`` happens
when the message of that method arrives (``start`` before any): ``die``, ``hang``, ``garbage``, ``close``
(its standard output, and it goes on).
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

parser = argparse.ArgumentParser()
parser.add_argument("--at", nargs=2, action="append", default=[], metavar=("STEP", "WHAT"))
parser.add_argument("--stubborn", action="store_true", help="ignores SIGTERM and the end of its input")
parser.add_argument("--banner", default="", help="written to standard output before anything else")
parser.add_argument("--slow", type=float, default=0.0, help="seconds before it reads anything")
parser.add_argument("--helper", action="store_true", help="starts a process that does not leave by itself")
parser.add_argument("--double", action="store_true", help="the same, whose parent does not wait for it")
OPTIONS = parser.parse_args()
SLEEPER = "import signal, time; signal.signal(signal.SIGHUP, signal.SIG_IGN); time.sleep(600)"

count = 0


def write(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def happen(step: str) -> None:
    for at, what in OPTIONS.at:
        if at == step:
            if what == "die":
                sys.stderr.write(f"dying at {step}\n")
                sys.stderr.flush()
                os._exit(3)
            if what == "hang":
                time.sleep(600)
            if what == "garbage":
                sys.stdout.write("this is no message\n" * 3)
                sys.stdout.flush()
            if what == "close":
                sys.stdout.flush()
                os.close(1)
                time.sleep(600)


def text(value: object) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": value if isinstance(value, str) else json.dumps(value)}]}


def call(params: dict[str, Any]) -> dict[str, Any] | None:  # noqa: C901
    global count
    name, arguments = params["name"], params.get("arguments") or {}
    if name == "count":
        count += 1
        return text(str(count))
    if name == "environment":
        return text(dict(os.environ))
    if name == "where":
        return text({"pid": os.getpid(), "cwd": os.getcwd(), "group": os.getpgrp()})
    if name == "die":
        os._exit(arguments.get("status", 1))
    if name == "orphans":
        for _ in range(arguments["count"]):
            subprocess.run(["sh", "-c", "(exit 0 &)"], stdin=subprocess.DEVNULL, check=True)
    if name == "hang":
        return None
    if name == "sleep":
        time.sleep(arguments["seconds"])
    if name == "say":
        for number in range(arguments["lines"]):
            sys.stderr.write(f"{number} " + "x" * arguments.get("size", 1000) + "\n")
        sys.stderr.flush()
    if name == "words":
        sys.stderr.write(arguments["text"] + "\n")
        sys.stderr.flush()
    if name in ("large", "parting"):
        return text("x" * arguments["bytes"])
    if name == "half":
        sys.stdout.write('{"jsonrpc":"2.0","id":')
        sys.stdout.flush()
        os._exit(0)
    if name == "progress":
        token = params.get("_meta", {}).get("progressToken")
        for number in range(3):
            progress = {"progressToken": token, "progress": number}
            write({"method": "notifications/progress", "params": progress})
    return text("done")


def answer(message: dict[str, Any]) -> None:
    method, params = message.get("method"), message.get("params") or {}
    if method is None:
        return
    happen(method)
    if "id" not in message:
        return
    if method == "initialize":
        result: dict[str, Any] | None = {
            "protocolVersion": params["protocolVersion"],
            "capabilities": {"tools": {}, "logging": {}},
            "serverInfo": {"name": "toy", "version": "1"},
        }
    elif method == "tools/list":
        tool = {"name": "count", "inputSchema": {"type": "object"}}
        result = {"tools": [tool]}
    elif method == "tools/call":
        result = call(params)
    else:
        result = {}
    if result is not None and params.get("name") != "unended":
        write({"id": message["id"], "result": result})
    if params.get("name") == "parting":
        os._exit(0)
    if params.get("name") == "unended":
        end(message["id"], **params["arguments"])


def end(number: int, how: str, padding: int = 0) -> None:
    """Answer in a line without an end, and say no more."""
    answer = {"jsonrpc": "2.0", "id": number, "result": text("the last" + " " * padding)}
    sys.stdout.write(json.dumps(answer))
    sys.stdout.flush()
    if how == "others go on":
        subprocess.Popen([sys.executable, "-I", "-S", "-c", SLEEPER], stdin=subprocess.DEVNULL)
    if how == "its output ends":
        os.close(1)
        time.sleep(600)
    os._exit(0)


def main() -> None:
    if OPTIONS.stubborn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if OPTIONS.helper:
        subprocess.Popen([sys.executable, "-c", SLEEPER], stdin=subprocess.DEVNULL)
    if OPTIONS.double:
        code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEPER!r}])"
        subprocess.run([sys.executable, "-c", code], stdin=subprocess.DEVNULL, check=True)
    if OPTIONS.banner:
        sys.stdout.buffer.write(OPTIONS.banner.encode().decode("unicode_escape").encode("latin-1"))
        sys.stdout.flush()
    time.sleep(OPTIONS.slow)
    happen("start")
    for line in sys.stdin:
        answer(json.loads(line))
    while OPTIONS.stubborn:
        time.sleep(600)


main()
