"""What there is to do in an output folder, and for which process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from batch_cases import write_photos

from schnet.batch.pipeline import PhotoPipeline
from schnet.batch.results import LABELS, MASKS, OVERLAY, ResultWriter
from schnet.batch.shard import Shard
from schnet.batch.workspace import Wanted, Workspace, working_in
from schnet.errors import InputError
from schnet.parsing import Parsing
from schnet.photo_parser import PhotoParser


class Bright(PhotoParser):
    """Label 1 where a photo is bright; records how many photos came together."""

    def __init__(self) -> None:
        super().__init__(("background", "bright"), ((0, 0, 0), (9, 200, 7)), 1)
        self.batches: list[int] = []

    def parse_arrays(self, images: Any, probabilities: bool = False) -> list[Parsing]:
        self.batches.append(len(images))
        return [
            Parsing((image.mean(2) > 127).astype(np.uint8), self.classes, self.palette, image)
            for image in images
        ]


def wanted(images: list[Path], *kinds: str, **options: Any) -> Wanted:
    """What is asked for, by run `r` unless it is said otherwise."""
    return Wanted(images, options.pop("run", "r"), (LABELS, *kinds), **options)


def work(workspace: Workspace, *kinds: str, run: str = "r", **options: Any) -> list[str]:
    """Parse what there is to do; the names of the photos."""
    writer = ResultWriter(workspace, run, (LABELS, *kinds))
    pipeline = PhotoPipeline(Bright(), writer, **{"batch_size": 2, "workers": 2, **options})
    return sorted(outcome.job.path.name for outcome in pipeline.run(workspace.jobs))


@pytest.fixture
def photos(tmp_path: Path) -> Iterator[list[Path]]:
    """Five photos."""
    yield write_photos(tmp_path / "in", 5)


def todo(folder: Path, asked: Wanted, shard: Shard | None = None) -> list[str]:
    """Names of the photos that are to be parsed."""
    with working_in(folder, shard or Shard(), asked, lambda: None) as workspace:
        assert workspace.finished + len(workspace.jobs) <= len(asked.images)
        return [job.path.name for job in workspace.jobs]


def test_what_is_done_is_done_for_what_was_asked(tmp_path: Path, photos: list[Path]) -> None:
    out, names = tmp_path / "out", [photo.name for photo in photos]
    with working_in(out, Shard(), wanted(photos), lambda: None) as workspace:
        assert work(workspace) == names
    assert todo(out, wanted(photos)) == []
    assert todo(out, wanted(photos, overwrite=True)) == names
    assert todo(out, wanted(photos, OVERLAY)) == names
    assert todo(out, wanted(photos, run="other")) == names
    (out / "p002.png").unlink()
    photos[4].write_bytes(photos[3].read_bytes())
    assert todo(out, wanted(photos)) == ["p002.png", "p004.png"]


def test_an_emptied_result_is_not_done(tmp_path: Path, photos: list[Path]) -> None:
    out = tmp_path / "out"
    with working_in(out, Shard(), wanted(photos, OVERLAY), lambda: None) as workspace:
        work(workspace, OVERLAY)
    # As a power failure leaves files that were named and not yet written to the disk.
    (out / "p001.png").write_bytes(b"")
    (out / "p003_overlay.jpg").write_bytes(b"")
    with working_in(out, Shard(), wanted(photos, OVERLAY), lambda: None) as workspace:
        assert workspace.finished == 3
        assert work(workspace, OVERLAY) == ["p001.png", "p003.png"]
    assert todo(out, wanted(photos, OVERLAY)) == []


def test_results_of_kinds_not_asked_for_any_more_go(tmp_path: Path, photos: list[Path]) -> None:
    out = tmp_path / "out"
    kinds = (OVERLAY, MASKS)
    with working_in(out, Shard(), wanted(photos, *kinds), lambda: None) as workspace:
        work(workspace, *kinds)
    assert (out / "p000_masks").is_dir() and (out / "p000_overlay.jpg").is_file()
    (out / "p000_masks" / "mine.txt").write_text("precious")
    # Fewer kinds are there already; parsed again they are all that is left of ours.
    assert todo(out, wanted(photos)) == []
    again = wanted(photos, overwrite=True)
    with working_in(out, Shard(), again, lambda: None) as workspace:
        work(workspace)
    assert sorted(path.name for path in out.glob("p*")) == sorted(
        [*(photo.name for photo in photos), "p000_masks"]
    )
    assert [path.name for path in (out / "p000_masks").iterdir()] == ["mine.txt"]


def test_each_photo_is_one_process_and_results_are_no_photos(
    tmp_path: Path, photos: list[Path]
) -> None:
    out = tmp_path / "out"
    shares = [todo(out, wanted(photos), Shard(rank, 3)) for rank in range(3)]
    assert sorted(sum(shares, [])) == [photo.name for photo in photos]
    with working_in(out, Shard(), wanted(photos), lambda: None) as workspace:
        work(workspace)
    results = sorted(out.glob("*.png"))
    assert todo(out, wanted([*photos, *results])) == []
    with pytest.raises(InputError, match="nothing but results"):
        todo(out, wanted(results))
    with working_in(out, Shard(), wanted([*photos, *results]), lambda: None) as workspace:
        assert workspace.left_out == len(results)


def test_a_file_that_appears_meanwhile_is_kept(tmp_path: Path, photos: list[Path]) -> None:
    out = tmp_path / "out"
    with working_in(out, Shard(), wanted(photos), lambda: None) as workspace:
        (out / "p003.png").write_bytes(b"precious")
        writer = ResultWriter(workspace, "r", (LABELS,))
        pipeline = PhotoPipeline(Bright(), writer, batch_size=1, workers=1)
        errors = {o.job.path.name: o.error for o in pipeline.run(workspace.jobs)}
    assert (out / "p003.png").read_bytes() == b"precious"
    assert {name for name, error in errors.items() if error} == {"p003.png"}
    assert "was not written by this command" in errors["p003.png"]


def test_two_of_one_rank_are_refused(tmp_path: Path, photos: list[Path]) -> None:
    with working_in(tmp_path / "out", Shard(1, 2), wanted(photos), lambda: None):
        with pytest.raises(InputError, match="rank 1 of 2"):
            todo(tmp_path / "out", wanted(photos), Shard(1, 2))
        assert todo(tmp_path / "out", wanted(photos), Shard(0, 2))


def test_batches_and_memory_are_bounded(tmp_path: Path, photos: list[Path]) -> None:
    parser = Bright()
    inside: list[int] = []
    with working_in(tmp_path / "out", Shard(), wanted(photos), lambda: None) as workspace:
        writer = ResultWriter(workspace, "r", (LABELS,))
        pixels = 24 * 32
        pipeline = PhotoPipeline(parser, writer, batch_size=4, workers=2, max_pixels=4 * pixels)
        budget, enter = pipeline._budget, pipeline._budget.enter

        def count(size: int) -> bool:
            told = enter(size)
            inside.append(budget._pixels_in)
            return told

        budget.enter = count  # type: ignore[method-assign]
        assert len(list(pipeline.run(workspace.jobs))) == len(photos)
    # Half of what may be in memory is a batch.
    assert parser.batches == [2, 2, 1]
    assert max(inside) <= 4 * pixels and len(inside) == len(photos)


def test_without_memory_the_photo_and_the_remedy_are_named(
    tmp_path: Path, photos: list[Path]
) -> None:
    class Full(Bright):
        def parse_arrays(self, images: Any, probabilities: bool = False) -> list[Parsing]:
            raise MemoryError

    with working_in(tmp_path / "out", Shard(), wanted(photos), lambda: None) as workspace:
        writer = ResultWriter(workspace, "r", (LABELS,))
        pipeline = PhotoPipeline(Full(), writer, batch_size=1, workers=1)
        with pytest.raises(InputError, match=r"not enough memory to parse .*p000\.png.*--batch"):
            list(pipeline.run(workspace.jobs))
