from __future__ import annotations

import threading

import pytest

from schnet.batch.budget import PixelBudget

SECONDS = 10


def enters_later(budget: PixelBudget, pixels: int) -> tuple[threading.Thread, list[bool]]:
    """Enter from another thread; what it was told is in the list when it is through."""
    told: list[bool] = []
    thread = threading.Thread(target=lambda: told.append(budget.enter(pixels)), daemon=True)
    thread.start()
    return thread, told


@pytest.mark.parametrize(("pixels", "photos", "second"), [(10, 9, 5), (100, 1, 1)])
def test_a_photo_waits_until_there_is_room(pixels: int, photos: int, second: int) -> None:
    budget = PixelBudget(pixels, photos)
    assert budget.enter(6)
    thread, told = enters_later(budget, second)
    thread.join(0.05)
    assert thread.is_alive() and not told
    budget.leave(6)
    thread.join(SECONDS)
    assert told == [True]


def test_photos_within_the_bounds_come_in_at_once() -> None:
    budget = PixelBudget(10, 3)
    assert budget.enter(4) and budget.enter(4) and budget.enter(2)


def test_a_photo_larger_than_the_bound_comes_in_alone() -> None:
    budget = PixelBudget(10, 3)
    assert budget.enter(50)
    thread, told = enters_later(budget, 1)
    thread.join(0.05)
    assert thread.is_alive()
    budget.leave(50)
    thread.join(SECONDS)
    assert told == [True]


def test_stopping_lets_nobody_wait_and_nobody_in() -> None:
    budget = PixelBudget(10, 3)
    assert budget.enter(10)
    thread, told = enters_later(budget, 1)
    budget.stop()
    thread.join(SECONDS)
    assert told == [False] and not budget.enter(1)
