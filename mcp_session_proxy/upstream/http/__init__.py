"""HTTP towards the server: the two transports, and the client beneath them.

MCP over HTTP stands in ``streamable_http``, ``http_sse`` and ``auto_http``; ``client`` and what it is made of
(``http1``, ``dialing``, ``head``, ``inflating``) know nothing of MCP.
"""
