"""The one exception for what a user can put right, and how a command line reports it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

EXIT_BAD_INPUT = 2


class InputError(Exception):
    """Something the user gave is wrong: a file, a value, a folder.

    The message is one sentence that names the file or key, the value found, and the remedy.
    Library code raises it; only the entry points turn it into an exit code.
    """


@contextlib.contextmanager
def exit_on_input_error() -> Iterator[None]:
    """Print an `InputError` as one line on standard error and exit with code 2.

    Every entry point runs its `main()` inside this context, so that bad input never ends in a
    traceback while a defect of ours still does.

    Raises:
        SystemExit: with code `EXIT_BAD_INPUT`, where an `InputError` left the block.
    """
    try:
        yield
    except InputError as error:
        sys.stdout.flush()
        sys.stderr.write(f"error: {error}\n")
        sys.exit(EXIT_BAD_INPUT)
