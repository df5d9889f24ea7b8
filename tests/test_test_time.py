"""The model as it is tested: how it is put together, with SCHNet itself, and what it is called."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from conftest import randomise
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model
from segmentor_fakes import ConvSegmentor, photo
from torch import nn

from schnet.data.mapper import TestMapper
from schnet.engine.trainer import ParsingTrainer
from schnet.errors import InputError
from schnet.evaluation.argmax import predicted_labels
from schnet.evaluation.label_model import LabelModel
from schnet.evaluation.letterbox import Letterbox
from schnet.evaluation.protocol import PROTOCOLS
from schnet.evaluation.sliding_window import SlidingWindow
from schnet.evaluation.test_time import build_test_model, describe_protocol
from schnet.evaluation.tta import SegmentorWithTTA
from schnet.evaluation.warp_labels import WarpLabels

Config = Callable[..., CfgNode]
BOX = ("INPUT.SIZE", "[32, 48]")
AUG = ("TEST.AUG.ENABLED", "True")
WARP = ("TEST.PROTOCOL", "warp_labels")
WINDOWS = ("TEST.SLIDING_WINDOW.ENABLED", "True", "TEST.BATCH_SIZE", "3")
ONE_SCALE = ("TEST.AUG.SCALES", "[1.0]")
SWAPPED = [0, 1, 3, 2]
SIZES = [(70, 41), (1, 1), (20, 31), (3, 100)]


def schnet(cfg: CfgNode) -> nn.Module:
    """A SCHNet whose parts all do something."""
    model = build_model(cfg)
    randomise(model.backbone.ftm)
    randomise(model.sem_seg_head, scale=0.3)
    return model


def parse(cfg: CfgNode, model: nn.Module, *images: np.ndarray) -> list[dict[str, torch.Tensor]]:
    mapper = TestMapper(cfg)
    with torch.no_grad():
        return build_test_model(cfg, model)([mapper.from_array(image) for image in images])


def pixels(height: int, width: int, seed: int = 0) -> np.ndarray:
    return photo(height, width, seed).permute(1, 2, 0).numpy()


def layers(model: nn.Module) -> Iterator[type[nn.Module]]:
    while hasattr(model, "model"):
        yield type(model)
        model = model.model


@pytest.mark.parametrize(
    ("opts", "wrappers"),
    [
        ((), []),
        (AUG, [SegmentorWithTTA]),
        (WARP, [WarpLabels, Letterbox]),
        ((*WARP, *AUG), [WarpLabels, SegmentorWithTTA, Letterbox]),
        (WINDOWS, [SlidingWindow]),
        ((*WINDOWS, *AUG), [SegmentorWithTTA, SlidingWindow]),
    ],
)
def test_what_is_put_around_the_model(
    tiny_cfg: Config, opts: tuple[str, ...], wrappers: list[type[nn.Module]]
) -> None:
    assert list(layers(build_test_model(tiny_cfg(opts), ConvSegmentor()))) == wrappers


def test_config_reaches_the_wrappers(tiny_cfg: Config) -> None:
    opts = [*WINDOWS, *AUG, "INPUT.SIZE_TEST", "[48, 64]", "TEST.SLIDING_WINDOW.OVERLAP", "0.5"]
    views = build_test_model(tiny_cfg(opts), ConvSegmentor())
    assert views.mirrored_channels == tuple(SWAPPED)
    windows = views.model
    assert (windows.window, windows.overlap, windows.batch_size) == ((48, 64), 0.5, 3)
    letterbox = build_test_model(tiny_cfg(WARP), ConvSegmentor()).model
    assert letterbox.pad_color == (124, 116, 104)
    unmirrored = tiny_cfg([*AUG, "TEST.AUG.FLIP", "False"])
    assert build_test_model(unmirrored, ConvSegmentor()).mirrored_channels is None


def test_test_sets_must_agree_on_left_and_right(tiny_cfg: Config) -> None:
    cfg = tiny_cfg([*AUG, "DATASETS.TEST", "('parts_train', 'other_val')"])
    without = tiny_cfg([*AUG, "TEST.AUG.FLIP", "False", "DATASETS.TEST", "('other_val',)"])
    MetadataCatalog.get("other_val").set(stuff_classes=["a", "b"])
    try:
        with pytest.raises(InputError, match="other_val has no mirror_pairs"):
            build_test_model(cfg, ConvSegmentor())
        build_test_model(without, ConvSegmentor())
        MetadataCatalog.get("other_val").set(mirror_pairs=[(1, 2)])
        with pytest.raises(InputError, match="parts_train and other_val .* differ"):
            build_test_model(cfg, ConvSegmentor())
        MetadataCatalog.pop("other_val")
        # The same pairs, in another order.
        MetadataCatalog.get("other_val").set(mirror_pairs=[[3, 2]])
        assert build_test_model(cfg, ConvSegmentor()).mirrored_channels == tuple(SWAPPED)
    finally:
        MetadataCatalog.pop("other_val")


@pytest.mark.parametrize("size", SIZES)
def test_schnet_with_every_test_option(tiny_cfg: Config, size: tuple[int, int]) -> None:
    model = schnet(tiny_cfg(BOX)).eval()
    image = pixels(*size)
    (plain,) = parse(tiny_cfg(BOX), model, image)
    for opts in (AUG, WARP, (*WARP, *AUG), WINDOWS, (*WINDOWS, *AUG)):
        (result,) = parse(tiny_cfg([*BOX, *opts]), model, image)
        if "warp_labels" in opts:
            assert result["labels"].shape == size and result["labels"].dtype == torch.uint8
            continue
        assert result["sem_seg"].shape == plain["sem_seg"].shape == (4, *size)
        assert result["sem_seg"].dtype == torch.float32 and torch.isfinite(result["sem_seg"]).all()


def test_one_scale_without_flip_gives_the_plain_labels(tiny_cfg: Config) -> None:
    model = schnet(tiny_cfg(BOX)).eval()
    image = pixels(40, 41)
    for options in ((), WARP, WINDOWS):
        views = (*AUG, *ONE_SCALE, "TEST.AUG.FLIP", "False")
        (plain,) = parse(tiny_cfg([*BOX, *options]), model, image)
        (found,) = parse(tiny_cfg([*BOX, *options, *views]), model, image)
        assert np.array_equal(predicted_labels(found), predicted_labels(plain))
        assert len(np.unique(predicted_labels(plain))) > 1


def test_photo_within_a_window_is_parsed_as_without(tiny_cfg: Config) -> None:
    model = schnet(tiny_cfg(BOX)).eval()
    for size in [(32, 48), (20, 11), (1, 1), (1, 40)]:
        image = pixels(*size)
        (plain,) = parse(tiny_cfg(BOX), model, image)
        (found,) = parse(tiny_cfg([*BOX, *WINDOWS]), model, image)
        assert torch.equal(found["sem_seg"], plain["sem_seg"])


@pytest.mark.parametrize("size", [(24, 40), (31, 17)])
def test_flip_makes_schnet_equivariant(tiny_cfg: Config, size: tuple[int, int]) -> None:
    """At the box's own size, where resizing the mirrored photo rounds alike."""
    cfg = tiny_cfg(["INPUT.SIZE", "[32, 48]", "INPUT.SIZE_TEST", str([*size]), *AUG, *ONE_SCALE])
    assert TestMapper(cfg).sizes.box == size
    model = schnet(cfg).eval()
    image = pixels(*size)
    straight, mirrored = parse(cfg, model, image, image[:, ::-1])
    expected = straight["sem_seg"][SWAPPED].flip(-1)
    assert torch.allclose(mirrored["sem_seg"], expected, atol=1e-6)
    with torch.no_grad():
        plain, other = (
            model([TestMapper(cfg).from_array(np.ascontiguousarray(view))])[0]["sem_seg"]
            for view in (image, image[:, ::-1])
        )
    assert not torch.allclose(other.softmax(0), plain.softmax(0)[SWAPPED].flip(-1), atol=1e-3)


