from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.config import get_cfg
from detectron2.data import MetadataCatalog
from PIL import Image

from schnet.config import add_schnet_config
from schnet.errors import InputError
from schnet.evaluation.parsing_evaluation import PROTOCOL, ParsingEvaluator, build_evaluator

NAMES = ["background", "hat", "hair"]


def _evaluator(output_dir: Path | None = None, **options: Any) -> ParsingEvaluator:
    return ParsingEvaluator("toy_val", 3, NAMES, output_dir=output_dir, **options)


def _pair(folder: Path, index: int, truth: np.ndarray) -> dict[str, Any]:
    """Write a label map; return the dataset dict (its image is never opened)."""
    path = folder / f"{index}.png"
    Image.fromarray(truth).save(path)
    return {"file_name": f"{index}.jpg", "sem_seg_file_name": str(path)}


def _logits(labels: np.ndarray) -> dict[str, torch.Tensor]:
    """Make negative logits whose argmax is `labels`."""
    hot = torch.nn.functional.one_hot(torch.from_numpy(labels.astype(np.int64)), 3)
    return {"sem_seg": hot.permute(2, 0, 1).float() - 5}


def _random_split(folder: Path, size: int) -> list[tuple[dict[str, Any], dict[str, torch.Tensor]]]:
    """Make `size` images of different shapes with random truth and prediction."""
    rng = np.random.default_rng(0)
    split = []
    for index in range(size):
        shape = (5 + index, 9 - index)
        truth = rng.choice(np.array([0, 1, 2, 255], np.uint8), shape)
        split.append((_pair(folder, index, truth), _logits(rng.integers(0, 3, shape))))
    return split


def test_hand_computed_percentages_over_two_batches(tmp_path: Path) -> None:
    evaluator = _evaluator()
    first = _pair(tmp_path, 0, np.array([[0, 0, 1, 255]], np.uint8))
    second = _pair(tmp_path, 1, np.array([[0], [1]], np.uint8))
    evaluator.process([first], [_logits(np.array([[0, 1, 1, 2]]))])
    evaluator.process([second], [_logits(np.array([[0], [1]]))])
    results = evaluator.evaluate()
    assert results is not None
    metrics = results["sem_seg"]
    assert list(metrics)[:4] == ["mIoU", "pACC", "mACC", "fwIoU"]
    assert metrics["IoU-background"] == pytest.approx(100 * 2 / 3)
    assert metrics["IoU-hat"] == pytest.approx(100 * 2 / 3)
    assert math.isnan(metrics["IoU-hair"])
    assert metrics["mIoU"] == pytest.approx(100 * 2 / 3)
    assert metrics["pACC"] == pytest.approx(100 * 4 / 5)


def test_result_file_and_log_name_the_protocol(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    evaluator = _evaluator(tmp_path / "new" / "folder")
    truth = np.array([[0, 1]], np.uint8)
    evaluator.process([_pair(tmp_path, 0, truth)], [_logits(truth)])
    with caplog.at_level(logging.INFO, logger="schnet"):
        evaluator.evaluate()
    content = json.loads((tmp_path / "new" / "folder" / "evaluation.json").read_text())
    assert content["protocol"] == PROTOCOL
    assert content["images"] == 1
    assert content["sem_seg"]["IoU-hat"] == 100
    assert content["sem_seg"]["IoU-hair"] is None
    assert content["confusion_matrix"]["pixels"] == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert [f.name for f in (tmp_path / "new" / "folder").iterdir()] == ["evaluation.json"]
    assert PROTOCOL in caplog.text
    hair = next(line for line in caplog.text.splitlines() if line.startswith("| hair"))
    assert hair.split() == ["|", "hair", "|", "–", "|", "–", "|", "0.00", "|"]


def test_reset_forgets(tmp_path: Path) -> None:
    evaluator = _evaluator()
    wrong = _pair(tmp_path, 0, np.array([[0]], np.uint8))
    evaluator.process([wrong], [_logits(np.array([[1]]))])
    evaluator.reset()
    evaluator.process([wrong], [_logits(np.array([[0]]))])
    results = evaluator.evaluate()
    assert results is not None and results["sem_seg"]["mIoU"] == 100


def test_size_mismatch_names_both_sizes(tmp_path: Path) -> None:
    pair = _pair(tmp_path, 0, np.zeros((4, 6), np.uint8))
    with pytest.raises(InputError, match=r"0\.jpg is 4x6 .*0\.png is 6x4"):
        _evaluator().process([pair], [_logits(np.zeros((6, 4)))])


def test_label_out_of_range_names_file_and_value(tmp_path: Path) -> None:
    pair = _pair(tmp_path, 0, np.array([[0, 9]], np.uint8))
    with pytest.raises(InputError, match=r"(?s)0\.png.*9"):
        _evaluator().process([pair], [_logits(np.zeros((1, 2)))])


def test_image_without_labels_and_empty_split_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"0\.jpg has no label map"):
        _evaluator().process([{"file_name": "0.jpg"}], [_logits(np.zeros((1, 2)))])
    with pytest.raises(InputError, match="no labelled pixel .* 0 images of toy_val"):
        _evaluator().evaluate()


def test_two_processes_give_the_single_process_numbers(tmp_path: Path) -> None:
    single = _evaluator(tmp_path / "single", distributed=False)
    for pair, output in _random_split(tmp_path, 5):
        single.process([pair], [output])
    single.evaluate()
    mp.spawn(_evaluate_share, args=(str(tmp_path),), nprocs=2)
    expected = json.loads((tmp_path / "single" / "evaluation.json").read_text())
    assert json.loads((tmp_path / "shared" / "evaluation.json").read_text()) == expected
    assert expected["images"] == 5


def _evaluate_share(rank: int, folder: str) -> None:
    """Evaluate an uneven share (4 and 1 of 5 images) in one of two gloo processes."""
    torch.set_num_threads(1)
    init = f"file://{folder}/rendezvous"
    dist.init_process_group("gloo", init_method=init, rank=rank, world_size=2)
    # The same files in a folder of each process's own: neither may write what the other reads.
    own = Path(folder) / f"rank{rank}"
    own.mkdir()
    split = _random_split(own, 5)
    evaluator = _evaluator(Path(folder) / "shared")
    for pair, output in split[:4] if rank == 0 else split[4:]:
        evaluator.process([pair], [output])
    results = evaluator.evaluate()
    assert (results is None) == (rank == 1)
    dist.destroy_process_group()


def test_build_evaluator_reads_metadata_and_output_dir(tmp_path: Path) -> None:
    name = f"toy_{tmp_path.name}"
    MetadataCatalog.get(name).set(stuff_classes=NAMES, ignore_label=254)
    cfg = get_cfg()
    add_schnet_config(cfg)
    cfg.OUTPUT_DIR = str(tmp_path)
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 3
    evaluator = build_evaluator(cfg, name)
    truth = np.array([[0, 1, 254]], np.uint8)
    evaluator.process([_pair(tmp_path, 0, truth)], [_logits(np.array([[0, 1, 1]]))])
    results = evaluator.evaluate()
    assert results is not None and results["sem_seg"]["mIoU"] == 100
    assert (tmp_path / "inference" / name / "evaluation.json").is_file()
    MetadataCatalog.remove(name)
