"""Sample predictions: which images, what the pictures show, and with which weights."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.engine.hooks import CallbackHook
from evaluated_run import HookRun, ScriptedEvaluation, of_metric
from PIL import Image
from tiny_lip import HEIGHT, OPTS, WIDTH, make_lip
from torch import nn

from schnet.config import load_config
from schnet.data.catalog import SPECS, load_registered, register_datasets
from schnet.engine.samples import MAX_SIDE, SampleImagesHook, build_sample_images
from schnet.visualization import GAP

IMAGES = 5
HAT, HAIR = 1, 2


class _Constant(nn.Module):
    """Says one label everywhere: the one that its weight holds."""

    def __init__(self) -> None:
        super().__init__()
        self.label = nn.Parameter(torch.tensor(float(HAT)))

    def forward(self, batch: list[dict[str, Any]]) -> list[dict[str, torch.Tensor]]:
        assert not self.training
        results = []
        for entry in batch:
            scores = torch.zeros(20, entry["height"], entry["width"])
            scores[int(self.label)] = 1
            results.append({"sem_seg": scores})
        return results


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., CfgNode]:
    make_lip(tmp_path / "data", {"train": 1, "val": IMAGES})
    register_datasets(str(tmp_path / "data"))
    return lambda *opts: load_config([], [*OPTS, *opts])


def _pictures(cfg: CfgNode, model: nn.Module, **options: Any) -> list[tuple[str, np.ndarray, int]]:
    """The pictures that are in the storage after two evaluations."""
    evaluation = ScriptedEvaluation(of_metric(1, 2), period=3)
    hook = SampleImagesHook(evaluation, build_sample_images(cfg, model), **options)
    run = HookRun([evaluation, hook]).train(6)
    return run.storage._vis_data


def test_fixed_images_spread_over_the_set_after_each_evaluation(
    config: Callable[..., CfgNode],
) -> None:
    found = _pictures(config("TEST.SAMPLE_IMAGES", "3"), _Constant())
    names = ["samples/val_0", "samples/val_2", "samples/val_4"]
    assert [(name, step) for name, _, step in found] == [
        *((name, 2) for name in names),
        *((name, 5) for name in names),
    ]


def test_evaluation_made_up_for_before_the_first_step_is_drawn_at_its_own_iteration(
    config: Callable[..., CfgNode],
) -> None:
    evaluation = ScriptedEvaluation(of_metric(1))
    evaluation.before_train = evaluation.evaluate  # type: ignore[method-assign]
    samples = build_sample_images(config("TEST.SAMPLE_IMAGES", "1"), _Constant())
    after: list[int] = []
    probe = CallbackHook(before_train=lambda run: after.append(run.storage.iter))
    run = HookRun([evaluation, SampleImagesHook(evaluation, samples), probe], start=8).train(8)
    assert [step for _, _, step in run.storage._vis_data] == [7]
    assert after == [8]


def test_picture_shows_photo_truth_and_prediction(config: Callable[..., CfgNode]) -> None:
    _, picture, _ = _pictures(config(), _Constant())[0]
    assert picture.shape == (3, HEIGHT, 3 * WIDTH + 2 * GAP) and picture.dtype == np.uint8
    columns = [picture[:, :, start : start + WIDTH] for start in range(0, 120, WIDTH + GAP)][:3]
    photo, truth, prediction = (part.transpose(1, 2, 0) for part in columns)
    entry = load_registered(["lip_val"])[0]
    with Image.open(entry["file_name"]) as image, Image.open(entry["sem_seg_file_name"]) as label:
        np.testing.assert_array_equal(photo, np.asarray(image.convert("RGB")))
        np.testing.assert_array_equal(truth, np.array(SPECS["lip"].palette)[np.asarray(label)])
    assert (prediction == SPECS["lip"].palette[HAT]).all()


def test_large_photo_is_drawn_small(config: Callable[..., CfgNode]) -> None:
    cfg = config("TEST.SAMPLE_IMAGES", "1")
    entry = load_registered(["lip_val"])[0]
    for path in (entry["file_name"], entry["sem_seg_file_name"]):
        with Image.open(path) as image:
            image.resize((2 * MAX_SIDE, 3 * MAX_SIDE), Image.Resampling.NEAREST).save(path)
    (_, picture, _), _ = _pictures(cfg, _Constant())
    width = round(MAX_SIDE * 2 / 3)
    assert picture.shape == (3, MAX_SIDE, 3 * width + 2 * GAP)


def test_test_set_without_labels_is_drawn_too(config: Callable[..., CfgNode]) -> None:
    samples = build_sample_images(config("TEST.SAMPLE_IMAGES", "1"), _Constant())
    for entry in samples.dicts:
        del entry["sem_seg_file_name"]
    samples.model.eval()
    assert samples.draw(0).shape == (HEIGHT, 3 * WIDTH + 2 * GAP, 3)


@pytest.mark.parametrize("opts", [(), ("TEST.PROTOCOL", "warp_labels")])
def test_evaluated_weights_predict_and_modes_are_kept(
    config: Callable[..., CfgNode], opts: tuple[str, ...]
) -> None:
    model = _Constant().train()

    @contextlib.contextmanager
    def averaged() -> Iterator[None]:
        model.label.data.fill_(HAIR)
        yield
        model.label.data.fill_(HAT)

    _, picture, _ = _pictures(config(*opts), model, weights=averaged)[0]
    assert (picture[:, :, -WIDTH:].transpose(1, 2, 0) == SPECS["lip"].palette[HAIR]).all()
    assert model.training and model.label.item() == HAT


def test_no_random_number_is_taken(config: Callable[..., CfgNode]) -> None:
    before = torch.get_rng_state()
    _pictures(config(), _Constant())
    assert torch.equal(torch.get_rng_state(), before)


def test_no_images_are_none(config: Callable[..., CfgNode]) -> None:
    assert _pictures(config("TEST.SAMPLE_IMAGES", "0"), _Constant()) == []
