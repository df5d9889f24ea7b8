"""The letterbox around a model, and labels warped from it to the photo's size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from segmentor_fakes import ConvSegmentor, entry_of, photo
from torch import nn

from schnet.evaluation.letterbox import Letterbox, offset
from schnet.evaluation.tta import SegmentorWithTTA
from schnet.evaluation.warp_labels import WarpLabels

COLOR = (124, 116, 104)
# Size of the fitted image, and its box: padding above and below, left and right, uneven, none.
FITTED = [((8, 16), (16, 16)), ((16, 7), (16, 16)), ((15, 16), (16, 16)), ((9, 9), (9, 9))]


def padded(image: torch.Tensor, box: tuple[int, int]) -> torch.Tensor:
    """The image in the middle of a box of the pad colour, the slow way."""
    (height, width), (rows, columns) = image.shape[-2:], box
    result = torch.tensor(COLOR, dtype=torch.uint8)[:, None, None].expand(3, *box).clone()
    above, before = (rows - height) // 2, (columns - width) // 2
    for row in range(height):
        for column in range(width):
            result[:, above + row, before + column] = image[:, row, column]
    return result


def boxed(image: torch.Tensor, box: tuple[int, int], height: int, width: int) -> dict[str, object]:
    return {**entry_of(image, height, width), "box": box}


@pytest.mark.parametrize(("size", "box"), FITTED)
def test_image_is_padded_and_the_padding_cut_off(
    size: tuple[int, int], box: tuple[int, int]
) -> None:
    model = ConvSegmentor(kernel_size=3)
    image = photo(*size)
    with torch.no_grad():
        (found,) = Letterbox(model, COLOR)([boxed(image, box, *size)])
        canvas = padded(image, box)
        (whole,) = model([entry_of(canvas, *box)])
    assert torch.equal(model.seen[0][0]["image"], canvas)
    assert model.seen[0][0]["image"].dtype == torch.uint8
    above, before = (box[0] - size[0]) // 2, (box[1] - size[1]) // 2
    inside = whole["sem_seg"][:, above : above + size[0], before : before + size[1]]
    assert torch.equal(found["sem_seg"], inside)


def test_what_is_inside_is_resized_to_the_result() -> None:
    model = ConvSegmentor()
    image = photo(8, 16)
    with torch.no_grad():
        (found,) = Letterbox(model, COLOR)([boxed(image, (16, 16), 21, 40)])
        logits = model.conv(image.float()[None] / 255)
    expected = F.interpolate(logits, size=(21, 40), mode="bilinear", align_corners=False)[0]
    assert torch.allclose(found["sem_seg"], expected, atol=1e-5)


def test_images_of_a_box_are_of_one_size() -> None:
    model = ConvSegmentor()
    batch = [boxed(photo(*size), (16, 16), 5, 6) for size in [(8, 16), (16, 3), (1, 16)]]
    results = Letterbox(model, COLOR)(batch)
    assert model.sizes() == [[(16, 16)] * 3]
    assert [tuple(r["sem_seg"].shape) for r in results] == [(4, 5, 6)] * 3


def test_offset_is_in_the_middle() -> None:
    assert offset((8, 15), (16, 16)) == (4, 0)
    assert offset((5, 5), (16, 16)) == (5, 5)


class Answer(nn.Module):
    """Says what it is told, and what it was asked for."""

    def __init__(self, labels: np.ndarray, num_classes: int) -> None:
        super().__init__()
        self.sem_seg = F.one_hot(torch.from_numpy(labels.astype(np.int64)), num_classes)
        self.asked: list[tuple[int, int]] = []

    def forward(self, batch: list[dict[str, object]]) -> list[dict[str, torch.Tensor]]:
        self.asked += [(entry["height"], entry["width"]) for entry in batch]
        return [{"sem_seg": self.sem_seg.permute(2, 0, 1).float()} for _ in batch]


def nearest(labels: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Each pixel's label by its centre, and where the centre lies between two pixels."""
    result, tied = np.empty(size, np.uint8), np.zeros(size, bool)
    (height, width), (rows, columns) = labels.shape, size
    for row in range(rows):
        for column in range(columns):
            y, x = (2 * row + 1) * height, (2 * column + 1) * width
            result[row, column] = labels[y // (2 * rows), x // (2 * columns)]
            tied[row, column] = y % (2 * rows) == 0 or x % (2 * columns) == 0
    return result, tied


@pytest.mark.parametrize("size", [(13, 11), (40, 37), (5, 3), (1, 1), (16, 9), (32, 18)])
@pytest.mark.parametrize("num_classes", [2, 255])
def test_labels_are_warped_to_the_nearest(size: tuple[int, int], num_classes: int) -> None:
    labels = np.random.default_rng(0).integers(0, num_classes, (16, 9), np.uint8)
    model = Answer(labels, num_classes)
    (found,) = WarpLabels(model)([entry_of(photo(16, 9), *size)])
    assert set(found) == {"labels"}
    assert found["labels"].dtype == torch.uint8 and found["labels"].shape == size
    assert model.asked == [(16, 9)], "argmax is taken at the fitted image's size"
    expected, tied = nearest(labels, size)
    assert np.array_equal(found["labels"].numpy()[~tied], expected[~tied])
    assert not tied.all() or size == (1, 1)


def test_labels_with_views_and_letterbox() -> None:
    """All together: the views' padding never counts, and probabilities meet at the fitted size."""
    model = ConvSegmentor(kernel_size=3)
    whole = WarpLabels(SegmentorWithTTA(Letterbox(model, COLOR), (0, 1, 3, 2)))
    entry = boxed(photo(16, 7), (16, 16), 33, 15)
    entry["views"] = [
        {"image": photo(12, 5, 1), "box": (12, 12)},
        {"image": entry["image"], "box": (16, 16)},
    ]
    with torch.no_grad():
        (found,) = whole([entry])
        mean = torch.zeros(4, 16, 7)
        for view in entry["views"]:
            width, box = view["image"].shape[-1], view["box"]
            left = (box[1] - width) // 2
            for image in (view["image"], view["image"].flip(-1)):
                logits = model.conv(padded(image, box).float()[None] / 255)
                logits = logits[..., left : left + width]
                logits = F.interpolate(logits, (16, 7), mode="bilinear", align_corners=False)[0]
                flipped = image is not view["image"]
                mean += logits.softmax(0)[[0, 1, 3, 2]].flip(-1) if flipped else logits.softmax(0)
    assert model.sizes() == [[(12, 12)]] * 2 + [[(16, 16)]] * 2
    expected, tied = nearest(mean.argmax(0).numpy().astype(np.uint8), (33, 15))
    assert np.array_equal(found["labels"].numpy()[~tied], expected[~tied])
