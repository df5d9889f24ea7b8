"""Numbers of 16 bits in the forward and backward pass: which type, and float16's gradient scale."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from typing import Any

import torch
from detectron2.config import CfgNode

from schnet.native_types import computes_in_bfloat16

logger = logging.getLogger(__name__)

SMALLEST_USEFUL_SCALE = 1.0
"""At this scale float16's gradients are as they are: what overflows then does so by itself."""


class Precision:
    """Autocast to one type, with a gradient scaler where that type is float16.

    Weights, their gradients, losses and the optimizer's state stay in fp32.
    """

    def __init__(self, device_type: str, dtype: torch.dtype | None) -> None:
        """Start at the scaler's usual scale, 65536.

        Args:
            device_type: `cpu` or `cuda`, where the model is.
            dtype: bfloat16 or float16; None computes in fp32.
        """
        self.dtype = dtype
        self._device_type = device_type
        # Switched off, it passes everything through.
        self.scaler = torch.amp.GradScaler(device_type, enabled=dtype is torch.float16)
        self.overflows = 0

    def autocast(self) -> AbstractContextManager[None]:
        """The context for the forward pass."""
        return torch.autocast(self._device_type, dtype=self.dtype, enabled=self.dtype is not None)

    @property
    def scale(self) -> float:
        """The factor on the loss; 1 but for float16."""
        return float(self.scaler.get_scale())

    def absorb_overflow(self) -> bool:
        """Lower the scale after a gradient that is not finite, where the scale may be why.

        Call it after `scaler.unscale_`, instead of `scaler.step`.

        Returns:
            Whether the scale was so high that it may be the reason; the step is not a bad one
            then. False for other types than float16.
        """
        if not self.scaler.is_enabled():
            return False
        scale = self.scale
        self.scaler.update()
        if scale <= SMALLEST_USEFUL_SCALE:
            return False
        self.overflows += 1
        logger.info(
            "gradients overflow float16 at the scale %g: step skipped, scale now %g (%d skipped "
            "for this so far)",
            scale,
            self.scale,
            self.overflows,
        )
        return True

    def state_dict(self) -> dict[str, Any]:
        """The scaler's state, empty where it is off, and the steps it has skipped; plain types."""
        return {"scaler": self.scaler.state_dict(), "overflows": self.overflows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the scale; a run that goes on in float16 from another type starts its own."""
        self.overflows = int(state["overflows"])
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])


def build_precision(cfg: CfgNode, device: torch.device) -> Precision:
    """Read SOLVER.AMP, and resolve `auto` for the device that the model is on."""
    amp = cfg.SOLVER.AMP
    dtype = autocast_dtype(amp.DTYPE, device) if amp.ENABLED else None
    logger.info("computing in %s on %s", str(dtype or torch.float32).split(".")[-1], device.type)
    return Precision(device.type, dtype)


def autocast_dtype(name: str, device: torch.device) -> torch.dtype:
    """The type that a name of SOLVER.AMP.DTYPE means on a device.

    Args:
        name: `bfloat16`, `float16`, or `auto`: bfloat16 on CPUs and on GPUs that compute in it
            themselves, float16 on older GPUs, which would emulate it slowly.
        device: where the model is.
    """
    if name != "auto":
        return {"bfloat16": torch.bfloat16, "float16": torch.float16}[name]
    if device.type != "cuda":
        return torch.bfloat16
    return torch.bfloat16 if computes_in_bfloat16(device) else torch.float16
