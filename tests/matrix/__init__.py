"""Every client that can be installed, at one server: directly, and through the proxy. ``make matrix``.

``clients`` is the list, ``scripts`` is how each is driven, ``trial`` tries one, ``table`` makes the page.
Unlike the end-to-end tests, it takes the newest version of each. It is no test: what it sees is written down.
"""
