"""Files of tiny bases in the forms of the official ones, and models that are built from them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from conftest import randomise
from torch import nn

from schnet.modeling.clip import CLIP_VARIANTS
from schnet.modeling.sam_encoder import SAM_VARIANTS, SamEncoder

TEXT_WEIGHT = "transformer.resblocks.0.mlp.c_fc.weight"


class _Holder(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def script_archive(state: Mapping[str, torch.Tensor], path: Path) -> None:
    """Save a state dict as the TorchScript archive that has it: the form of CLIP's files."""
    root = _Holder()
    for name, tensor in state.items():
        *parents, leaf = name.split(".")
        module: nn.Module = root
        for parent in parents:
            if not hasattr(module, parent):
                module.add_module(parent, _Holder())
            module = getattr(module, parent)
        module.register_buffer(leaf, tensor)
    torch.jit.save(torch.jit.script(root), str(path))


def sam_state(seed: int = 1) -> dict[str, torch.Tensor]:
    """Weights of a tiny encoder."""
    torch.manual_seed(seed)
    return dict(randomise(SamEncoder(SAM_VARIANTS["tiny"]), seed, 0.05).state_dict())


def clip_state(seed: int = 1) -> dict[str, torch.Tensor]:
    """Weights of a tiny CLIP, text tower included, of values that fp16 can hold."""
    torch.manual_seed(seed)
    model = randomise(CLIP_VARIANTS["tiny"].build(), seed, 0.05).half()
    return {n: t for n, t in model.state_dict().items() if not n.endswith("num_batches_tracked")}


def write_sam(path: Path, seed: int = 1) -> str:
    """Write a SAM as it is published, of which the encoder is a part; its path."""
    state = {f"image_encoder.{name}": tensor for name, tensor in sam_state(seed).items()}
    torch.save({**state, "mask_decoder.weight": torch.ones(1)}, path)
    return str(path)


def write_clip(path: Path, seed: int = 1, text_shift: float = 0.0) -> str:
    """Write a CLIP; its path."""
    state = clip_state(seed)
    state[TEXT_WEIGHT] = state[TEXT_WEIGHT] + text_shift
    torch.save(state, path)
    return str(path)


def base_opts(folder: Path, seed: int = 1, text_shift: float = 0.0) -> tuple[str, ...]:
    """Write both files and give the overrides that name them."""
    folder.mkdir(exist_ok=True)
    return (
        *("MODEL.SAM.WEIGHTS", write_sam(folder / "sam.pth", seed)),
        *("MODEL.CLIP.WEIGHTS", write_clip(folder / "clip.pt", seed, text_shift)),
    )


def train_a_little(model: nn.Module, seed: int = 3) -> nn.Module:
    """Move every trained parameter, as training would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


@torch.no_grad()
def predict(model: nn.Module) -> torch.Tensor:
    """Logits of one fixed image."""
    image = torch.randint(0, 256, (3, 64, 48), generator=torch.Generator().manual_seed(7))
    batch: list[dict[str, Any]] = [{"image": image.byte(), "height": 64, "width": 48}]
    return model.eval()(batch)[0]["sem_seg"]
