"""A server that is a command: the transport, and the children that it starts.

Nothing above knows of processes, nothing in here of sessions and their policy.
"""
