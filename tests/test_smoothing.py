from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import SHARED_DATA
from parsing_fakes import ThresholdModel, write_tiny_model
from video_helpers import bright_right, video_parser

from schnet.data.reading import read_image
from schnet.errors import InputError
from schnet.inference import Parser
from schnet.parsing import ByteArray, FloatArray
from schnet.smoothing import MAX_SIDE, SmoothedParser, is_cut, thumbnail


class Script:
    """Gives probabilities of two labels by turn, whatever the frame."""

    classes = ("background", "bright")
    palette = ((0, 0, 0), (9, 200, 7))

    def __init__(self, *bright: float) -> None:
        self._bright = iter(bright)

    def coarse_probabilities(self, image: ByteArray, max_side: int) -> FloatArray:
        bright = next(self._bright)
        return np.full((2, 3, 4), [[[1 - bright]], [[bright]]], np.float32)


GREY = np.full((30, 40, 3), 100, np.uint8)


def test_the_average_is_exponential() -> None:
    # By hand: 1; .8; .64; .512; .6096 -> hold; then 0 brings .48768, below one half.
    parse = SmoothedParser(Script(1, 0, 0, 0, 1, 0), 0.8)
    held = [bool(parse(GREY).labels.all()) for _ in range(6)]
    assert held == [True, True, True, True, True, False]
    assert parse.cuts == 0


def test_without_a_share_of_the_past_each_frame_is_its_own() -> None:
    parse = SmoothedParser(Script(1, 0, 1), 0)
    found = [parse(GREY) for _ in range(3)]
    assert [parsing.labels.max() for parsing in found] == [1, 0, 1]
    assert found[0].labels.shape == (30, 40)
    assert found[0].image is GREY


def test_a_cut_forgets() -> None:
    white = np.full_like(GREY, 250)
    parse = SmoothedParser(Script(1, 1, 0, 0), 0.9)
    assert [bool(parse(f).labels.any()) for f in (GREY, GREY, white, white)] == [
        True,
        True,
        False,
        False,
    ]
    assert parse.cuts == 1


@pytest.mark.parametrize("factor", [-0.1, 1.0, float("nan")])
def test_impossible_factors_are_refused(factor: float) -> None:
    with pytest.raises(InputError, match="--smooth is"):
        SmoothedParser(Script(), factor)


def test_cuts_are_told_from_motion_and_light() -> None:
    folder = SHARED_DATA / "ccp" / "photos"
    if not folder.is_dir():
        pytest.skip(f"there are no photos in {folder}")
    photos = [read_image(path) for path in sorted(folder.glob("*.jpg"))[:8]]
    seen = [thumbnail(photo) for photo in photos]
    for before, after in zip(seen, seen[1:], strict=False):
        assert is_cut(before, after)
    for photo, small in zip(photos, seen, strict=True):
        step = photo.shape[1] // 50
        assert not is_cut(thumbnail(photo[:, step:]), thumbnail(photo[:, :-step]))
        assert not is_cut(small, np.minimum(small * 1.15, 255).astype(np.uint8))


def test_the_models_scores_are_asked_for_at_a_bounded_size() -> None:
    parser = video_parser()
    model = parser._model
    assert isinstance(model, ThresholdModel)
    large = np.zeros((900, 1600, 3), np.uint8)
    assert parser.coarse_probabilities(large, MAX_SIDE).shape == (2, 4, 8)
    assert (model.seen[0]["height"], model.seen[0]["width"]) == (4, 8)
    assert parser.coarse_probabilities(large, 3).shape == (2, 2, 3)
    # A moving edge: the labels are the frame's own where nothing is remembered.
    parse = SmoothedParser(parser, 0)
    for frame in bright_right(3):
        assert (parse(frame).labels == parser(frame).labels).mean() > 0.9


def test_a_real_models_frame_is_parsed_as_a_photo(tmp_path: Path) -> None:
    config, weights = write_tiny_model(tmp_path)
    parser = Parser.load(weights, device="cpu", config_files=[config])
    noise = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    probabilities = parser.coarse_probabilities(noise, MAX_SIDE)
    assert probabilities.shape == (20, 6, 8)
    assert np.allclose(probabilities.sum(axis=0), 1, atol=1e-5)
    smoothed, own = SmoothedParser(parser, 0)(noise), parser(noise)
    assert smoothed.labels.shape == (96, 128)
    # Probabilities are brought to the frame's size in place of logits.
    assert (smoothed.labels == own.labels).mean() > 0.9
