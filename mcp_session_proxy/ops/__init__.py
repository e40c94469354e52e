"""What operators see: log lines, metrics, the admin listener, the start banner.

The core knows nothing of this package. It reports events to an observer and answers questions through
``introspection``; everything here is made from those two.
"""
