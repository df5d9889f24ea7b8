"""Adding up over the processes of an evaluation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from detectron2.utils import comm


def sum_over_processes(vector: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Add up a vector over all processes, with one all-reduce; exact, since it holds integers.

    Every process must call it, and none gets beyond it before all have come to it.

    Args:
        vector: int64, of the same length on every process.

    Returns:
        The sum, on every process; the vector itself where there is one process.
    """
    if comm.get_world_size() == 1:
        return vector
    # NCCL adds on GPUs only, gloo on the CPU.
    on_gpu = dist.get_backend() == "nccl"
    device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
    total = torch.from_numpy(vector.copy()).to(device)
    dist.all_reduce(total)
    return total.cpu().numpy()
