"""Broken training images: counted once each, up to a limit, over processes and resumptions."""

from __future__ import annotations

import logging

import pytest

from schnet.data.broken import BrokenImages
from schnet.errors import InputError


def test_first_is_refused_in_its_own_words_at_limit_zero() -> None:
    with pytest.raises(InputError, match="^a.jpg is empty: replace it$"):
        BrokenImages(0).add({"a.jpg": "a.jpg is empty: replace it"})


def test_each_is_warned_of_once_and_one_more_than_the_limit_is_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken = BrokenImages(2)
    with caplog.at_level(logging.WARNING, logger="schnet"):
        for _ in range(2):
            broken.add({"a.jpg": "a is empty", "b.jpg": "b is text"})
    assert [record.getMessage().rpartition(": ")[2] for record in caplog.records] == [
        "a is empty",
        "b is text",
    ]
    with pytest.raises(InputError) as caught:
        broken.add({"c.jpg": "c is missing"})
    for part in ("3 training images", "a.jpg, b.jpg, c.jpg", "c is missing", "which is 2"):
        assert part in str(caught.value)


def test_news_are_taken_once() -> None:
    broken = BrokenImages(3)
    assert not broken.has_news
    broken.add({"a.jpg": "empty"})
    assert broken.has_news and broken.take_news() == {"a.jpg": "empty"}
    broken.add({"a.jpg": "empty"})
    assert not broken.has_news


def test_resumed_run_counts_on_without_another_warning(caplog: pytest.LogCaptureFixture) -> None:
    first, second = BrokenImages(1), BrokenImages(1)
    first.add({"a.jpg": "empty"})
    second.load_state_dict(first.state_dict())
    caplog.clear()
    second.add({"a.jpg": "empty"})
    assert not caplog.records and not second.has_news
    with pytest.raises(InputError, match="2 training images"):
        second.add({"b.jpg": "empty"})
