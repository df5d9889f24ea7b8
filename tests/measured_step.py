"""Measure the peak resident memory of real training steps on the CPU; run as a script.

    python tests/measured_step.py '[{"size": [256, 192], "batch": 1, "opts": [...]}, ...]'

Prints a JSON list: for each case the bytes that the process grew by at the step's peak. The C
library's allocator must give freed memory back at once: ENVIRONMENT makes glibc's do so.
"""

from __future__ import annotations

import gc
import json
import re
import sys
from pathlib import Path
from typing import Any

ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "65536",
    "MALLOC_TOP_PAD_": "0",
    "MALLOC_ARENA_MAX": "1",
    "OMP_NUM_THREADS": "1",
}
NUM_CLASSES = 20
PEAK_RESET = Path("/proc/self/clear_refs")


def planned_opts() -> list[str]:
    """Overrides of a tiny model whose activations are large beside what else a process holds."""
    return [
        *("MODEL.DEVICE", "cpu"),
        *("MODEL.SAM.VARIANT", "tiny", "MODEL.SAM.WEIGHTS", "random"),
        *("MODEL.CLIP.VARIANT", "tiny", "MODEL.CLIP.WEIGHTS", "random"),
        *("MODEL.SEM_SEG_HEAD.NUM_CLASSES", str(NUM_CLASSES)),
        *("DATASETS.TRAIN", "('measured_train',)", "DATASETS.TEST", "('measured_train',)"),
    ]


def _status(name: str) -> int:
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    found = re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)
    assert found is not None, name
    return int(found[1]) * 1024


def measure(case: dict[str, Any]) -> int:
    """Bytes that a step adds to the process at its peak; AdamW's moments are there before."""
    import torch
    from detectron2.modeling import build_model

    import schnet.modeling  # noqa: F401  registers the architectures
    from schnet.config import load_config

    cfg = load_config([], [*planned_opts(), *case["opts"]])
    torch.manual_seed(0)
    model = build_model(cfg).train()
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), fused=True)

    def step(size: tuple[int, int], batch: int) -> None:
        inputs = [
            {
                "image": torch.randint(0, 256, (3, *size), dtype=torch.uint8),
                "sem_seg": torch.randint(0, NUM_CLASSES, size, dtype=torch.uint8),
            }
            for _ in range(batch)
        ]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=cfg.SOLVER.AMP.ENABLED):
            loss = torch.stack(list(model(inputs).values())).sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    step((64, 64), 1)  # what a first step makes once: AdamW's moments, libraries
    gc.collect()
    before = _status("VmRSS")
    PEAK_RESET.write_text("5", encoding="ascii")
    step(tuple(case["size"]), case["batch"])
    return _status("VmHWM") - before


def main() -> None:
    """Run the command line."""
    from detectron2.data import MetadataCatalog

    names = [f"part {number}" for number in range(NUM_CLASSES)]
    MetadataCatalog.get("measured_train").set(
        stuff_classes=names, prompts=[[name] for name in names], mirror_pairs=[], ignore_label=255
    )
    print(json.dumps([measure(case) for case in json.loads(sys.argv[1])]))


if __name__ == "__main__":
    main()
