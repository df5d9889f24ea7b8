from __future__ import annotations

import pytest

from schnet.data.view_sizes import ViewSizes, fitted_size


@pytest.mark.parametrize(
    ("size", "box", "fitted"),
    [
        ((830, 550), (256, 160), (241, 160)),
        ((100, 50), (512, 512), (512, 256)),
        ((50, 100), (64, 64), (32, 64)),
        ((3, 4000), (64, 64), (1, 64)),
        ((64, 64), (64, 64), (64, 64)),
    ],
)
def test_fitted_size(size: tuple[int, int], box: tuple[int, int], fitted: tuple[int, int]) -> None:
    assert fitted_size(size, box) == fitted


@pytest.mark.parametrize(
    ("photo", "scale", "size"),
    [
        ((100, 50), 1.0, (40, 20)),
        ((100, 50), 0.75, (30, 15)),
        ((100, 50), 1.25, (50, 25)),
        ((10, 5), 1.25, (50, 25)),
        ((1, 1), 1.0, (40, 40)),
        ((1, 4000), 0.01, (1, 1)),
    ],
)
def test_whole_photo_is_fitted_into_the_scaled_box(
    photo: tuple[int, int], scale: float, size: tuple[int, int]
) -> None:
    sizes = ViewSizes((40, 60))
    assert sizes.view_size(photo, scale) == size
    assert any(a == b for a, b in zip(size, sizes.scaled_box(scale), strict=True))


@pytest.mark.parametrize(
    ("photo", "scale", "size"),
    [
        ((1000, 501), 1.0, (1000, 501)),
        ((1000, 501), 0.75, (750, 376)),
        ((1000, 501), 1.25, (1250, 626)),
        # Smaller than a window in one direction only: it keeps its resolution.
        ((30, 61), 1.0, (30, 61)),
        # Smaller in both: as without windows.
        ((30, 20), 1.0, (40, 27)),
        ((30, 20), 2.0, (80, 54)),
        ((1, 1), 1.0, (40, 40)),
    ],
)
def test_photo_in_windows_keeps_its_resolution_unless_it_is_smaller_than_one(
    photo: tuple[int, int], scale: float, size: tuple[int, int]
) -> None:
    assert ViewSizes((40, 60), in_windows=True).view_size(photo, scale) == size


def test_scaled_box_is_never_empty() -> None:
    assert ViewSizes((40, 60)).scaled_box(0.75) == (30, 45)
    assert ViewSizes((16, 16)).scaled_box(0.001) == (1, 1)
