"""What the Makefile runs of its own: makers of pages, of the site and of packages, and `make watch`.

The program imports none of it, and it is not in the wheel.
"""
