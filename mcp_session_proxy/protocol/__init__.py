"""The protocol as pure functions over bytes and messages: no clock, no event loop, no sockets.

``jsonrpc`` reads and writes envelopes, ``sse`` frames them, ``inbound`` judges what a client sent,
``lost`` judges what a server answered, ``revisions`` holds the names.
"""
