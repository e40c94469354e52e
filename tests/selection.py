"""How much of the tests runs."""

import os

# `make thorough`: every set of parameters, and as often as the documents say. An hour, not minutes.
THOROUGH = bool(os.environ.get("THOROUGH"))
# `make faults`, too: the whole number of kills and stops.
FULL_FAULTS = THOROUGH or bool(os.environ.get("FULL_FAULTS"))
