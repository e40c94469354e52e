"""What `make docs` makes the pages of: the reference of options, events, errors and metrics.

The program imports none of it, and it is not in the wheel.
"""
