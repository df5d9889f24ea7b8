"""The one exception for what a user can put right, and how a command line reports it."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator

EXIT_SOME_FAILED = 1
"""Some photos could not be read; the rest is done."""
EXIT_BAD_INPUT = 2
EXIT_DEFECT = 70
"""EX_SOFTWARE of sysexits.h: the program itself failed, and a traceback tells where."""
EXIT_INTERRUPTED = 128 + signal.SIGINT
"""What a shell says of a command that Ctrl-C ended."""
EXIT_PREEMPTED = 75
"""EX_TEMPFAIL of sysexits.h: a signal ended the run, which is saved: `--resume` continues it."""

# In this time the first process has ended and torchrun, which looks ten times a second, seen it.
_TURN_SECONDS = 5.0

_STORAGE_REMEDIES = {
    errno.ENOSPC: "free space",
    errno.EDQUOT: "free space",
    errno.EROFS: "make it writable",
    errno.EACCES: "allow access to it",
}


class Preempted(SystemExit):
    """SIGTERM or SIGUSR1 ended a run whose state is saved.

    As a `SystemExit` it passes what handles errors, and needs no traceback.
    """

    def __init__(self) -> None:
        """Carry the exit code, `EXIT_PREEMPTED`."""
        super().__init__(EXIT_PREEMPTED)


class InputError(Exception):
    """Something the user gave is wrong: a file, a value, a folder.

    The message is one sentence that names the file or key, the value found, and the remedy.
    Library code raises it; only the entry points turn it into an exit code.
    """


def storage_error(error: BaseException) -> InputError | None:
    """Word a full disk, or a file or folder that may not be used, as the user's to put right.

    Args:
        error: what was raised.

    Returns:
        The `InputError` for an `OSError` of ENOSPC, EDQUOT, EROFS or EACCES; None for all else.
    """
    if not isinstance(error, OSError) or error.errno not in _STORAGE_REMEDIES:
        return None
    # A write to an open file does not tell its name.
    name = "a file" if error.filename is None else os.fsdecode(error.filename)
    return InputError(
        f"{name} cannot be read or written ({error.strerror}): "
        f"{_STORAGE_REMEDIES[error.errno]} or choose another folder"
    )


@contextlib.contextmanager
def exit_on_input_error() -> Iterator[None]:
    """Print an `InputError` as one line on standard error and exit with code 2.

    A full disk and a file or folder that may not be used are reported likewise; Ctrl-C is one line
    and the code that shells give it.

    Every entry point runs its `main()` inside this context, so that bad input never ends in a
    traceback while a defect of ours still does.

    Raises:
        SystemExit: with code `EXIT_BAD_INPUT`, where an `InputError`, or an error that
            `storage_error` words, left the block; with `EXIT_INTERRUPTED` after Ctrl-C.
    """
    try:
        yield
    except (InputError, OSError) as error:
        told = error if isinstance(error, InputError) else storage_error(error)
        if told is None:
            raise
        _wait_for_turn()
        with contextlib.suppress(OSError):  # it may be what is full
            sys.stdout.flush()
        sys.stderr.write(f"error: {told}\n")
        sys.exit(EXIT_BAD_INPUT)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(EXIT_INTERRUPTED)


@contextlib.contextmanager
def exit_by_kind_of_error() -> Iterator[None]:
    """As `exit_on_input_error`, and a defect of ours ends in a traceback and `EXIT_DEFECT`.

    For commands whose exit code 1 says that some photos failed, as Python's own 1 would.

    Raises:
        SystemExit: see `exit_on_input_error`; with `EXIT_DEFECT` after any other exception.
    """
    try:
        with exit_on_input_error():
            yield
    except Exception:
        traceback.print_exc()
        sys.exit(EXIT_DEFECT)


def _wait_for_turn() -> None:
    """Let the first of torchrun's processes on this machine speak for all that have its error.

    torchrun ends the others as soon as one has ended; where only this one fails, it speaks late.
    """
    local_rank = os.environ.get("LOCAL_RANK", "")
    if "TORCHELASTIC_RUN_ID" in os.environ and local_rank.isdecimal() and int(local_rank) > 0:
        time.sleep(_TURN_SECONDS + 0.5 * int(local_rank))
