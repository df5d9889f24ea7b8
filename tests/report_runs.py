"""Folders of runs for the tests of the report, as a training writes them."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from conftest import TINY_OPTS
from parsing_fakes import write_split

from schnet.config import load_config
from schnet.data.catalog import SPECS, register_datasets
from schnet.data.label_maps import read_label
from schnet.evaluation.counts import ParsingCounts
from schnet.evaluation.report import EvaluationReport
from schnet.visualization import ByteArray

DATASET = "dolls_val"
CLASSES = SPECS["dolls"].classes
STEPS = 2000
PROTOCOL = "by hand"


def step_records(
    last: int = STEPS, every: int = 20, start: int = 0, noise: float = 0.15
) -> list[dict[str, float]]:
    """Records of training steps up to `last`, noisy as real ones."""
    rng = np.random.default_rng(start)
    records = []
    for iteration in range(start + every - 1, last, every):
        loss = 0.35 + 2.4 * math.exp(-iteration / 350) + noise * abs(rng.normal())
        records.append(
            {
                "iteration": iteration,
                "total_loss": loss,
                "loss_ce": 0.6 * loss,
                "loss_lovasz": 0.4 * loss,
                "lr": 2e-4 * min(1, (iteration + 1) / 200) * (1 - iteration / STEPS) ** 0.9,
                "grad_norm": 0.2 + 9 * math.exp(-iteration / 200) * (1 + rng.random()),
                "time": 0.25,
                "data_time": 0.01,
                "images_per_second": 32.0,
            }
        )
    return records


def evaluation_record(iteration: int, miou: float, **others: float) -> dict[str, float]:
    """A record of an evaluation, with the numbers that it needs."""
    return {"iteration": iteration, "sem_seg/mIoU": miou, "sem_seg/pACC": miou + 20, **others}


def evaluation_records(last: int = STEPS, every: int = 200) -> list[dict[str, float]]:
    """Evaluations whose best is not the last one."""
    records = []
    for iteration in range(every - 1, last, every):
        miou = 62 * (1 - math.exp(-iteration / 500)) - (1.5 if iteration + 1 >= STEPS else 0)
        loss = 0.55 + 2.2 * math.exp(-iteration / 400)
        records.append(evaluation_record(iteration, miou, **{"val/loss": loss}))
    return records


def write_metrics(folder: Path, records: Sequence[Mapping[str, float]]) -> None:
    """Write `metrics.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(record) for record in records]
    (folder / "metrics.json").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_config(folder: Path, *opts: str) -> None:
    """Write the `config.yaml` of a tiny model of the dolls."""
    names = ("DATASETS.TRAIN", "('dolls_train',)", "DATASETS.TEST", f"('{DATASET}',)")
    size = ("MODEL.SEM_SEG_HEAD.NUM_CLASSES", "20", "INPUT.SIZE", "[32, 32]")
    cfg = load_config([], [*TINY_OPTS, *names, *size, "SOLVER.MAX_ITER", str(STEPS), *opts])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(cfg.dump(), encoding="utf-8")


def write_log(folder: Path, *started: int) -> None:
    """Write the `log.txt` of processes that started at these iterations."""
    lines = []
    for start in started:
        lines += [
            "[11/25 00:00:00] schnet.setup DEBUG: environment:",
            "----------  ------------------------",
            "Python      3.11.7 (main)",
            "PyTorch     2.14.1 @/venv/torch",
            "detectron2  0.6 @/venv/detectron2",
            "----------  ------------------------",
            "PyTorch built with:",
            f"[11/25 00:00:00] schnet.engine.trainer INFO: training iterations {start} to {STEPS}",
        ]
    (folder / "log.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def doll_labels(number: int, height: int = 40, width: int = 30) -> ByteArray:
    """Label maps of 20 classes and some unlabelled pixels, different for each number."""
    rows, columns = np.mgrid[:height, :width]
    labels = ((rows // 8 * 4 + columns // 8 + number) % 20).astype(np.uint8)
    labels[:2, :5] = 255
    return labels


def shifted(dataset_dict: Mapping[str, Any]) -> ByteArray:
    """A prediction: the truth, moved by as many pixels as the image's number."""
    truth = read_label(dataset_dict["sem_seg_file_name"], 20)
    number = int(str(dataset_dict["image_id"]).split("_")[-1])
    return np.roll(np.where(truth == 255, 0, truth).astype(np.uint8), number, axis=1)


def register_dolls(root: Path, count: int = 6) -> list[dict[str, Any]]:
    """Write and register a validation split of the dolls; give its dicts."""
    write_split(root, "dolls", "val", [doll_labels(number) for number in range(count)])
    register_datasets(str(root))
    folder = root / SPECS["dolls"].folder
    return [
        {
            "image_id": f"val_{number}",
            "file_name": str(folder / f"val_{number}.jpg"),
            "sem_seg_file_name": str(folder / f"val_{number}.png"),
        }
        for number in range(count)
    ]


def write_evaluation(
    folder: Path, dicts: Sequence[Mapping[str, Any]], dataset: str = DATASET
) -> None:
    """Evaluate `shifted` and write `evaluation.json` and `per_image.csv`."""
    counts = ParsingCounts(20)
    rows = []
    for entry in dicts:
        truth, prediction = read_label(entry["sem_seg_file_name"], 20), shifted(entry)
        own = ParsingCounts(20)
        own.update(truth, prediction)
        counts.update(truth, prediction)
        metrics = own.confusion.metrics()
        values = (100 * metrics.mean_iou, 100 * metrics.pixel_accuracy)
        rows.append((entry["image_id"], entry["file_name"], *values))
    # Without its pictures, which take most of the time.
    content = EvaluationReport(dataset, PROTOCOL, CLASSES, counts).as_json()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "evaluation.json").write_text(json.dumps(content), encoding="utf-8")
    with open(folder / "per_image.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("image_id", "file_name", "mIoU", "pACC"))
        writer.writerows(rows)


def write_run(folder: Path, root: Path, *opts: str) -> Path:
    """Write a finished run of the dolls that was resumed at iteration 700."""
    dicts = register_dolls(root)
    write_config(folder, *opts)
    write_metrics(folder, [*step_records(), *evaluation_records()])
    write_log(folder, 0, 700)
    write_evaluation(folder / "inference" / DATASET, dicts)
    (folder / "model_final.pth").touch()
    return folder
