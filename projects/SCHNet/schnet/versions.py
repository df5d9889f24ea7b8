"""Versions of installed packages, as files and reports name them."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

UNKNOWN = "unknown"


def version_of(package: str) -> str:
    """Give an installed package's version; `UNKNOWN` where it is not installed.

    schnet itself may not be: it may run from a checkout.
    """
    try:
        return version(package)
    except PackageNotFoundError:
        return UNKNOWN
