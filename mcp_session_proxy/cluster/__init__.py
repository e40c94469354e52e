"""Several proxies, one pool: which of them serves a caller, and what becomes of that when one of them ends.

Everything of one caller is a *shard*, and one member owns it at a time. The others forward what reaches them.
Nothing alive is ever taken from its owner, and on the way of an ordinary call the store is not asked.
"""
