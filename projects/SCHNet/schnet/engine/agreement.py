"""What all processes of a run decide together, so that none waits for the others in vain."""

from __future__ import annotations

import torch
import torch.distributed as dist
from detectron2.utils import comm


def agree_any(*flags: bool) -> tuple[bool, ...]:
    """Whether each flag is set on any process; every process must call it, with as many flags.

    It goes over the CPU (gloo), so that no GPU waits for it.
    """
    if comm.get_world_size() == 1:
        return flags
    votes = torch.tensor(flags, dtype=torch.uint8)
    dist.all_reduce(votes, op=dist.ReduceOp.MAX, group=comm._get_global_gloo_group())
    return tuple(bool(vote) for vote in votes)
