"""docs/troubleshooting.md knows every error of the proxy, and tells the truth about servers' words."""

import ast
import re

import pytest

from mcp_session_proxy import errors
from mcp_session_proxy.ops.admin.runbook import slug
from mcp_session_proxy.protocol import jsonrpc
from mcp_session_proxy.protocol.lost import Evidence, Verdict, judge

from .markdown import ROOT

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()


def rows(section: str) -> list[list[str]]:
    """The cells of the first table in a section."""
    text = PAGE.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def kinds() -> dict[str, type[errors.ProxyError]]:
    """Every reason that a client can see, with an error that has it."""
    found: dict[str, type[errors.ProxyError]] = {}
    todo: list[type[errors.ProxyError]] = [errors.ProxyError]
    while todo:
        kind = todo.pop()
        todo += kind.__subclasses__()
        found.setdefault(kind.reason, kind)
    return found


def spoken() -> set[str]:
    """Every text in the program, with what is filled in left out."""
    trees = [ast.parse(path.read_text()) for path in (ROOT / "mcp_session_proxy").rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}


@pytest.mark.slow
def test_the_proxys_texts_are_its_own() -> None:
    """Whoever searches the index for an error of the proxy's finds what it says, word for word."""
    texts = spoken()
    named = [cells[0] for cells in rows("By the text of an error") if cells[1] == "the proxy"]
    pieces = [piece for cell in named for text in re.findall("`(.+?)`", cell) for piece in text.split(" … ")]
    assert len(pieces) > 15
    assert [piece for piece in pieces if not any(piece in text for text in texts)] == []


def test_every_section_is_in_the_index() -> None:
    """Nothing has to be found by reading all of it; alerts have their own list, and reasons their table."""
    index = PAGE.partition("\n## By symptom\n")[2].partition("\n## Errors of a stateful server\n")[0]
    before_alerts = PAGE.partition("\n## Alerts\n")[0]
    sections = [slug(heading) for heading in re.findall(r"^### (.+)$", before_alerts, re.MULTILINE)]
    start_up = PAGE.partition("\n## Start-up\n")[2].partition("\n## ")[0]
    within = {slug(heading) for heading in re.findall(r"^### (.+)$", start_up, re.MULTILINE)}
    assert [each for each in sections if f"(#{each})" not in index and each not in within] == []


def test_every_reason_has_a_row() -> None:
    """With its HTTP status; families that never appear by themselves are named below the table."""
    documented = {cells[0].strip("`"): cells[1] for cells in rows("Errors of the proxy")}
    expected = {reason: str(kind.status) for reason, kind in kinds().items()}
    for family in ("upstream-error", "overload"):
        assert f"`{family}`" in PAGE
        del expected[family]
    expected["upstream-rejected"] = "its own"
    assert documented == expected


def test_overload_can_be_tried_again() -> None:
    """What says "executed: no" for overload is so by the error's own words."""
    executed = {cells[0].strip("`"): cells[2] for cells in rows("Errors of the proxy")}
    for reason, kind in kinds().items():
        if issubclass(kind, errors.OverloadError) and reason in executed:
            assert executed[reason] == "no"
    assert executed["outcome-unknown"] == "maybe"
    assert executed["session-lost"] == "no"


def test_the_servers_texts_are_recognised() -> None:
    """Each text of the table, with its status, counts as "that session is gone", JSON-RPC or plain."""
    for status, text, _ in rows("Errors of a stateful server"):
        words = text.strip("`")
        sent = re.search(r"missing session|required|new session", words, re.IGNORECASE) is None
        body = b'{"jsonrpc":"2.0","id":1,"error":{"code":-32000,"message":"%s"}}' % words.encode()
        reply = Evidence(
            verb="POST",
            status=int(status),
            body=body,
            error=jsonrpc.ErrorObject(code=-32000, message=words),
            sent_session_id=sent,
        )
        assert judge(reply) is Verdict.GONE, words
        plain = Evidence(
            verb="POST", status=int(status), body=words.encode(), error=None, sent_session_id=sent
        )
        assert judge(plain) is Verdict.GONE, words
