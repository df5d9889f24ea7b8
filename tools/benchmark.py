"""Measure a part of SCHNet beside Detectron2's own, in one run on the same data.

    python tools/benchmark.py loader --root datasets
    python tools/benchmark.py evaluation --help

Prints a markdown table.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence

from schnet.errors import exit_on_input_error

BENCHMARKS = {"loader": "benchmarks.loader", "evaluation": "benchmarks.evaluation"}
"""Modules by name; each has `add_arguments(parser)` and `run(args)`, which gives the table."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line.

    Raises:
        InputError: bad input; the entry point turns it into exit code 2.
    """
    parser = argparse.ArgumentParser(description="Measure a part of SCHNet beside Detectron2's.")
    parser.add_argument("benchmark", choices=BENCHMARKS, help="`NAME --help` lists its options")
    parser.add_argument("options", nargs=argparse.REMAINDER, help="options of that benchmark")
    chosen = parser.parse_args(argv)
    # Only the chosen one: each needs packages and data that the others do without.
    module = importlib.import_module(BENCHMARKS[chosen.benchmark])
    own = argparse.ArgumentParser(
        prog=f"benchmark.py {chosen.benchmark}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(own)
    print(module.run(own.parse_args(chosen.options)))


if __name__ == "__main__":
    with exit_on_input_error():
        main()
