"""Plan a training run before it is started: parameters, FLOPs, memory and hours.

    python tools/plan.py --config-file projects/SCHNet/configs/lip.yaml --gpus 8 --gpu-memory 80 \
        [--gpu h100-sxm] [--efficiency 0.35] [--crop H W]... [--variant vit_b vit_l vit_h] \
        [--json FILE] [KEY VALUE ...]

Needs no GPU, no weight files and no data sets: the model is built of tensors that have shapes and
no values, and one step of it is followed operation by operation.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from schnet.config import load_config
from schnet.data.files import atomic_path
from schnet.data.processes import process_map
from schnet.errors import InputError, exit_on_input_error
from schnet.modeling.sam_encoder import SAM_VARIANTS
from schnet.planning.gpus import GPUS, find_gpu
from schnet.planning.plan import (
    CHECKPOINTING,
    PlanJob,
    PlanRow,
    Run,
    Size,
    plan_model,
    with_model,
)
from schnet.planning.report import plan_json, plan_table
from schnet.setup import load_model_config

OFFICIAL_VARIANTS = ("vit_b", "vit_l", "vit_h")
USUAL_CROPS: tuple[Size, ...] = ((512, 512), (1024, 1024))

_EPILOG = """\
The hours are step FLOPs over the GPU's dense datasheet rate times --efficiency: an estimate whose
efficiency is an assumption. Memory is what the tensors of a step take at its worst moment, with
weights, optimizer and gradients, and an allowance for what no tensor accounts for. Attention on
CUDA is taken to be the memory-efficient kernel, which keeps the position bias and no scores. All
assumptions stand below the table.

GPUs: """ + ", ".join(sorted(GPUS))


def _argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Plan a training run: parameters, FLOPs, memory and hours.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config-file",
        action="append",
        required=True,
        metavar="YAML",
        help="config of the run; repeat for files on top, such as an ablation's",
    )
    parser.add_argument("--gpus", type=int, default=1, help="GPUs of all machines (default: 1)")
    parser.add_argument(
        "--gpu-memory", type=float, default=80, metavar="GB", help="of one GPU (default: 80)"
    )
    parser.add_argument("--gpu", default="a100-80gb", help="kind, see below (default: a100-80gb)")
    parser.add_argument(
        "--efficiency",
        type=float,
        default=0.35,
        help="share of the datasheet rate that training reaches, in (0, 1] (default: 0.35)",
    )
    parser.add_argument(
        "--crop",
        type=int,
        nargs=2,
        action="append",
        metavar=("H", "W"),
        help="training crop in pixels; repeat for more (default: INPUT.SIZE and "
        + " ".join(f"{h}x{w}" for h, w in USUAL_CROPS)
        + ")",
    )
    parser.add_argument(
        "--variant",
        nargs="+",
        default=[],
        metavar="NAME",
        help="sizes of SAM (default: the config's and the official ones)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the plan here")
    parser.add_argument(
        "--jobs",
        type=int,
        default=min(4, os.cpu_count() or 1),
        help="processes (default: %(default)s)",
    )
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="config overrides: KEY VALUE ...")
    return parser


def _split_variants(args: argparse.Namespace) -> None:
    """Give overrides that follow the names of --variant to the overrides; in place."""
    given = args.variant
    count = next((number for number, name in enumerate(given) if "." in name), len(given))
    args.variant, args.opts = given[:count], [*given[count:], *args.opts]
    for name in args.variant:
        if name not in SAM_VARIANTS:
            raise InputError(f"--variant is {name!r}: give some of {', '.join(SAM_VARIANTS)}")


def _check(args: argparse.Namespace) -> None:
    for name, value in (("--gpus", args.gpus), ("--jobs", args.jobs)):
        if value < 1:
            raise InputError(f"{name} is {value}: give a whole number of at least 1")
    if not 0 < args.gpu_memory < float("inf"):
        raise InputError(f"--gpu-memory is {args.gpu_memory:g}: give gigabytes above 0")
    if not 0 < args.efficiency <= 1:
        raise InputError(f"--efficiency is {args.efficiency:g}: give a share in (0, 1]")
    if args.json and args.json.is_dir():
        raise InputError(f"--json {args.json} is a folder: name a file in it")


def _jobs(args: argparse.Namespace) -> list[PlanJob]:
    """One job for each variant and way of checkpointing."""
    gpu = find_gpu(args.gpu)
    # Whatever the config says: no tensor of a plan is on a device or read from a file.
    random = ("MODEL.SAM.WEIGHTS", "random", "MODEL.CLIP.WEIGHTS", "random")
    opts = [*args.opts, "MODEL.DEVICE", "cpu", *random]
    cfg = load_model_config(args.config_file, opts)
    run = Run.from_config(cfg, args.gpus)
    variants = args.variant or [cfg.MODEL.SAM.VARIANT, *OFFICIAL_VARIANTS]
    crops = args.crop or [cfg.INPUT.SIZE, *USUAL_CROPS]
    for height, width in crops:
        # The config's own check of a crop.
        load_config(args.config_file, [*opts, "INPUT.SIZE", f"[{height}, {width}]"])
    sizes = tuple(dict.fromkeys((int(height), int(width)) for height, width in crops))
    return [
        PlanJob(
            cfg=with_model(cfg, variant, checkpointing),
            crops=sizes,
            run=run,
            gpu=gpu,
            capacity=args.gpu_memory * 1e9,
            efficiency=args.efficiency,
        )
        for variant in dict.fromkeys(variants)
        for checkpointing in CHECKPOINTING
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line.

    Raises:
        InputError: bad input; the entry point turns it into exit code 2.
    """
    args = _argument_parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING)
    _split_variants(args)
    _check(args)
    jobs = _jobs(args)
    # The largest first, so that no process works alone at the end for long.
    order = sorted(range(len(jobs)), key=lambda number: jobs[number].weight, reverse=True)
    rows: list[list[PlanRow]] = [[] for _ in jobs]
    with process_map(plan_model, [jobs[number] for number in order], jobs=args.jobs) as plans:
        for number, plan in zip(order, plans, strict=True):
            rows[number] = plan
    # A variant's crops one after another, each with every way of checkpointing.
    ways = len(CHECKPOINTING)
    variants = [rows[start : start + ways] for start in range(0, len(rows), ways)]
    table = [row for plans in variants for crop in zip(*plans, strict=True) for row in crop]
    print(plan_table(table, jobs[0]))
    if args.json:
        with atomic_path(args.json) as temporary:
            temporary.write_text(json.dumps(plan_json(table, jobs[0]), indent=1), encoding="utf-8")
        print(f"wrote {args.json}")


if __name__ == "__main__":
    with exit_on_input_error():
        main()
