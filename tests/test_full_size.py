"""The real sizes: lip.yaml with ViT-L and RN101, a step of training and of evaluation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import CONFIGS, REPOSITORY


def _run(folder: Path, *command: str) -> str:
    """Run one of the repository's commands on the data sets below a folder; its output."""
    environment = {**os.environ, "DETECTRON2_DATASETS": str(folder), "CUDA_VISIBLE_DEVICES": ""}
    finished = subprocess.run(
        [sys.executable, *command],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout[-4000:] + finished.stderr[-4000:]
    return finished.stdout + finished.stderr


@pytest.mark.slow
def test_lip_trains_and_evaluates_at_full_size(tmp_path: Path) -> None:
    dolls = ("--output", str(tmp_path / "lip"), "--train", "4", "--val", "4")
    _run(tmp_path, "datasets/make_paper_dolls.py", *dolls)
    output = tmp_path / "output"
    log = _run(
        tmp_path,
        "train_net.py",
        *("--config-file", str(CONFIGS / "lip.yaml")),
        *("MODEL.SAM.WEIGHTS", "random", "MODEL.CLIP.WEIGHTS", "random"),
        *("SOLVER.MAX_ITER", "1", "SOLVER.IMS_PER_BATCH", "4", "TEST.EVAL_PERIOD", "1"),
        *("DATALOADER.NUM_WORKERS", "0", "OUTPUT_DIR", str(output)),
    )
    # ViT-L's 303 M parameters and RN101's image tower of 56 M are there, and frozen.
    rows = [line.split() for line in log.splitlines()]
    frozen = {
        row[0]: int(row[-1].replace(",", ""))
        for row in rows
        if len(row) == 4 and row[0] in ("backbone.encoder", "clip")
    }
    assert 300e6 < frozen["backbone.encoder"] < 310e6
    assert 50e6 < frozen["clip"] < 60e6
    assert (output / "model_final.pth").is_file()
    results = json.loads(next(output.rglob("evaluation.json")).read_text(encoding="utf-8"))
    assert results["images"] == 4
    assert 0 <= results["sem_seg"]["mIoU"] <= 100
