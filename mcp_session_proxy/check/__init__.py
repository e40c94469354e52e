"""``check``: what an MCP server does to stateless clients, found out by being such clients.

``plan`` is what to do; ``wire`` sends one HTTP request; ``probes`` ask the server; ``observations`` are
what came of it. From there on all is pure: ``families`` (whose server it is), ``clients`` (who suffers),
``facts`` (how it behaves), ``problems`` (why it cannot be checked), ``advice`` (what to do), ``report``
(all of that, and its JSON form). ``table`` prints it, ``run`` puts it together.
"""
