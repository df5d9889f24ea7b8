"""MATLAB files: one variable of one, read from its bytes."""

from __future__ import annotations

import io
from typing import Any

import scipy.io
from numpy.typing import NDArray

from schnet.errors import InputError


def load_mat(data: bytes, path: str, variable: str) -> NDArray[Any]:
    """Read one variable of a MATLAB file (version 5 to 7.2).

    Args:
        data: the whole file.
        path: where it comes from, for messages.
        variable: its name.

    Raises:
        InputError: the file is damaged or lacks the variable.
    """
    try:
        return scipy.io.loadmat(io.BytesIO(data))[variable]
    # On damaged files SciPy's parser fails with whatever it trips over (zlib, struct, TypeError).
    except Exception as error:
        raise InputError(
            f"the file {path} cannot be read as MATLAB data with a variable {variable!r} "
            f"({type(error).__name__}: {error}): fetch it again"
        ) from None
