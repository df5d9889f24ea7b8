from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY_OPTS
from detectron2.modeling import build_model
from parsing_fakes import ThresholdModel, fake_parser, half_bright, write_tiny_model

from schnet.config import load_config
from schnet.data.catalog import SPECS
from schnet.data.mapper import TestMapper
from schnet.errors import InputError
from schnet.evaluation.argmax import predicted_labels
from schnet.evaluation.test_time import build_test_model
from schnet.inference import Parser


@pytest.mark.parametrize(("height", "width"), [(20, 40), (64, 16), (5, 8), (200, 100)])
def test_labels_have_the_images_size_and_place(height: int, width: int) -> None:
    parsing = fake_parser()(half_bright(height, width))
    assert parsing.labels.shape == (height, width)
    assert parsing.labels.dtype == np.uint8
    assert parsing.labels[:, : width // 4].max() == 0
    assert parsing.labels[:, -width // 4 :].min() == 1


def test_parsing_carries_names_and_palette_and_the_mapper_is_used() -> None:
    model = ThresholdModel()
    parsing = fake_parser(model)(half_bright(64, 128))
    assert parsing.classes == ("background", "bright")
    assert parsing.palette == ((0, 0, 0), (9, 200, 7))
    assert tuple(model.seen[0]["image"].shape) == (3, 16, 32)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_what_is_no_rgb_image_is_refused(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match="an image must be"):
        fake_parser()(image)


def test_from_config_without_weights_is_refused() -> None:
    with pytest.raises(InputError, match="MODEL.WEIGHTS is empty"):
        Parser.from_config(load_config([], TINY_OPTS))


def test_labels_are_taken_where_the_model_gives_them() -> None:
    labels = torch.tensor([[1, 0, 1]], dtype=torch.uint8)

    def model(inputs: Sequence[Mapping[str, Any]]) -> list[dict[str, torch.Tensor]]:
        return [{"labels": labels}]

    assert fake_parser(model)(half_bright(1, 3)).labels.tolist() == [[1, 0, 1]]


ASKED = {
    "warp_labels": ("TEST.PROTOCOL", "warp_labels"),
    "views": ("TEST.AUG.ENABLED", "True", "TEST.AUG.SCALES", "[0.5, 1.5]"),
    "windows": ("TEST.SLIDING_WINDOW.ENABLED", "True"),
}


@pytest.mark.parametrize("opts", ASKED.values(), ids=ASKED)
def test_from_config_parses_as_it_is_tested(tmp_path: Path, opts: tuple[str, ...]) -> None:
    config, weights = write_tiny_model(tmp_path)
    cfg = load_config([config], ["MODEL.WEIGHTS", str(weights), *opts])
    model = build_model(cfg)
    model.load_state_dict(torch.load(weights, weights_only=True))
    image = np.random.default_rng(0).integers(0, 255, (50, 70, 3)).astype(np.uint8)
    mapped = [TestMapper(cfg).from_array(image)]
    with torch.no_grad():
        (result,) = build_test_model(cfg, model.eval())(mapped)
        (plain,) = model([TestMapper(box=(32, 32)).from_array(image)])
    found = Parser.from_config(cfg)(image).labels
    assert np.array_equal(found, predicted_labels(result))
    assert found.shape == (50, 70)
    assert not np.array_equal(found, predicted_labels(plain))


def test_from_config_reproduces_the_saved_model(tmp_path: Path) -> None:
    config, weights = write_tiny_model(tmp_path)
    cfg = load_config([config], ["MODEL.WEIGHTS", str(weights)])
    model = build_model(cfg).eval()
    model.load_state_dict(torch.load(weights, weights_only=True))
    image = np.random.default_rng(0).integers(0, 255, (30, 50, 3)).astype(np.uint8)
    with torch.no_grad():
        logits = model([TestMapper(box=(32, 32)).from_array(image)])[0]["sem_seg"]
    torch.manual_seed(99)
    parsing = Parser.from_config(cfg)(image)
    assert np.array_equal(parsing.labels, logits.argmax(dim=0).numpy())
    assert len(np.unique(parsing.labels)) > 1, "one label everywhere would show nothing"
    assert parsing.classes == SPECS["dolls"].classes
    assert parsing.palette == tuple(tuple(color) for color in SPECS["dolls"].palette)
