"""Words for what Ray raises when workers die; Ray is not needed here."""

from __future__ import annotations

import textwrap

_MOST = 300
# The first line of all such errors says no more than that one died.
_SAYS_NOTHING = "The actor died unexpectedly before finishing this task."
_NEVER_RAN = "The actor never ran"
# Of a machine that lacks something; all else that a loader raises is a defect of ours.
_LACKS = ("ImportError", "MemoryError", "ModuleNotFoundError", "OutOfMemoryError")


def is_defect(error: BaseException) -> bool:
    """Whether a worker died of what our own code raised: the traceback is what helps.

    Args:
        error: see `death_told`.
    """
    kind = _last_line(error).partition(":")[0].rpartition(".")[2]
    return _failed_to_load(error) and kind not in _LACKS


def death_told(error: BaseException) -> str:
    """Tell of a death, with Ray's reason, in one sentence.

    Args:
        error: one of `ray.exceptions` that a dead worker, actor or node leaves.
    """
    reason = _reason(error)
    if _was_never_there(error):
        return (
            f"no actor could be started ({reason}): see that all machines of the cluster have "
            "schnet with its packages, and memory for --actors of the model"
        )
    return (
        f"workers died again and again, most often for want of memory ({reason}): start again with "
        "--resume, and fewer --actors or a smaller --batch-size"
    )


def _was_never_there(error: BaseException) -> bool:
    return _failed_to_load(error) or _NEVER_RAN in str(error)


def _failed_to_load(error: BaseException) -> bool:
    return bool(getattr(error, "actor_init_failed", False))


def _last_line(error: BaseException) -> str:
    return str(error).strip().rpartition("\n")[2]


def _reason(error: BaseException) -> str:
    """What Ray says, on one line: without the lines that name the actor, or the traceback."""
    lines = [line for line in str(error).splitlines() if line.strip() and line[0] != "\t"]
    if _failed_to_load(error):
        lines = [_last_line(error)]
    told = " ".join(line.strip() for line in lines if line != _SAYS_NOTHING)
    return f"{type(error).__name__}: {textwrap.shorten(told, _MOST, placeholder=' ...')}"
