"""The real sizes: lip.yaml with ViT-L and RN101, steps of training and evaluation, and memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import CONFIGS, REPOSITORY
from official_files import build_official_sam, save_clip_archive

from schnet.modeling.clip import CLIP_VARIANTS
from schnet.modeling.sam_encoder import SAM_VARIANTS

# Runs a command and tells how large its largest process has been.
MEASURE = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
print("largest process, KiB:", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""


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


@pytest.fixture(scope="module")
def official_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Files of the official formats and sizes, of random weights; the overrides that name them."""
    folder = tmp_path_factory.mktemp("bases")
    sam, clip = folder / "sam_vit_l_random.pth", folder / "RN101_random.pt"
    torch.save(build_official_sam(SAM_VARIANTS["vit_l"]).state_dict(), sam)
    variant = CLIP_VARIANTS["RN101"]
    save_clip_archive(variant.build().eval(), variant, clip)
    return ("MODEL.SAM.WEIGHTS", str(sam), "MODEL.CLIP.WEIGHTS", str(clip))


@pytest.mark.slow
def test_two_processes_train_from_official_files_within_less_memory_where_they_recompute(
    official_files: tuple[str, ...], tmp_path: Path
) -> None:
    dolls = ("--output", str(tmp_path / "lip"), "--train", "6", "--val", "2")
    _run(tmp_path, "datasets/make_paper_dolls.py", *dolls)
    peaks, sizes = {}, {}
    for recompute in (False, True):
        output = tmp_path / f"output_{recompute}"
        log = _run(
            tmp_path,
            *("-c", MEASURE, sys.executable, "train_net.py"),
            *("--config-file", str(CONFIGS / "lip.yaml"), "--num-gpus", "2"),
            *("MODEL.DEVICE", "cpu", *official_files),
            *("MODEL.SAM.ACTIVATION_CHECKPOINTING", str(recompute)),
            *("SOLVER.MAX_ITER", "3", "SOLVER.IMS_PER_BATCH", "2", "SOLVER.CHECKPOINT_PERIOD", "2"),
            *("TEST.LOSS_IMAGES", "0", "TEST.SAMPLE_IMAGES", "0"),
            *("DATALOADER.NUM_WORKERS", "0", "OUTPUT_DIR", str(output)),
        )
        lines = (output / "metrics.json").read_text(encoding="utf-8").splitlines()
        assert json.loads(lines[-1])["iteration"] == 2
        peaks[recompute] = 1024 * int(log.split("largest process, KiB: ")[1].split()[0]) / 1e9
        sizes = {path.stem: path.stat().st_size for path in output.glob("*.pth")}
    print(f"peak of a process: {peaks[False]:.2f} GB, recomputing {peaks[True]:.2f} GB; {sizes}")
    assert peaks[True] < 0.8 * peaks[False]
    assert sizes["model_best"] < 100e6
    assert 2.9 * sizes["model_best"] < sizes["model_final"] < 3.1 * sizes["model_best"]
