"""What operators see: log lines, metrics, the admin listener, the start banner.

The core knows nothing of this package. It reports events to an observer, and everything here is made
from those, but for what ``snapshot`` reads of its state and what ``operator`` does to it.
"""
