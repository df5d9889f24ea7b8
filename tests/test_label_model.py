"""Label maps without scores of the photo's size: the labels of whole scores, and little memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import randomise
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from segmentor_fakes import ConvSegmentor, entry_of, photo
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from schnet.data.mapper import TestMapper
from schnet.evaluation import argmax
from schnet.evaluation.argmax import NaNScoreError, argmax_labels, label_map, predicted_labels
from schnet.evaluation.label_model import LabelModel
from schnet.evaluation.sliding_window import SlidingWindow
from schnet.evaluation.test_time import build_label_model, build_test_model
from schnet.evaluation.tta import SegmentorWithTTA
from schnet.evaluation.warp_labels import WarpLabels
from schnet.modeling import SCHNet
from schnet.score_maps import HeldScores, ScoreMap, cropped, resized

Config = Callable[..., CfgNode]
BOX = ("INPUT.SIZE", "[32, 48]")
AUG = ("TEST.AUG.ENABLED", "True")
WARP = ("TEST.PROTOCOL", "warp_labels")
WINDOWS = ("TEST.SLIDING_WINDOW.ENABLED", "True", "TEST.BATCH_SIZE", "3")


@pytest.fixture
def narrow_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bands of a few rows, and none so small that it is not cut."""
    monkeypatch.setattr(argmax, "_BAND", 20000)
    monkeypatch.setattr(argmax, "_UNCUT", 0)


def at_stride_4(scores: torch.Tensor, size: tuple[int, int]) -> ScoreMap:
    """As SCHNet brings logits of an image of 61 x 83 to the photo's size."""
    return resized(cropped(resized(HeldScores(scores), (64, 96)), 0, 0, (61, 83)), size)


def labels_of_whole(scores: torch.Tensor, size: tuple[int, int]) -> np.ndarray:
    """The same with all logits at once."""
    own = F.interpolate(scores[None], (64, 96), mode="bilinear", align_corners=False)
    own = F.interpolate(own[..., :61, :83], size, mode="bilinear", align_corners=False)
    return own[0].argmax(dim=0).numpy()


@pytest.mark.parametrize("num_classes", [2, 20, 150])
@pytest.mark.parametrize("size", [(301, 203), (61, 83), (1, 1), (40, 35), (1, 300)])
@pytest.mark.usefixtures("narrow_bands")
def test_labels_are_those_of_whole_logits(size: tuple[int, int], num_classes: int) -> None:
    scores = torch.randn(num_classes, 16, 24)
    found = label_map(at_stride_4(scores, size))
    assert found.dtype == np.uint8 and np.array_equal(found, labels_of_whole(scores, size))


def test_small_maps_are_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = at_stride_4(torch.randn(20, 16, 24), (301, 203))
    monkeypatch.setattr(type(scores), "rows", None)
    assert label_map(scores).shape == (301, 203)


@pytest.mark.usefixtures("narrow_bands")
@pytest.mark.parametrize("opts", [(), AUG, WARP, (*WARP, *AUG), WINDOWS, (*WINDOWS, *AUG)])
@pytest.mark.parametrize("size", [(70, 141), (1, 1), (20, 31), (203, 30)])
def test_schnets_labels_are_those_of_its_whole_scores(
    tiny_cfg: Config, size: tuple[int, int], opts: tuple[str, ...]
) -> None:
    cfg = tiny_cfg([*BOX, *opts])
    model = build_model(cfg).eval()
    randomise(model.backbone.ftm)
    randomise(model.sem_seg_head, scale=0.3)
    entry = TestMapper(cfg).from_array(photo(*size).permute(1, 2, 0).numpy())
    with torch.no_grad():
        (found,) = build_label_model(cfg, model)([entry])
        if WARP[1] in opts:
            # Its scores are at the size of the fitted image.
            inner = build_test_model(cfg, model).model
            fitted = dict(zip(("height", "width"), entry["image"].shape[-2:], strict=True))
            whole = argmax_labels(inner([{**entry, **fitted}])[0]["sem_seg"])
            told = {"sem_seg": F.one_hot(torch.from_numpy(whole).long(), 4).permute(2, 0, 1)}
            expected = WarpLabels(lambda_model(told))([entry])[0]["labels"].numpy()
        else:
            expected = predicted_labels(build_test_model(cfg, model)([entry])[0])
    assert set(found) == {"labels"}
    assert np.array_equal(found["labels"].numpy(), expected)
    assert len(np.unique(expected)) > 1 or size == (1, 1)


def lambda_model(result: dict[str, torch.Tensor]) -> nn.Module:
    class Told(nn.Module):
        def forward(self, batch: list[dict[str, Any]]) -> list[dict[str, torch.Tensor]]:
            return [dict(result) for _ in batch]

    return Told()


@pytest.mark.usefixtures("narrow_bands")
def test_images_of_several_sizes_keep_their_order(tiny_cfg: Config) -> None:
    model = build_model(tiny_cfg()).eval()
    randomise(model.sem_seg_head, scale=0.3)
    sizes = [(48, 32, 150, 40), (17, 33, 20, 21), (48, 32, 77, 99), (1, 1, 9, 150)]
    batch = [entry_of(photo(h, w, n), H, W) for n, (h, w, H, W) in enumerate(sizes)]
    with torch.no_grad():
        together = LabelModel(model)(batch)
        for entry, result in zip(batch, together, strict=True):
            expected = predicted_labels(model([entry])[0])
            assert np.array_equal(result["labels"].numpy(), expected)


