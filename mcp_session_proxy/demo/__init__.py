"""The demonstration: a stateful server, a client that breaks on it, and the same client behind the proxy.

``server`` is the MCP server, ``bundled`` runs it as a process of its own, ``client`` is the client,
``report`` prints what happened, ``show`` is the whole evening.
"""
