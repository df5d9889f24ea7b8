"""The whole path on one small data set: render, train, evaluate, draw, report.

    python tools/quickstart.py

Renders the paper dolls below $DETECTRON2_DATASETS (else `datasets/`), trains
`configs/quickstart.yaml` with `train_net.py` into a fresh `output/quickstart`, evaluates the best
checkpoint and draws a contact sheet of its predictions. `make quickstart` calls it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tabulate import tabulate

REPOSITORY = Path(__file__).resolve().parents[1]
CONFIG = "projects/SCHNet/configs/quickstart.yaml"
OUTPUT = Path("output/quickstart")
BEST = OUTPUT / "model_best.pth"
SHEET = OUTPUT / "contact_sheet.png"
RESULTS = OUTPUT / "evaluation/dolls_val/evaluation.json"


def run_step(title: str, *command: str) -> None:
    """Run one of the repository's own commands from its root, its output passed through.

    Raises:
        SystemExit: with the command's exit code, where that is not 0.
    """
    print(f"\n== {title}: {' '.join(command)}", flush=True)
    started = time.monotonic()
    finished = subprocess.run([sys.executable, *command], cwd=REPOSITORY, check=False)
    if finished.returncode:
        sys.exit(finished.returncode)
    print(f"== {title}: {time.monotonic() - started:.0f} s", flush=True)


def report(results: Mapping[str, Any]) -> str:
    """Word the closing report from an `evaluation.json`: mIoU, accuracy, classes, files."""
    metrics = results["sem_seg"]
    rows = [(name, metrics[f"IoU-{name}"]) for name in results["classes"]]
    table = tabulate(rows, headers=("class", "IoU %"), floatfmt=".2f", missingval="-")
    files = {"metrics": OUTPUT / "metrics.json", "checkpoint": BEST, "contact sheet": SHEET}
    lines = [
        table,
        "",
        f"{results['images']} held-out images; {results['protocol']}",
        f"mIoU {metrics['mIoU']:.2f}   pixel accuracy {metrics['pACC']:.2f}",
        "",
        *(f"{name}: {path}" for name, path in files.items()),
    ]
    return "\n".join(lines)


def main() -> None:
    """Run all steps."""
    started = time.monotonic()
    root = os.environ.get("DETECTRON2_DATASETS") or "datasets"
    run_step("data", "datasets/make_paper_dolls.py", "--output", os.path.join(root, "dolls"))
    # The quickstart's own folder, made by nothing else; it starts afresh by its contract.
    shutil.rmtree(REPOSITORY / OUTPUT, ignore_errors=True)
    # Two processes of one thread each waste less than one of two on a model this small.
    processes = str(min(2, os.cpu_count() or 1))
    run_step("training", "train_net.py", "--config-file", CONFIG, "--num-gpus", processes)
    weights = ("MODEL.WEIGHTS", str(BEST))
    run_step("evaluation", "train_net.py", "--config-file", CONFIG, "--eval-only", *weights)
    sheet = ("--weights", str(BEST), "--output", str(SHEET), "--rows", "12")
    run_step("pictures", "tools/contact_sheet.py", "--config-file", CONFIG, *sheet)
    results = json.loads((REPOSITORY / RESULTS).read_text(encoding="utf-8"))
    print(f"\n{report(results)}\n\ndone in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
