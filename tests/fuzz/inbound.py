"""Fuzzes what clients send: JSON-RPC bodies, the modern checks, and the way down to the legacy revision."""

from harness import load, run

properties = load("properties")

MODERN = (
    b'{"jsonrpc":"2.0","id":1,"method":"%b","params":{"name":"t","uri":"x:y","arguments":{},"_meta":{'
    b'"io.modelcontextprotocol/protocolVersion":"2026-07-28",'
    b'"io.modelcontextprotocol/clientCapabilities":{"elicitation":{},"extensions":{}},'
    b'"io.modelcontextprotocol/clientInfo":{"name":"c","version":"1"},'
    b'"io.modelcontextprotocol/logLevel":"debug","progressToken":7,"openai/session":"s"},'
    b'"inputResponses":{"q":{"action":"accept","content":{}}},"requestState":"x",'
    b'"notifications":{"toolsListChanged":true,"resourceSubscriptions":["x:y"]}}}'
)

if __name__ == "__main__":
    run(
        properties.check_inbound,
        [
            b'{"jsonrpc":"2.0","id":"a\\ud83d","method":"ping"}',
            b'[{"jsonrpc":"2.0","id":1,"result":{}},{"jsonrpc":"2.0","method":"notifications/cancelled"}]',
            b'{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25",'
            b'"capabilities":{},"clientInfo":{"name":"c","version":"1"}}}',
            *[
                MODERN % m
                for m in (b"tools/call", b"resources/read", b"subscriptions/listen", b"server/discover")
            ],
        ],
    )
