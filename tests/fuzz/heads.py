"""Fuzzes the heads of requests: credentials, hops, paths, Accept, versions, Host and Origin."""

from harness import load, run

properties = load("head_properties")

if __name__ == "__main__":
    run(
        properties.check_head,
        [
            b"/mcp?api_key=1\nHost: localhost\nAuthorization: Bearer a\nCookie: a=b\n"
            b"X-User: u\nX-MCP-Readonly: 1",
            b"/x/..;/%6dcp\\\nHost: a.example:80\nOrigin: https://page.example\n"
            b"Access-Control-Request-Headers: a, b\nConnection: close, X-Tenant\nX-Tenant: t",
            b"/.well-known/oauth-protected-resource/mcp\nX-Forwarded-For: 1.2.3.4\nForwarded: for=a\n"
            b"Via: 1.1 a\nX-Forwarded-Proto: https\nX-Real-IP: ::1\nX-Forwarded-User: u",
            b"/mcp/\nAccept: application/json;q=0.5, text/event-stream\nMcp-Protocol-Version: 2026-07-28\n"
            b"Mcp-Session-Id: a\nMcp-Method: tools/call\nMcp-Name: x\nMcp-Param-A: b\nX-Conversation: c\n"
            b"DPoP: eyJqd2siOnsiYSI6MX19.a.b",
        ],
    )