def test_testing_leaves_the_modes_as_they_were(tiny_cfg: Config) -> None:
    cfg = tiny_cfg([*BOX, *WARP, *AUG])
    model = build_test_model(cfg, schnet(cfg)).model.model.model
    frozen = [module for module in model.modules() if getattr(module, "is_frozen", False)]
    assert frozen
    for mode in (True, False):
        model.train(mode)
        wrapped = build_test_model(cfg, model)
        before = wrapped.training
        wrapped.eval()
        assert not any(module.training for module in model.modules())
        wrapped.train(before)
        assert model.training == model.sem_seg_head.training == mode
        assert not any(module.training for part in frozen for module in part.modules())


def test_test_wraps_the_model(tiny_cfg: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """`ParsingTrainer.test` is the one place: whatever evaluates goes through it."""
    tested: list[nn.Module] = []

    def test(cfg: CfgNode, model: nn.Module, evaluators: object = None) -> dict[str, float]:
        tested.append(model)
        return {"mIoU": 1.0}

    monkeypatch.setattr("detectron2.engine.DefaultTrainer.test", test)
    model = ConvSegmentor()
    assert ParsingTrainer.test(tiny_cfg([*WARP, *AUG]), model) == {"mIoU": 1.0}
    assert list(layers(tested[0])) == [WarpLabels, SegmentorWithTTA, Letterbox]
    ParsingTrainer.test(tiny_cfg(), model)
    assert list(layers(tested[1])) == [LabelModel] and tested[1].model is model


@pytest.mark.parametrize(
    ("opts", "line"),
    [
        ((), "logits upsampled to the original size, then argmax; test box 512x512"),
        (
            AUG,
            "logits upsampled to the original size, then argmax; test box 512x512; "
            "scales 0.75, 1, 1.25 with flip",
        ),
        (
            (*WARP, *AUG, *ONE_SCALE, "TEST.AUG.FLIP", "False", *BOX),
            "letterboxed to the test box, argmax there, label map warped back by nearest; "
            "test box 32x48 (height x width); scale 1 without flip",
        ),
        (
            (*WINDOWS, "INPUT.SIZE_TEST", "[64, 64]"),
            "logits upsampled to the original size, then argmax; test box 64x64; photos at their "
            "own resolution in windows of the test box, 33 % overlap or more",
        ),
    ],
)
def test_description(tiny_cfg: Config, opts: tuple[str, ...], line: str) -> None:
    assert describe_protocol(tiny_cfg(opts)) == line


def test_both_protocols_have_words() -> None:
    assert set(PROTOCOLS) == {"upsample_logits", "warp_labels"}
