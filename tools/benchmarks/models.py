"""The whole of SCHNet with random weights: built for a benchmark, run, and timed part by part."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from benchmarks.encoders import autocast
from benchmarks.options import Shape
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model
from torch import nn

import schnet.modeling  # noqa: F401  registers the architectures
from schnet.config import load_config
from schnet.evaluation.argmax import predicted_labels
from schnet.evaluation.label_model import LabelModel
from schnet.modeling.meta_arch import SCHNet

CLASSES, TOKENS = 20, 100
_DATASET = "benchmark_parts"
# The last is what is left of a pass when the modules' times are taken off.
PARTS = ("encoder", "FTM", "CLIP", "SRM", "head", "upsampling, argmax")


def build_schnet(
    variant: str, *, classes: int = CLASSES, tokens: int = TOKENS, ftm: bool = True
) -> SCHNet:
    """Build a model as its default config has it, in evaluation mode, with random weights.

    Args:
        variant: of SAM; `tiny` takes the tiny CLIP too, all others RN101.
        classes: K, labels.
        tokens: m, FTM's tokens a layer.
        ftm: whether there are adapters.
    """
    names = [f"part {number}" for number in range(classes)]
    opts = [
        *("MODEL.DEVICE", "cpu", "MODEL.SAM.VARIANT", variant, "MODEL.SAM.WEIGHTS", "random"),
        *("MODEL.CLIP.VARIANT", "tiny" if variant == "tiny" else "RN101"),
        *("MODEL.CLIP.WEIGHTS", "random", "MODEL.CLIP.PROMPT_TEMPLATES", "['{}']"),
        *("MODEL.FTM.NUM_TOKENS", str(tokens), "MODEL.FTM.ENABLED", str(ftm)),
        *("MODEL.SEM_SEG_HEAD.NUM_CLASSES", str(classes)),
        *("DATASETS.TRAIN", f"('{_DATASET}',)", "DATASETS.TEST", f"('{_DATASET}',)"),
    ]
    MetadataCatalog.get(_DATASET).set(stuff_classes=names, prompts=[[name] for name in names])
    try:
        return build_model(load_config([], opts)).eval()
    finally:
        MetadataCatalog.pop(_DATASET)


def random_photos(shape: Shape) -> list[dict[str, Any]]:
    """A batch of uint8 images as the model takes them."""
    rng = np.random.default_rng(0)
    size = (3, shape.height, shape.width)
    images = [rng.integers(0, 256, size, dtype=np.uint8) for _ in range(shape.batch)]
    return [{"image": torch.from_numpy(image)} for image in images]


@torch.inference_mode()
def parse(
    model: nn.Module, photos: list[dict[str, Any]], dtype: str = "fp32"
) -> list[npt.NDArray[np.uint8]]:
    """Run the whole of inference: photos to label maps at their own size."""
    with autocast(dtype):
        results = LabelModel(model)(photos)
    return [predicted_labels(result) for result in results]


class PartClock:
    """Times a model's parts within whole passes, by hooks around their modules; a context.

    A module's time is its own, without that of hooked modules inside it: the parts add up to the
    pass, in every pass.
    """

    def __init__(self, model: SCHNet) -> None:
        """Take a model that has all parts."""
        head = model.sem_seg_head
        backbone: Any = model.backbone
        assert model.clip is not None and head.srm is not None, "a model with all parts"
        self._modules: list[tuple[str, nn.Module]] = [
            ("encoder", backbone),
            ("FTM", backbone.ftm),
            ("CLIP", model.clip),
            ("SRM", head.similarity),
            *(("SRM", module) for module in head.srm),
            ("head", head),
        ]
        self._handles: list[Any] = []
        self._seconds: dict[str, float] = {}
        self._open: list[list[float]] = []

    def __enter__(self) -> PartClock:
        """Put the hooks in place."""
        for part, module in self._modules:
            self._handles.append(module.register_forward_pre_hook(self._start))
            self._handles.append(module.register_forward_hook(self._end(part)))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Take the hooks away."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    @contextlib.contextmanager
    def one_pass(self) -> Iterator[dict[str, float]]:
        """Time one pass, the block.

        Yields:
            A dict that holds the seconds of each of `PARTS` once the block has ended.

        Raises:
            RuntimeError: a part's module was not called: its time went to another part.
        """
        result: dict[str, float] = {}
        self._seconds = {}
        start = time.perf_counter()
        yield result
        total = time.perf_counter() - start
        missing = {part for part, _ in self._modules} - set(self._seconds)
        if missing:
            raise RuntimeError(f"the modules of {', '.join(sorted(missing))} were not called")
        result.update(self._seconds)
        result[PARTS[-1]] = total - sum(self._seconds.values())

    def _start(self, module: nn.Module, args: Any) -> None:
        self._open.append([time.perf_counter(), 0.0])

    def _end(self, part: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            start, inside = self._open.pop()
            elapsed = time.perf_counter() - start
            self._seconds[part] = self._seconds.get(part, 0.0) + elapsed - inside
            if self._open:
                self._open[-1][1] += elapsed

        return hook


def median_shares(passes: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median share of each part in several passes, in the order of `PARTS`."""
    shares = {part: [one[part] / sum(one.values()) for one in passes] for part in PARTS}
    return {part: float(np.median(values)) for part, values in shares.items()}
