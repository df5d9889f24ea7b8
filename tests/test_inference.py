from __future__ import annotations

from pathlib import Path

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
