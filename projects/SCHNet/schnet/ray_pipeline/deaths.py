"""Words for what Ray raises when workers die; Ray is not needed here."""

from __future__ import annotations

import textwrap

_MOST = 300
# The first line of all such errors says no more than that one died.
_SAYS_NOTHING = "The actor died unexpectedly before finishing this task."
_NEVER_RAN = "The actor never ran"


def death_told(error: BaseException) -> str:
    """Tell of a death, with Ray's reason, in one sentence.

    Args:
        error: one of `ray.exceptions` that a dead worker, actor or node leaves.
    """
    reason = _reason(error)
    if _was_never_there(error):
        return (
            f"no actor could be started ({reason}): see that all machines of the cluster have "
            "schnet, its packages and the model's files, and the memory for --actors of them"
        )
    return (
        f"workers died again and again, most often for want of memory ({reason}): start again with "
        "--resume, and fewer --actors or a smaller --batch-size"
    )


def _was_never_there(error: BaseException) -> bool:
    return bool(getattr(error, "actor_init_failed", False)) or _NEVER_RAN in str(error)


def _reason(error: BaseException) -> str:
    """What Ray says, on one line: without names and numbers of the actor, or the traceback."""
    lines = [line for line in str(error).splitlines() if line.strip() and line[0] != "\t"]
    if getattr(error, "actor_init_failed", False):
        lines = lines[-1:]
    told = " ".join(line.strip() for line in lines if line != _SAYS_NOTHING)
    return f"{type(error).__name__}: {textwrap.shorten(told, _MOST, placeholder=' ...')}"
