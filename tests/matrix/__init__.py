"""Every client and every server that can be installed: directly, and through the proxy. ``make matrix``.

``clients`` and ``servers`` are the lists, ``scripts`` is how each client is driven, ``client_trial`` and
``server_trial`` try one, ``client_page`` and ``server_page`` are what is written of it. Unlike the end-to-end
tests, this takes the newest version of each. It is no test: what it sees is written down. A share of the
servers runs as a test, too, in the versions that are pinned.
"""
