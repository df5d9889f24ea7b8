"""What several test files share: tiny configs, tiny reference models, a registered label list."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from torch import nn

from schnet.config import load_config

REPOSITORY = Path(__file__).resolve().parents[1]
CONFIGS = REPOSITORY / "projects" / "SCHNet" / "configs"
SHARED_DATA = REPOSITORY.parent / "shared" / "data"

TINY_OPTS = [
    *("MODEL.DEVICE", "cpu"),
    *("MODEL.SAM.VARIANT", "tiny", "MODEL.SAM.WEIGHTS", "random"),
    *("MODEL.CLIP.VARIANT", "tiny", "MODEL.CLIP.WEIGHTS", "random"),
    *("MODEL.FTM.NUM_TOKENS", "5", "MODEL.FTM.HIDDEN_DIM", "8"),
    *("MODEL.SEM_SEG_HEAD.FUSE_DIM", "16", "MODEL.SEM_SEG_HEAD.FUSE_BLOCKS", "1"),
    *("MODEL.SEM_SEG_HEAD.STEM_DIMS", "[8, 8, 16]", "MODEL.SEM_SEG_HEAD.NUM_CLASSES", "4"),
    *("DATASETS.TRAIN", "('parts_train',)", "DATASETS.TEST", "('parts_train',)"),
    *("DATALOADER.NUM_WORKERS", "0", "SOLVER.AMP.ENABLED", "False"),
]

PROMPTS = [["background", "a wall"], ["hair"], ["left arm"], ["right arm"]]


def randomise(module: nn.Module, seed: int = 0, scale: float = 0.2) -> nn.Module:
    """Add noise to parameters and BatchNorm statistics: none may be left out unseen.

    A wide module wants a smaller scale: saturated attention multiplies rounding.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                noise = torch.randn(tensor.shape, generator=generator) * scale
                is_variance = name.endswith("running_var")
                tensor.copy_(noise.abs() + 0.5 if is_variance else tensor + noise)
    return module


def relative_error(a: torch.Tensor, b: torch.Tensor) -> float:
    """The L2 distance of two tensors relative to the second's length."""
    return float((a - b).norm() / b.norm())


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def parts_metadata() -> None:
    """A registered list of four labels, one mirrored pair."""
    MetadataCatalog.pop("parts_train", None)
    MetadataCatalog.get("parts_train").set(
        stuff_classes=["Background", "Hair", "Left-arm", "Right-arm"],
        prompts=PROMPTS,
        mirror_pairs=[(2, 3)],
        stuff_colors=[(0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255)],
        ignore_label=255,
    )


@pytest.fixture
def tiny_cfg(parts_metadata: None) -> Callable[..., CfgNode]:
    """A function of (overrides, config files) that reads a config of tiny models."""

    def read(opts: Sequence[str] = (), files: Sequence[Path] = ()) -> CfgNode:
        return load_config(files, [*TINY_OPTS, *opts])

    return read
