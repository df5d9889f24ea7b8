"""Measure SCHNet's speed and memory, and parts of it beside segment_anything's and Detectron2's.

    python tools/benchmark.py encoder
    python tools/benchmark.py all --readme
    python tools/benchmark.py loader --root datasets
    python tools/benchmark.py evaluation --help

Prints markdown tables.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import subprocess
import sys
from collections.abc import Sequence

from schnet.errors import InputError, exit_on_input_error

BENCHMARKS = {
    "encoder": "benchmarks.encoder",
    "switches": "benchmarks.switches",
    "training": "benchmarks.training",
    "parts": "benchmarks.parts",
    "operators": "benchmarks.operators",
    "sizes": "benchmarks.sizes",
    "growth": "benchmarks.growth",
    "loader": "benchmarks.loader",
    "evaluation": "benchmarks.evaluation",
}
"""Modules by name; each has `add_arguments(parser)` and `run(args)`, which gives the table."""

MINUTES = {
    **{"encoder": 7, "switches": 3, "training": 6},
    **{"parts": 2, "operators": 1, "sizes": 2, "growth": 4},
}
"""Those that `all` runs, and how long each took on two idle AMD EPYC cores."""

ALL = "all"
log = logging.getLogger("benchmark")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line.

    Raises:
        InputError: bad input; the entry point turns it into exit code 2.
    """
    parser = argparse.ArgumentParser(
        description="Measure SCHNet's speed and memory beside segment_anything's and Detectron2's.",
        epilog=f"`{ALL}` runs {', '.join(MINUTES)}, each in a process of its own.",
    )
    parser.add_argument("benchmark", choices=(*BENCHMARKS, ALL), help="`NAME --help` lists options")
    parser.add_argument("options", nargs=argparse.REMAINDER, help="options of that benchmark")
    chosen = parser.parse_args(argv)
    if chosen.benchmark == ALL:
        _run_all(chosen.options)
        return
    # Only the chosen one: each needs packages and data that the others do without.
    module = importlib.import_module(BENCHMARKS[chosen.benchmark])
    own = argparse.ArgumentParser(
        prog=f"benchmark.py {chosen.benchmark}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(own)
    args = own.parse_args(chosen.options)
    if chosen.benchmark in MINUTES and not chosen.options:
        log.info("%s takes about %s", chosen.benchmark, _minutes(MINUTES[chosen.benchmark]))
    print(module.run(args))


def _run_all(options: Sequence[str]) -> None:
    """Run one after the other, each as if it were run by name: none finds another's memory."""
    if "--quick" not in options and "--render" not in options:
        log.info("all of them take about %s", _minutes(sum(MINUTES.values())))
    for name in MINUTES:
        log.info("%s", name)
        finished = subprocess.run([sys.executable, __file__, name, *options], check=False)
        if finished.returncode:
            raise InputError(f"the benchmark {name} failed with code {finished.returncode}, above")


def _minutes(number: int) -> str:
    return f"{number} minutes on two cores"


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with exit_on_input_error():
        main()
