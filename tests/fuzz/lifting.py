"""Fuzzes what servers send on its way up to the modern revision, and the comparison with mirrored headers."""

from harness import load, run

properties = load("properties")


def check(data: bytes) -> None:
    """A body, a line end, and a tool's arguments."""
    body, _, arguments = data.partition(b"\n")
    properties.check_lifting(body, arguments or b"{}")


if __name__ == "__main__":
    run(
        check,
        [
            b'{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"t","inputSchema":{"type":"object","properties":'
            b'{"a":{"type":"string","x-mcp-header":"A"},"b":{"type":"object","properties":{"c":{"type":"integer",'
            b'"x-mcp-header":"C"}}}}}}]}}\n{"a":"1","b":{"c":1}}',
            b'{"jsonrpc":"2.0","id":1,"result":{"_meta":{},"resultType":"complete","ttlMs":1,"capabilities":'
            b'{"tools":{"listChanged":true}},"serverInfo":{"name":"s"},"instructions":"i"}}',
            b'{"jsonrpc":"2.0","id":1,"error":{"code":-32042,"message":"m","data":{"elicitations":[{"mode":"url",'
            b'"elicitationId":"e"}]}}}',
            b'{"jsonrpc":"2.0","id":1,"error":{"code":-32002,"message":"Unknown","data":{"uri":"x:y"}}}',
            b'{"error":"Session not found"}',
            b'{"jsonrpc":"2.0","id":1,"method":"elicitation/create","params":{"task":{},'
            b'"_meta":{"progressToken":1},"requestedSchema":{"title":"WhichRegion"}}}',
        ],
    )
