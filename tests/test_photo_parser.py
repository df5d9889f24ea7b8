"""Photos in, parsings out, in order and no more than a batch at a time, whatever the engine."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from schnet.errors import InputError
from schnet.parsing import ByteArray, FloatArray, Parsing
from schnet.photo_parser import PhotoParser

SIZES = [(2, 3), (4, 1), (2, 3), (5, 5), (1, 1), (3, 2), (4, 4)]


class Bright(PhotoParser):
    """An engine of two labels, dark and bright; tells what it was given."""

    def __init__(self, batch_size: int = 3) -> None:
        super().__init__(["dark", "bright"], [[0, 0, 0], [9, 200, 7]], batch_size)
        self.batches: list[list[tuple[int, ...]]] = []

    def parse_arrays(
        self, images: Sequence[ByteArray], probabilities: bool = False
    ) -> list[Parsing]:
        self.batches.append([image.shape for image in images])
        return [self._parse(image, probabilities) for image in images]

    def _parse(self, image: ByteArray, probabilities: bool) -> Parsing:
        labels = (image[:, :, 0] > 127).astype(np.uint8)
        scores = partial(self._scores, image)
        if probabilities:
            found = scores()
            scores = partial(np.asarray, found)
        return Parsing(labels, self.classes, self.palette, image, scores)

    @staticmethod
    def _scores(image: ByteArray) -> FloatArray:
        bright = image[:, :, 0].astype(np.float32) / 255
        return np.stack([1 - bright, bright])


def photo(number: int) -> ByteArray:
    return np.random.default_rng(number).integers(0, 256, (*SIZES[number], 3)).astype(np.uint8)


def test_one_photo_gives_one_parsing() -> None:
    engine = Bright()
    parsing = engine(photo(0))
    assert isinstance(parsing, Parsing) and parsing.labels.shape == (2, 3)
    assert parsing.classes == ("dark", "bright") and parsing.palette == ((0, 0, 0), (9, 200, 7))


@pytest.mark.parametrize("kind", [list, tuple])
def test_a_list_gives_a_list_in_order(kind: type) -> None:
    engine = Bright()
    found = engine(kind(photo(number) for number in range(7)))
    assert isinstance(found, list)
    assert [parsing.labels.shape for parsing in found] == SIZES
    for number, parsing in enumerate(found):
        assert np.array_equal(parsing.labels, photo(number)[:, :, 0] > 127)
        assert np.array_equal(parsing.image, photo(number))
    assert [len(batch) for batch in engine.batches] == [3, 3, 1]
    assert engine([]) == []


def test_every_kind_of_photo_may_stand_in_a_list(tmp_path: Path) -> None:
    pixels = photo(3)
    path = tmp_path / "photo.png"
    Image.fromarray(pixels).save(path)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    mixed = [path, str(path), path.read_bytes(), Image.open(path), pixels, tensor]
    for parsing in Bright()(mixed):
        assert np.array_equal(parsing.image, pixels)


def test_a_stream_holds_at_most_a_batch() -> None:
    alive: list[weakref.ref[np.ndarray]] = []
    most = 0

    def photos() -> Iterator[ByteArray]:
        nonlocal most
        for number in range(20):
            image = photo(number % 7)
            alive.append(weakref.ref(image))
            most = max(most, sum(ref() is not None for ref in alive))
            yield image
            del image

    engine = Bright()
    count = 0
    for parsing in engine.stream(photos(), batch_size=4):
        assert parsing.image is not None
        count += 1
        read = len(alive)
        assert read - count < 4, "more was read than a batch"
    assert count == 20 and [len(batch) for batch in engine.batches] == [4] * 5
    # A batch, and the parsing in the caller's hand.
    assert most <= 5


def test_without_images_a_stream_lets_them_go() -> None:
    images = [photo(number) for number in range(7)]
    refs = [weakref.ref(image) for image in images]
    kept = []
    while images:
        kept += Bright().stream([images.pop()], keep_images=False)
    assert [ref() for ref in refs] == [None] * 7
    assert [parsing.labels.shape for parsing in kept] == SIZES[::-1]
    assert all(parsing.image is None for parsing in kept)
    with pytest.raises(InputError, match="with probabilities=True"):
        _ = kept[0].probabilities


def test_probabilities_of_the_same_pass_stay_without_images() -> None:
    (parsing,) = Bright().stream([photo(0)], keep_images=False, probabilities=True)
    assert parsing.image is None
    assert np.allclose(parsing.probabilities[1], photo(0)[:, :, 0] / np.float32(255))


def test_nothing_is_read_before_it_is_asked_for() -> None:
    read = []

    def photos() -> Iterator[ByteArray]:
        for number in range(7):
            read.append(number)
            yield photo(number)

    waiting = Bright(2).stream(photos())
    assert read == []
    next(waiting)
    assert read == [0, 1]


@pytest.mark.parametrize("size", [0, -1])
def test_impossible_batches_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"the batch size is {size}: give 1 or more"):
        list(Bright().stream([photo(0)], batch_size=size))


def test_a_bad_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gone.jpg"):
        Bright()([photo(0), tmp_path / "gone.jpg"])
