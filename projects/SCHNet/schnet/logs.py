"""Logging of a run: short on the terminal, everything in a file."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys
from typing import TextIO

from detectron2.utils.logger import setup_logger

LOGGED_PACKAGES = ("detectron2", "fvcore", "schnet")


def start_logging(path: str | os.PathLike[str], rank: int = 0) -> None:
    """Log to the terminal (rank 0, from INFO on) and append to a file (every rank, all levels).

    Calling it again closes the log before. A log that cannot be written, on a full disk, costs one
    line on standard error and not the run.

    Args:
        path: the log file, ending in `.txt`; other ranks append `.rank<n>` to it.
        rank: this process's rank.
    """
    stop_logging()
    for package in LOGGED_PACKAGES:
        # Detectron2 caches by arguments, and would leave a logger without handlers next time.
        setup_logger.cache_clear()
        package_logger = setup_logger(os.fspath(path), distributed_rank=rank, name=package)
        for theirs in list(package_logger.handlers):
            if isinstance(theirs, logging.StreamHandler):
                package_logger.removeHandler(theirs)
                package_logger.addHandler(_OneComplaintHandler(theirs))


def stop_logging() -> None:
    """Detach the handlers that `start_logging` attached, and let records propagate again."""
    for package in LOGGED_PACKAGES:
        package_logger = logging.getLogger(package)
        for handler in list(package_logger.handlers):
            package_logger.removeHandler(handler)
        package_logger.propagate = True
        package_logger.setLevel(logging.NOTSET)


class _OneComplaintHandler(logging.StreamHandler[TextIO]):
    """Takes another handler's place; where its stream fails, it says so once, in one line."""

    def __init__(self, other: logging.StreamHandler[TextIO]) -> None:
        """Write as the other one did; to the terminal from INFO on."""
        super().__init__(other.stream)
        self.setFormatter(other.formatter)
        self.setLevel(logging.INFO if other.stream is sys.stdout else other.level)
        self._complained = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  logging's name
        """Complain of a stream that cannot be written; a wrong record is a defect of ours."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        if self._complained:
            return
        self._complained = True
        with contextlib.suppress(OSError):
            sys.stderr.write(
                f"the log {getattr(self.stream, 'name', '')} cannot be written "
                f"({error.strerror}): what does not fit is lost, the run goes on\n"
            )
        if self.stream is not sys.stdout:
            # Before Detectron2's own, which would end in a traceback.
            atexit.register(self._close_stream)

    def _close_stream(self) -> None:
        with contextlib.suppress(OSError):
            self.stream.close()
