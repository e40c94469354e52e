"""A reverse proxy that makes an unmodified stateful MCP server usable by stateless clients.

The map, from the outside in; imports point down only::

    cli/          the command line
    assembly/     start, drain, stop: puts the rooms together; what it shows of itself
    ops/          what operators see: logs, metrics, the admin listener
    settings/     what can be configured, and where from
    downstream/   clients come in: guard, MCP endpoint, streams, pass-through
    exchange/     one client request on its way; server messages on theirs
    sessions/     who is calling, and which upstream session serves them: policy (pure) and pool
    upstream/     one upstream session, one transport
    protocol/     bytes and messages, without I/O
    check/        looks at a server from outside, and judges it; stands on upstream/ and protocol/ alone
    errors        every error a client can see, and whose fault it is
    events        everything worth telling that happens; ops/ turns it into logs and metrics

``docs/architecture.md`` tells why.
"""

__version__ = "0.2.0"