@torch.no_grad()
def test_whole_logits_are_stride_4_resized_twice(tiny_cfg: Config) -> None:
    model = build_model(tiny_cfg()).eval()
    entry = entry_of(photo(41, 23), 150, 99)
    low = model.predict(entry["image"][None].float())
    own = F.interpolate(low, (48, 32), mode="bilinear", align_corners=False)[..., :41, :23]
    expected = F.interpolate(own, (150, 99), mode="bilinear", align_corners=False)[0]
    assert torch.equal(model([entry])[0]["sem_seg"], expected)


def test_models_of_other_people_are_taken_as_they_are() -> None:
    model, entry = ConvSegmentor(), entry_of(photo(9, 12), 30, 7)
    with torch.no_grad():
        expected = model([entry])[0]["sem_seg"].argmax(0).numpy()
        assert np.array_equal(LabelModel(model)([entry])[0]["labels"].numpy(), expected)


@pytest.mark.parametrize("wrapper", [LabelModel, WarpLabels])
@pytest.mark.usefixtures("narrow_bands")
def test_nan_is_told_with_the_images_name(wrapper: type[nn.Module]) -> None:
    scores = torch.zeros(3, 60, 90)
    scores[1, 59, 89] = torch.nan
    model = wrapper(lambda_model({"sem_seg": scores}))
    with pytest.raises(NaNScoreError, match=r"prediction of some\.jpg is not a number"):
        model([{**entry_of(photo(60, 90), 60, 90), "file_name": "some.jpg"}])
    with pytest.raises(NaNScoreError, match="prediction of an image is"):
        model([entry_of(photo(60, 90), 60, 90)])


class Largest(TorchDispatchMode):
    """Records the most bytes of any tensor that an operation gives."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self.bytes = max(self.bytes, tensor.numel() * tensor.element_size())
        return out


class Fixed(nn.Module):
    """Gives the same logits at stride 4 for any image, as SCHNet gives them."""

    score_maps = SCHNet.score_maps
    device = torch.device("cpu")

    def __init__(self, num_classes: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.logits = torch.randn(num_classes, *size)

    def predict(self, images: torch.Tensor) -> torch.Tensor:
        return self.logits.expand(len(images), -1, -1, -1)

    def _stack(self, part: list[dict[str, Any]]) -> torch.Tensor:
        return torch.stack([entry["image"] for entry in part])


def twelve_megapixels() -> tuple[nn.Module, dict[str, Any]]:
    return LabelModel(Fixed(150, (128, 128))), entry_of(photo(512, 512), 3000, 4000)


def test_memory_of_12_megapixels_and_150_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """K x H x W floats would be 7.2 GB; the first bands are like all others."""
    bands = []

    class EnoughError(Exception):
        pass

    def watch(scores: torch.Tensor) -> np.ndarray:
        bands.append(scores.shape)
        if len(bands) == 12:
            raise EnoughError
        return argmax_labels(scores)

    monkeypatch.setattr(argmax, "argmax_labels", watch)
    model, entry = twelve_megapixels()
    with Largest() as largest, pytest.raises(EnoughError):
        model([entry])
    assert set(bands) == {(150, 6, 4000)}
    assert 4 * 150 * 6 * 4000 <= largest.bytes < 24 << 20


@pytest.mark.slow
def test_12_megapixels_and_150_classes() -> None:
    model, entry = twelve_megapixels()
    with Largest() as largest:
        (result,) = model([entry])
    assert result["labels"].shape == (3000, 4000)
    assert largest.bytes < 24 << 20


@pytest.mark.parametrize("kind", ["views", "windows"])
def test_memory_of_views_and_windows(kind: str) -> None:
    model, size = Fixed(20, (16, 16)), (500, 700)
    if kind == "views":
        entry = entry_of(photo(64, 64), *size, photo(64, 64), photo(64, 64))
        wrapped: nn.Module = SegmentorWithTTA(model, range(20))
    else:
        entry, wrapped = entry_of(photo(*size), *size), SlidingWindow(model, (64, 64), 0.33, 4)
    with Largest() as largest:
        LabelModel(wrapped)([entry])
    assert largest.bytes < 24 << 20 < 4 * 20 * size[0] * size[1]


def test_windows_are_given_up_and_not_asked_for_again() -> None:
    class Counted(Fixed):
        runs = 0

        def predict(self, images: torch.Tensor) -> torch.Tensor:
            self.runs += len(images)
            return super().predict(images)

    model = Counted(3, (16, 16))
    size = (300, 64)
    scores, _ = SlidingWindow(model, (64, 64), 0.33, 1).score_maps(
        [entry_of(photo(*size), *size), entry_of(photo(*size), *size)]
    )
    runs = []
    for first in range(0, 300, 10):
        scores.rows(first, first + 10)
        runs.append(model.runs - 1)  # the other image's first window
        # Never more than a pixel's two windows and the one ahead, of seven.
        assert len(scores._probabilities._parsed) <= 3
    # One batch ahead of what a band is made of, up to the last of seven.
    assert sorted(set(runs)) == [2, 3, 4, 5, 6, 7] and sorted(runs) == runs
    with pytest.raises(ValueError, match="row 0 is asked for"):
        scores.rows(0, 10)
