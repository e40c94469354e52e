"""Runs one property under atheris, on input that coverage guides. Meant for ``make fuzz``.

    python tests/fuzz/inbound.py -max_total_time=60

The options are libFuzzer's. Crashes are written as files, and the run ends with a status other than 0; each
becomes an ``@example`` in ``protocol/test_hostile_input.py``.
"""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import atheris

ROOT = Path(__file__).resolve().parents[2]


def load(name: str) -> ModuleType:
    """A module of properties, with everything of the project's that it imports instrumented."""
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    with atheris.instrument_imports(include=["mcp_session_proxy"]):
        return importlib.import_module(f"fuzz.{name}")


def run(check: Callable[[bytes], None], seeds: list[bytes]) -> None:
    """Fuzz until told to stop. ``seeds`` are where to begin, in a corpus of this target's own."""
    name = Path(sys.argv[0]).stem
    corpus = ROOT / ".fuzz" / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    words = Path(__file__).with_name("words.dict")
    options = [
        f"-artifact_prefix={corpus.parent}/{name}-",
        f"-dict={words}",
        "-timeout=10",
        "-rss_limit_mb=2048",
    ]
    atheris.Setup([sys.argv[0], *options, *sys.argv[1:], str(corpus)], check)
    atheris.Fuzz()
