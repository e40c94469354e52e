"""The benchmark: the proxy beside what else could stand in its place, measured in turns.

The map, from the outside in::

    __main__      the command line
    report        tables in docs/benchmarks.md; plots, machine: what goes with them
    targets       what the proxy means to achieve, and whether it does
    suite         every case, in the order of the report
    measure       rounds of load in which the contenders take turns
    memory        what a session costs; startup: how soon the proxy is ready
    contenders    what is compared, and the servers behind it, each started when first asked for
    wrk           the load, and what it prints; lua/: the scripts that it runs
    listeners     streams that are open and silent meanwhile
    messages      what is sent, and what the right answer is
    procfs        CPU and memory of a process and its children
    result        what came of a case; figures: medians, spreads, ratios
    programs/     the servers and the pass-through that run as processes of their own

``docs/benchmarks.md`` has the last results and the rules.
"""

import sys
from pathlib import Path

# It starts programs as the end-to-end tests do, and draws as the soak does.
_TESTS = str(Path(__file__).resolve().parent.parent / "tests")
if _TESTS not in sys.path:
    sys.path.append(_TESTS)
