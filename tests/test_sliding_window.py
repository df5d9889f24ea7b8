from __future__ import annotations

import numpy as np
import pytest
import torch
from segmentor_fakes import ConvSegmentor, entry_of, photo

from schnet.evaluation.sliding_window import SlidingWindow, WindowAxis
from schnet.evaluation.tta import SegmentorWithTTA


def parse(model: torch.nn.Module, entry: dict[str, object]) -> torch.Tensor:
    with torch.no_grad():
        return model([entry])[0]["sem_seg"]


@pytest.mark.parametrize("overlap", [0, 0.07, 1 / 3, 0.33, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("window", [1, 2, 7, 16, 100])
def test_windows_cover_a_side_evenly(window: int, overlap: float) -> None:
    for length in (1, 2, 7, 8, 17, 33, 100, 257):
        check_cover(length, window, overlap)


def check_cover(length: int, window: int, overlap: float) -> None:
    axis = WindowAxis.cover(length, window, overlap)
    assert axis.window == min(window, length) and axis.length == length
    assert axis.starts[0] == 0 and axis.starts[-1] + axis.window == length
    gaps = np.diff(axis.starts)
    # One pixel forward is the least, whatever the overlap.
    most = max(1, axis.window - overlap * axis.window)
    assert (gaps >= 1).all() and (gaps <= most + 1e-9).all()
    assert gaps.size == 0 or gaps.max() - gaps.min() <= 1
    # No fewer windows would do.
    assert len(axis.starts) == 1 or (len(axis.starts) - 2) * int(most + 1e-9) < length - window


def test_windows_of_a_known_side() -> None:
    assert WindowAxis.cover(1000, 512, 0.33).starts == (0, 244, 488)
    assert WindowAxis.cover(1024, 512, 0).starts == (0, 512)
    assert WindowAxis.cover(513, 512, 0.33).starts == (0, 1)
    assert WindowAxis.cover(300, 512, 0.33) == WindowAxis(300, 300, (0,))


def slow_shares(axis: WindowAxis) -> np.ndarray:
    """Each window's share at each pixel of the side, (n, length): distance to the nearer end."""
    shares = np.zeros((len(axis.starts), axis.length))
    for number, start in enumerate(axis.starts):
        for pixel in range(start, start + axis.window):
            shares[number, pixel] = 1 + min(pixel - start, start + axis.window - 1 - pixel)
    return shares / shares.sum(0)


@pytest.mark.parametrize(("length", "window", "overlap"), [(17, 8, 0.33), (9, 8, 0.9), (5, 1, 0)])
def test_weights_fall_off_to_the_ends_and_sum_to_one(
    length: int, window: int, overlap: float
) -> None:
    axis = WindowAxis.cover(length, window, overlap)
    expected = slow_shares(axis)
    for start, found, wanted in zip(axis.starts, axis.weights(), expected, strict=True):
        assert np.allclose(found, wanted[start : start + axis.window], atol=1e-6)


def brute_force(
    model: ConvSegmentor, image: torch.Tensor, rows: WindowAxis, columns: WindowAxis
) -> torch.Tensor:
    """The weighted mean over all windows, on whole canvases."""
    total = torch.zeros(model.conv.out_channels, rows.length, columns.length, dtype=torch.double)
    down, across = slow_shares(rows), slow_shares(columns)
    for i, top in enumerate(rows.starts):
        for j, left in enumerate(columns.starts):
            cut = image[:, top : top + rows.window, left : left + columns.window]
            seen = parse(model, entry_of(cut, rows.window, columns.window)).double().softmax(0)
            canvas = torch.zeros_like(total)
            canvas[:, top : top + rows.window, left : left + columns.window] = seen
            total += canvas * torch.from_numpy(np.outer(down[i], across[j]))
    return total


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
@pytest.mark.parametrize("size", [(33, 41), (16, 17), (60, 5)])
def test_mean_over_windows(size: tuple[int, int], batch_size: int) -> None:
    model = ConvSegmentor(kernel_size=5)
    image = photo(*size)
    found = parse(SlidingWindow(model, (16, 12), 0.33, batch_size), entry_of(image, *size))
    calls = model.sizes()
    rows, columns = (WindowAxis.cover(a, b, 0.33) for a, b in zip(size, (16, 12), strict=True))
    expected = brute_force(model, image, rows, columns)
    assert torch.allclose(found.double().exp(), expected, atol=1e-6)
    count = len(rows.starts) * len(columns.starts)
    assert [len(call) for call in calls[:-1]] == [batch_size] * (len(calls) - 1)
    assert sum(map(len, calls)) == count
    assert {window for call in calls for window in call} == {(rows.window, columns.window)}


@pytest.mark.parametrize("num_classes", [2, 4])
@pytest.mark.parametrize("overlap", [0, 0.33, 0.9])
def test_pixelwise_model_sees_no_windows(overlap: float, num_classes: int) -> None:
    model = ConvSegmentor(num_classes)
    entry = entry_of(photo(37, 29), 37, 29)
    windows = parse(SlidingWindow(model, (16, 16), overlap, 3), entry)
    plain = parse(model, entry)
    assert torch.allclose(windows.softmax(0), plain.softmax(0), atol=1e-6)
    assert torch.equal(windows.argmax(0), plain.argmax(0))


@pytest.mark.parametrize("size", [(16, 16), (1, 1), (3, 16), (16, 5)])
def test_image_that_fits_in_a_window_is_the_plain_models(size: tuple[int, int]) -> None:
    model = ConvSegmentor(kernel_size=3)
    entry = entry_of(photo(*size), 20, 30)
    assert torch.equal(parse(SlidingWindow(model, (16, 16), 0.33, 2), entry), parse(model, entry))
    assert model.seen[0][0]["image"] is entry["image"]


def test_result_has_the_photos_size() -> None:
    """An enlarged photo, or a view at another scale, comes back to where it was."""
    model = ConvSegmentor()
    image = photo(5, 6).float()
    large = torch.nn.functional.interpolate(image[None], scale_factor=6, mode="nearest")[0]
    found = parse(SlidingWindow(model, (16, 16), 0.33, 2), entry_of(large.byte(), 5, 6))
    assert found.shape == (4, 5, 6)
    plain = parse(model, entry_of(image.byte(), 5, 6))
    assert torch.allclose(found.softmax(0), plain.softmax(0), atol=1e-5)


def test_windows_and_views_together() -> None:
    """A pixelwise model and views of one size: windows, views and flips must change nothing."""
    model = ConvSegmentor()
    image = photo(40, 23)
    windows = SegmentorWithTTA(SlidingWindow(model, (16, 16), 0.4, 4), (0, 1, 2, 3))
    found = parse(windows, entry_of(image, 40, 23, image, image))
    plain = parse(model, entry_of(image, 40, 23)).softmax(0)
    assert torch.allclose(found, plain, atol=1e-6)


def test_certain_model_gives_finite_numbers() -> None:
    model = ConvSegmentor()
    with torch.no_grad():
        model.conv.weight *= 1000
    found = parse(SlidingWindow(model, (16, 16), 0.5, 4), entry_of(photo(20, 20), 20, 20))
    assert torch.isfinite(found).all()
    assert (found.softmax(0).min() < 1e-20) and found.max() <= 1e-6


def test_images_of_a_batch_are_apart() -> None:
    model = SlidingWindow(ConvSegmentor(kernel_size=3), (16, 16), 0.33, 4)
    entries = [entry_of(photo(20, 9, 1), 20, 9), entry_of(photo(7, 33, 2), 7, 33)]
    with torch.no_grad():
        together = model(entries)
    for entry, result in zip(entries, together, strict=True):
        assert torch.equal(result["sem_seg"], parse(model, entry))


@pytest.mark.parametrize("step", [1, 7, 16])
def test_bands_are_the_whole_to_the_bit(step: int) -> None:
    """Sums over nine windows and more: in another order they would round differently.

    Rows of 16 fill the CPU's vectors: torch's softmax rounds what is left over differently.
    """
    model = SlidingWindow(ConvSegmentor(kernel_size=5), (16, 16), 0.7, 4)
    entry = entry_of(photo(41, 32), 41, 32)
    with torch.no_grad():
        (scores,) = model.score_maps([entry])
        found = [scores.rows(first, min(first + step, 41)) for first in range(0, 41, step)]
    assert torch.equal(torch.cat(found, dim=1), parse(model, entry))
