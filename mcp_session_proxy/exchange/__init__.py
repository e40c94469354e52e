"""Requests on their way: one exchange per client request, and what servers say of their own accord.

``exchange`` sends a request and keeps the at-most-once rules, ``mailbox`` keeps what a client's
stream has not delivered, ``delivery`` decides which client hears a server's message.
"""
