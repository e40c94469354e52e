"""How much of the tests runs."""

import os

# `make thorough`: every set of parameters, and as often as the documents say. An hour, not minutes.
THOROUGH = bool(os.environ.get("THOROUGH"))
