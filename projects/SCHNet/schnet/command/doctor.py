"""Look at this installation: packages, devices and weights, and a remedy for each problem.

    schnet doctor
    schnet doctor --weights output/lip

The exit code is 0 where nothing is wrong, 1 where something is.
"""

from __future__ import annotations

import argparse

from schnet.doctor import examine


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--weights", default="", help="also look at a run's folder, a checkpoint or an export"
    )


def run(args: argparse.Namespace) -> int:
    """Look, and print a line for each thing as it is found.

    Args:
        args: what `add_arguments` declares.

    Returns:
        0 where nothing is wrong, else 1.
    """
    problems = 0
    for finding in examine(args.weights):
        print(f"{'!!' if finding.remedy else 'ok'}  {finding.subject}: {finding.found}")
        if finding.remedy:
            problems += 1
            print(f"      remedy: {finding.remedy}")
    print("nothing is wrong" if not problems else f"{problems} to mend")
    return 1 if problems else 0
