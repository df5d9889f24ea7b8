"""Reading MATLAB files, the form that CCP's and Pascal-Part's annotations come in."""

from __future__ import annotations

import io
import os
from typing import Any

import scipy.io
from numpy.typing import NDArray

from schnet.data.reading import PathLike
from schnet.errors import InputError


def load_mat(data: bytes, path: PathLike, variable: str) -> NDArray[Any]:
    """Read one variable of a MATLAB file (version 4 to 7.2).

    Args:
        data: the file's bytes, from a folder or out of an archive.
        path: where they come from, for the message.
        variable: its name.

    Returns:
        What SciPy makes of it: structs are structured arrays of at least two dimensions.

    Raises:
        InputError: the file is damaged or lacks the variable.
    """
    try:
        return scipy.io.loadmat(io.BytesIO(data), variable_names=[variable])[variable]
    # On damaged files SciPy's parser fails with whatever it trips over (zlib, struct, TypeError).
    except Exception as error:
        raise InputError(
            f"the file {os.fspath(path)} cannot be read as MATLAB data with a variable "
            f"{variable!r} ({type(error).__name__}: {error}): fetch it again"
        ) from None
