"""SCHNet as one recorded graph: images in, logits at stride 4 out."""

from __future__ import annotations

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from schnet.errors import InputError
from schnet.graph_export.metadata import Size
from schnet.modeling.meta_arch import SIDE_MULTIPLE, SCHNet

# The recorder wants an example: two images (one would stand for "always one"), sides that differ
# and that no window of SAM divides.
_EXAMPLE_BATCH = 2
_EXAMPLE_SIZE = (144, 208)
_LARGEST_SIDE = 4096


class LogitsGraph(nn.Module):
    """What is recorded: the model's logits of a batch, without losses and Detectron2's dicts."""

    def __init__(self, model: SCHNet) -> None:
        """Take the model, in evaluation mode."""
        super().__init__()
        self.model = model

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Images (B, 3, H, W), RGB, 0..255, to logits (B, K, H/4, W/4), fp32."""
        return self.model.predict(image).float()


def record(model: SCHNet, size: Size | None, *, one_image: bool = False) -> ExportedProgram:
    """Record a model's operators, its weights and text features with them.

    Args:
        model: in evaluation mode, on the CPU.
        size: height and width of the input; None leaves both open, from 16 pixels to 4096.
        one_image: fix the batch to one image; otherwise it is open.

    Raises:
        InputError: a side is no multiple of 16.
    """
    for side in size or ():
        if side < SIDE_MULTIPLE or side % SIDE_MULTIPLE:
            raise InputError(
                f"the size is {size[0]} x {size[1]}: give multiples of {SIDE_MULTIPLE}"  # type: ignore[index]
            )
    example = torch.zeros(1 if one_image else _EXAMPLE_BATCH, 3, *(size or _EXAMPLE_SIZE))
    open_sizes: dict[int, Dim] = {} if one_image else {0: Dim("batch")}
    if size is None:
        steps = _LARGEST_SIDE // SIDE_MULTIPLE
        open_sizes[2] = SIDE_MULTIPLE * Dim("rows", min=1, max=steps)
        open_sizes[3] = SIDE_MULTIPLE * Dim("columns", min=1, max=steps)
    graph = LogitsGraph(model).eval().requires_grad_(False)
    with torch.no_grad():
        return torch.export.export(graph, (example,), dynamic_shapes={"image": open_sizes})
