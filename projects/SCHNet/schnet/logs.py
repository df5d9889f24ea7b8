"""Logging of a run: short on the terminal, everything in a file."""

from __future__ import annotations

import logging
import os
import sys

from detectron2.utils.logger import setup_logger

LOGGED_PACKAGES = ("detectron2", "fvcore", "schnet")


def start_logging(path: str | os.PathLike[str], rank: int = 0) -> None:
    """Log to the terminal (rank 0, from INFO on) and append to a file (every rank, all levels).

    Calling it again closes the log before.

    Args:
        path: the log file, ending in `.txt`; other ranks append `.rank<n>` to it.
        rank: this process's rank.
    """
    stop_logging()
    for package in LOGGED_PACKAGES:
        # Detectron2 caches by arguments, and would leave a logger without handlers next time.
        setup_logger.cache_clear()
        package_logger = setup_logger(os.fspath(path), distributed_rank=rank, name=package)
        for handler in package_logger.handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stdout:
                handler.setLevel(logging.INFO)


def stop_logging() -> None:
    """Detach the handlers that `start_logging` attached, and let records propagate again."""
    for package in LOGGED_PACKAGES:
        package_logger = logging.getLogger(package)
        for handler in list(package_logger.handlers):
            package_logger.removeHandler(handler)
        package_logger.propagate = True
