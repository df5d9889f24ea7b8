"""The command `schnet`: finds the subcommand, and imports no other.

    schnet parse photos/ --weights schnet_lip.safetensors --output parsed
    schnet doctor
    schnet serve --weights schnet_lip.safetensors

`schnet NAME --help` lists the options of one.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
import warnings
from collections.abc import Sequence

from schnet.errors import exit_by_kind_of_error

SUBCOMMANDS = {
    "parse": "parse photos into label maps",
    "doctor": "look at this installation, and say what to mend",
    "serve": "a local web page: drop a photo, see its parts",
}
"""What each does. Its module `schnet.command.<name>` has `add_arguments(parser)` and `run(args)`,
which gives the exit code."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: arguments without the program's name; None takes the process's.

    Returns:
        The exit code.

    Raises:
        InputError: bad input; `run_from_shell` turns it into exit code 2.
    """
    overview = "\n".join(f"  {name:<8} {purpose}" for name, purpose in SUBCOMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="schnet",
        description="SCHNet: human parsing.",
        epilog=f"subcommands:\n{overview}\n`schnet NAME --help` lists the options of one.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("subcommand", choices=SUBCOMMANDS)
    parser.add_argument("options", nargs=argparse.REMAINDER, help="options of that subcommand")
    chosen = parser.parse_args(argv)
    # Only the chosen one: the engine of an exported model needs neither torch nor Detectron2.
    module = importlib.import_module(f"schnet.command.{chosen.subcommand}")
    own = argparse.ArgumentParser(
        prog=f"schnet {chosen.subcommand}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(own)
    return module.run(own.parse_args(chosen.options))


def run_from_shell() -> None:
    """Entry point of the console script `schnet`.

    Raises:
        SystemExit: with the subcommand's exit code, or that of `exit_by_kind_of_error`.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    # fvcore and Detectron2 0.6 call it on import; neither is ours to change.
    warnings.filterwarnings("ignore", "`torch.jit.script`", FutureWarning)
    with exit_by_kind_of_error():
        sys.exit(main())


if __name__ == "__main__":
    run_from_shell()
