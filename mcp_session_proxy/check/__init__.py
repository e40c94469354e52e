"""``check``: what an MCP server does to stateless clients, found out by being such clients.

``plan`` is what to do; ``wire`` is one client's way to the server; ``plays`` are the kinds of clients,
``probes`` all other questions; ``observations`` are what came of it. From there on all is pure: ``families``
(whose server it is), ``clients`` (who suffers), ``versions`` and ``starting`` (what is special about its
sessions), ``facts`` (how it behaves), ``problems`` (why it cannot be checked), ``advice`` and ``proxied``
(what to do about a server, and about a running proxy), ``report`` (all of that, and its JSON form). ``table``
prints it, ``run`` puts it together.
"""
