"""The type that models are tested in: TEST.DTYPE, and the wrapper that holds a model to it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.config import CfgNode
from torch import nn

from schnet.evaluation.wrapper import ModelInput, ScoreWrapper, score_maps
from schnet.native_types import computes_in_bfloat16
from schnet.score_maps import ScoreMap


class Autocast(ScoreWrapper):
    """Runs a model under autocast; what is done with its scores stays in fp32."""

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        """Take the model, and the type of its products."""
        super().__init__(model)
        self.dtype = dtype

    def score_maps(self, batched_inputs: Sequence[ModelInput]) -> list[ScoreMap]:
        """Parse a batch; takes and gives what the model does."""
        device_type = next(self.model.parameters()).device.type
        with torch.autocast(device_type, dtype=self.dtype):
            return score_maps(self.model, batched_inputs)


def inference_dtype(cfg: CfgNode) -> torch.dtype | None:
    """The type of autocast that TEST.DTYPE asks for; None computes in the weights' type, fp32.

    Args:
        cfg: TEST.DTYPE and MODEL.DEVICE count; `auto` is bfloat16 where the device has units for
            it, and fp32 elsewhere, as on a device that this machine lacks.
    """
    name, device = cfg.TEST.DTYPE, torch.device(cfg.MODEL.DEVICE)
    if name == "auto":
        missing = device.type == "cuda" and not torch.cuda.is_available()
        name = "bfloat16" if not missing and computes_in_bfloat16(device) else "float32"
    return {"float32": None, "bfloat16": torch.bfloat16}[name]
