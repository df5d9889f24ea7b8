"""Two gloo processes against one: the same numbers and files, whatever the shares are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch.distributed as dist
from detectron2.utils import comm
from evaluation_helpers import (
    PALETTE,
    Split,
    logits_of,
    random_split,
    toy_evaluator,
    without_labels,
    write_pair,
)
from spawned import TWO, prepare_spawning

from schnet.engine.launch import launch
from schnet.errors import InputError
from schnet.evaluation.predictions import PredictionFiles
from schnet.evaluation.reduction import sum_over_processes

SIZE = 5
SHARES = {"uneven": 4, "all on one": SIZE}
FILES = [
    *("evaluation.json", "evaluation.txt", "confusion_matrix.png", "per_image.csv"),
    "submission.zip",
]


def _evaluate(split: Split, share: Split, output_dir: Path, **options: Any) -> Any:
    """Evaluate a share of a split, with its files."""
    files = PredictionFiles(output_dir, [entry for entry, _ in split], PALETTE, archive=True)
    evaluator = toy_evaluator(output_dir, predictions=files, **options)
    for entry, output in share:
        evaluator.process([entry], [output])
    return evaluator.evaluate()


def _share(split: Split, first: int, rank: int) -> Split:
    return split[:first] if rank == 0 else split[first:]


def evaluate_shares(folder: str) -> None:
    """Body of a process: evaluate shares; what is refused goes to `<rank>.json`."""
    rank = comm.get_rank()
    # The same files in a folder of each process's own: neither may write what the other reads.
    split = random_split(Path(folder) / f"rank{rank}", SIZE)
    for name, first in SHARES.items():
        with mock.patch.object(dist, "all_reduce", wraps=dist.all_reduce) as all_reduce:
            results = _evaluate(split, _share(split, first, rank), Path(folder) / name)
        assert (results is None) == (rank == 1)
        assert all_reduce.call_count == 1
    bare = without_labels(split)
    results = _evaluate(bare, _share(bare, 2, rank), Path(folder) / "no labels")
    assert results == ({} if rank == 0 else None)
    # One process has labels only, the other none.
    mixed = [*split[:3], *bare[3:]]
    empty = write_pair(Path(folder) / f"rank{rank}", 9, np.full((2, 2), 255, np.uint8))
    ignored = [(empty, logits_of(np.zeros((2, 2))))]
    messages = []
    for name, first, cases in (("mixed", 3, mixed), ("ignored", 1, ignored)):
        with pytest.raises(InputError) as error:
            _evaluate(cases, _share(cases, first, rank), Path(folder) / name)
        messages.append(str(error.value))
    (Path(folder) / f"{rank}.json").write_text(json.dumps(messages))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes wrote, and beside it, in `single`, what one does."""
    folder = tmp_path_factory.mktemp("evaluation")
    split = random_split(folder / "labels", SIZE)
    _evaluate(split, split, folder / "single", distributed=False)
    with pytest.MonkeyPatch.context() as patch:
        prepare_spawning(patch)
        launch(evaluate_shares, TWO, (str(folder),))
    return folder


@pytest.mark.parametrize("name", SHARES)
def test_shares_give_the_numbers_and_files_of_the_whole(folder: Path, name: str) -> None:
    for file in FILES:
        assert (folder / name / file).read_bytes() == (folder / "single" / file).read_bytes()
    content = json.loads((folder / name / "evaluation.json").read_text())
    assert content["images"] == SIZE
    assert sum(content["boundary"]["pixels"]["true"]) > 0


def test_every_process_writes_its_own_predictions(folder: Path) -> None:
    for name in (*SHARES, "no labels"):
        written = sorted(p.name for p in (folder / name / "predictions").iterdir())
        assert written == [f"{index}.png" for index in range(SIZE)]
    unlabelled = folder / "no labels"
    assert (unlabelled / FILES[-1]).read_bytes() == (folder / "single" / FILES[-1]).read_bytes()
    assert not (unlabelled / "evaluation.json").exists()


def test_all_processes_refuse_what_one_alone_cannot_see(folder: Path) -> None:
    first, second = (json.loads((folder / f"{rank}.json").read_text()) for rank in range(2))
    assert first == second
    assert "2 of the 5 images of toy_val have no label map" in first[0]
    assert "no labelled pixel was found in the 1 images" in first[1]


def test_one_process_adds_nothing() -> None:
    vector = np.array([3, 2**60], np.int64)
    assert sum_over_processes(vector).tolist() == [3, 2**60]
