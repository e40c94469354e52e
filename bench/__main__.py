"""The command line: `python -m bench --help`."""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from . import plots, report, suite
from .contenders import PROXIES, Stage
from .machine import describe_machine, describe_versions
from .measure import Case
from .result import Result
from .suite import Experiment
from .targets import judge
from .wrk import LoadError

# Without these there is nothing to tell. That another contender gives up under load is a result.
NEEDED = ("bare", *PROXIES)


def _choose(arguments: argparse.Namespace) -> Sequence[Experiment]:
    cases = suite.QUICK if arguments.quick else suite.FULL
    chosen: list[Experiment] = []
    for case in cases:
        if arguments.only and case.name not in arguments.only:
            continue
        chosen.append(_narrow(case, arguments) if isinstance(case, Case) else case)
    return chosen


def _narrow(case: Case, arguments: argparse.Namespace) -> Case:
    """The case as the options want it."""
    return case.narrowed(arguments.contender, other=arguments.against is not None, seconds=arguments.seconds)


def _say(text: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


def _run(chosen: Sequence[Experiment], arguments: argparse.Namespace) -> dict[str, Result]:
    results = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        stage = Stage(Path(folder), arguments.against)
        try:
            for case in chosen:
                result = results[case.name] = case.run(stage, arguments.rounds, _say)
                _say("")
                if not arguments.quick:
                    print(f"{result.name}: {result.title}\n{report.case_table(result)}\n", flush=True)
        finally:
            stage.stop_all()
    return results


def _write(results: dict[str, Result], arguments: argparse.Namespace) -> None:
    """The document and the plots beside it."""
    document: Path = arguments.write
    drawn = plots.draw_all(results)
    for file, (_, svg) in drawn.items():
        (document.parent / file).write_text(svg)
    text = report.full_report(
        results,
        judge(results),
        machine=describe_machine(),
        versions=describe_versions(),
        when=datetime.now(UTC).strftime("%Y-%m-%d"),
        rounds=arguments.rounds,
        plots=[(file, title) for file, (title, _) in drawn.items()],
    )
    document.write_text(report.insert(document.read_text(), text))


def _failed(result: Result | None) -> bool:
    return result is not None and bool(result.failures)


def main() -> int:
    """Run what was asked for; 1 when something could not be measured, whatever the figures say."""
    names = [case.name for case in suite.FULL]
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure the proxy beside what else could stand in its place.",
        epilog=f"Cases: {', '.join(names)}.",
    )
    parser.add_argument(
        "--only", action="append", metavar="CASE", choices=names, help="this case; repeatable"
    )
    parser.add_argument(
        "--contender",
        action="append",
        metavar="NAME",
        help="of the others only these, beside bare and the proxy; repeatable",
    )
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="rounds of each case (default: 5)")
    parser.add_argument("--seconds", type=int, metavar="N", help="length of each measurement")
    parser.add_argument("--quick", action="store_true", help="what the targets are about, in a minute or two")
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="another tree of the package: `other`")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the results into this document")
    arguments = parser.parse_args()
    # Known before, not after a quarter of an hour of measuring: the results go into a document that is there.
    if arguments.write is not None:
        try:
            report.insert(arguments.write.read_text(), "")
        except (OSError, ValueError) as error:
            parser.error(f"--write: {error}")
    started = time.monotonic()
    try:
        results = _run(_choose(arguments), arguments)
        if arguments.write is not None:
            _write(results, arguments)
    # A missing environment is an AssertionError, as it is to the end-to-end tests.
    except (LoadError, AssertionError) as error:
        print(f"the benchmark cannot run: {error}", file=sys.stderr)
        return 1
    verdicts = [one for one in judge(results) if one.figure or _failed(results.get(one.target.case))]
    print(report.target_table(verdicts))
    print(f"\n{len(results)} cases in {time.monotonic() - started:.0f} s")
    failed = False
    for result in results.values():
        for name, why in result.failures.items():
            print(f"not measured: {result.name}, {name}: {why[:2000]}", file=sys.stderr)
            failed = failed or name in NEEDED
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
