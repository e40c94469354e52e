"""The benchmark: the proxy beside what else could stand in its place, measured in turns.

The map, from the outside in::

    __main__      the command line
    suite         every case, in the order of the report
    report        tables and verdicts; plots, machine: what goes with them
    measure       rounds in which the contenders take turns
    memory        what a session costs; startup: how soon the proxy is ready
    contenders    what is compared, started before a server
    wrk           the load, its scripts and what it prints
    procfs        CPU and memory of a process and its children
    figures       medians, spreads, ratios, targets
    messages      what is sent
    programs/     the servers and the pass-through that run as processes of their own

``docs/benchmarks.md`` has the last results and the rules.
"""

import sys
from pathlib import Path

# It starts programs as the end-to-end tests do, and draws as the soak does.
_TESTS = str(Path(__file__).resolve().parent.parent / "tests")
if _TESTS not in sys.path:
    sys.path.append(_TESTS)
