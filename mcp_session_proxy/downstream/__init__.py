"""The clients' side: aiohttp's server, the MCP endpoint, and everything that is passed through."""
