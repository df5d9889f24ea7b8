"""What processes tell each other at the end of a step, and the position that is saved."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from detectron2.utils.events import EventStorage

from schnet.engine import run_state
from schnet.engine.run_state import RunState
from schnet.errors import InputError


def _join(monkeypatch: pytest.MonkeyPatch, *, stop: bool, news: Mapping[str, str]) -> list[object]:
    """Put another process beside this one; gives what this one has told it of broken images."""
    told: list[object] = []

    def agree(own_stop: bool, own_news: bool) -> tuple[bool, bool]:
        return own_stop or stop, own_news or bool(news)

    def gather(own: Mapping[str, str]) -> list[Mapping[str, str]]:
        told.append(own)
        return [own, news]

    monkeypatch.setattr(run_state, "agree_any", agree)
    monkeypatch.setattr(run_state.comm, "all_gather", gather)
    return told


@pytest.mark.parametrize(("own", "other"), [(False, False), (True, False), (False, True)])
def test_any_process_stops_all(monkeypatch: pytest.MonkeyPatch, own: bool, other: bool) -> None:
    told = _join(monkeypatch, stop=other, news={})
    assert RunState(0).finish_step(4, own) is (own or other)
    assert not told  # nothing to tell costs nothing


def test_broken_images_of_all_processes_are_counted_and_told_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    state = RunState(3)
    state.broken.add({"a.jpg": "empty"})
    told = _join(monkeypatch, stop=False, news={"b.jpg": "text"})
    state.finish_step(4, False)
    assert told == [{"a.jpg": "empty"}]
    assert state.broken.reasons == {"a.jpg": "empty", "b.jpg": "text"}
    assert not state.broken.has_news
    _join(monkeypatch, stop=False, news={"c.jpg": "text", "d.jpg": "text"})
    with pytest.raises(InputError, match="4 training images are broken"):
        state.finish_step(4, False)


def test_position_and_broken_images_are_taken_up_again() -> None:
    first, second = RunState(1), RunState(1)
    first.broken.add({"a.jpg": "empty"})
    first.finish_step(4, False)
    first.finish_step(6, False)
    with EventStorage(0) as storage:
        saved = first.state_dict(storage)
    second.load_state_dict(saved)
    assert second.draws == 10 and second.broken.reasons == {"a.jpg": "empty"}
