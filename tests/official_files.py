"""Weight files as SAM's and CLIP's authors save them, made by their own classes."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from clip.model import CLIP, convert_weights
from safetensors.torch import save_file
from segment_anything.build_sam import _build_sam
from segment_anything.modeling import Sam
from torch import nn

from schnet.modeling.clip import ClipVariant
from schnet.modeling.sam_encoder import SamVariant


def build_official_sam(variant: SamVariant) -> Sam:
    """All of SAM, its prompt encoder and mask decoder included, for images of 1024."""
    return _build_sam(
        encoder_embed_dim=variant.dim,
        encoder_depth=variant.depth,
        encoder_num_heads=variant.num_heads,
        encoder_global_attn_indexes=list(variant.global_layers),
    )


def official_clip(model: CLIP, variant: ClipVariant) -> CLIP:
    """A copy as OpenAI publishes it: fp16, with three numbers as buffers beside the weights."""
    official = copy.deepcopy(model)
    convert_weights(official)
    numbers = {
        "input_resolution": variant.image_resolution,
        "context_length": variant.context_length,
        "vocab_size": variant.vocab_size,
    }
    for name, number in numbers.items():
        official.__dict__.pop(name, None)
        official.register_buffer(name, torch.tensor(number))
    return official


@torch.no_grad()
def save_clip_archive(model: CLIP, variant: ClipVariant, path: Path) -> None:
    """Trace and save a model as OpenAI's archives are: TorchScript, fp16."""
    side = variant.image_resolution
    inputs = (torch.zeros(1, 3, side, side), torch.zeros(1, 77, dtype=torch.long))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(official_clip(model, variant), inputs, check_trace=False)
        torch.jit.save(traced, str(path))


def save_state(state: dict[str, torch.Tensor], path: Path, form: str) -> None:
    """Save a state dict in one of the forms that people pass on.

    Args:
        state: names and tensors.
        path: the file to write.
        form: `plain`; `model` or `state_dict`, wrapped under that name; `parallel`, with the names
            of DistributedDataParallel; `safetensors`.
    """
    if form == "safetensors":
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    elif form == "parallel":
        torch.save({f"module.{name}": tensor for name, tensor in state.items()}, path)
    elif form == "plain":
        torch.save(state, path)
    else:
        torch.save({form: state, "epoch": 3}, path)


STATE_FORMS = ("plain", "model", "state_dict", "parallel", "safetensors")


def meta_state(build: Callable[[], nn.Module]) -> dict[str, torch.Tensor]:
    """Names and shapes of what a function builds, without memory for it."""
    with torch.device("meta"):
        return build().state_dict()
