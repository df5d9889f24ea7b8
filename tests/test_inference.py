from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY_OPTS
from detectron2.modeling import build_model
from parsing_fakes import ThresholdModel, fake_parser, half_bright, write_tiny_model, write_tiny_run
from PIL import Image

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
    parsing = Parser.from_config(cfg)(image)
    found = parsing.labels
    assert np.array_equal(found, predicted_labels(result))
    if "TEST.AUG.ENABLED" in opts:  # probabilities already
        assert np.allclose(parsing.probabilities, result["sem_seg"].numpy(), atol=1e-6)
    assert found.shape == (50, 70)
    assert not np.array_equal(found, predicted_labels(plain))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder: `model_best.pth` and `config.yaml` of the tiny model."""
    return write_tiny_run(tmp_path_factory.mktemp("run"))


def load(run: Path, *opts: str) -> Parser:
    return Parser.load(run, device="cpu", dtype="float32", opts=opts)


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3)).astype(np.uint8)


@pytest.mark.parametrize("opts", [(), *ASKED.values()], ids=["plain", *ASKED])
def test_lists_and_streams_equal_single_photos_to_the_bit(run: Path, opts: tuple[str, ...]) -> None:
    parser = load(run, *opts)
    sizes = [(36, 40), (20, 30), (36, 40), (9, 50), (20, 30)]
    photos = [photo(*size, seed) for seed, size in enumerate(sizes)]
    alone = [parser(one).labels for one in photos]
    assert len(np.unique(alone[0])) > 1
    assert not np.array_equal(alone[0], alone[2]), "each photo has its own result"
    for found in (parser(photos), list(parser.stream(iter(photos), batch_size=4))):
        assert len(found) == len(photos)
        for parsing, one, labels in zip(found, photos, alone, strict=True):
            assert np.array_equal(parsing.labels, labels) and parsing.image is one


PROBABLE = {
    "plain": (),
    "views": ASKED["views"],
    "one mirrored view": ("TEST.AUG.ENABLED", "True", "TEST.AUG.SCALES", "[1.0]"),
    "windows": ASKED["windows"],
}


@pytest.mark.parametrize("opts", PROBABLE.values(), ids=PROBABLE)
def test_probabilities_sum_to_one_and_their_best_is_the_label(
    run: Path, opts: tuple[str, ...]
) -> None:
    parser = load(run, *opts)
    for size in [(36, 40), (20, 30)]:
        parsing = parser(photo(*size))
        found = parsing.probabilities
        assert found.shape == (20, *size) and found.dtype == np.float32
        assert np.allclose(found.sum(axis=0), 1, atol=1e-5) and found.min() >= 0
        assert np.array_equal(found.argmax(axis=0), parsing.labels)
        now = parser(photo(*size), probabilities=True)
        assert np.array_equal(now.probabilities, found)
        assert np.array_equal(now.labels, parsing.labels)


def test_probabilities_are_the_softmax_of_the_logits(run: Path) -> None:
    cfg = load_config([run / "config.yaml"], ["MODEL.WEIGHTS", str(run / "model_best.pth")])
    model = build_model(cfg).eval()
    model.load_state_dict(torch.load(run / "model_best.pth", weights_only=True))
    image = photo(50, 70)
    with torch.no_grad():
        logits = model([TestMapper(box=(32, 32)).from_array(image)])[0]["sem_seg"]
    found = load(run)(image).probabilities
    assert np.allclose(found, logits.softmax(dim=0).numpy(), atol=1e-6)


def test_warped_labels_have_probabilities_at_the_photos_size(run: Path) -> None:
    parser = load(run, *ASKED["warp_labels"])
    plain, now = parser(photo(50, 70)), parser(photo(50, 70), probabilities=True)
    assert np.array_equal(plain.labels, now.labels)
    found = now.probabilities
    assert found.shape == (20, 50, 70) and np.allclose(found.sum(axis=0), 1, atol=1e-5)
    assert np.array_equal(plain.probabilities, found)
    # They may differ from the warped labels at edges alone, of which this noise is full.
    assert (found.argmax(axis=0) == now.labels).mean() > 0.5


def test_a_model_of_labels_has_no_probabilities() -> None:
    with pytest.raises(InputError, match="gives labels only: there are no probabilities"):
        _ = fake_parser()(half_bright(4, 4)).probabilities


def test_photos_in_files_come_upright_and_at_their_size(run: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = photo(50, 70)
    Image.fromarray(image).save(tmp_path / "turned.png", exif=exif)
    parser = load(run)
    turned = parser(tmp_path / "turned.png")
    assert turned.labels.shape == (70, 50)
    assert np.array_equal(turned.labels, parser(np.rot90(image, -1)).labels)


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
