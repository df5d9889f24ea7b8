"""The command line of train_net.py: Detectron2's, with config layers and two ways to resume."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from detectron2.engine import default_argument_parser

from schnet.errors import InputError
from schnet.setup import Resume

EPILOG = """
Examples:
    train on 8 GPUs            train_net.py --config-file lip.yaml --num-gpus 8
    continue, or start         train_net.py --config-file lip.yaml --resume auto
    evaluate                   train_net.py --config-file lip.yaml --eval-only MODEL.WEIGHTS x.pth
    a layer on top             train_net.py --config-file lip.yaml --config-file no_ftm.yaml
    two processes on the CPU   train_net.py --config-file lip.yaml --num-gpus 2 MODEL.DEVICE cpu
    machine 0 of 2             train_net.py --config-file lip.yaml --num-gpus 8 --num-machines 2
                                   --machine-rank 0 --dist-url tcp://10.0.0.1:29500
    by torchrun                torchrun --nproc-per-node 8 train_net.py --config-file lip.yaml

SIGTERM and SIGUSR1 end a training after the step it is in, saved. Where torchrun or SLURM start a
run again (TORCHELASTIC_RESTART_COUNT, SLURM_RESTART_COUNT), it continues as by --resume auto.

Exit codes: 0 done; 1 a defect; 2 bad input, named in one sentence; 75 SIGTERM or SIGUSR1 came and
the run is saved: continue it with --resume; 130 Ctrl-C; 128 + n a process was ended by signal n.
"""


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line.

    Args:
        argv: arguments without the program's name; None takes the process's own.

    Returns:
        `config_file` (list of paths), `resume` (`Resume`), `eval_only`, `num_gpus` (>= 1),
        `num_machines`, `machine_rank`, `dist_url`, `opts` (list of keys and values).

    Raises:
        InputError: an option stands among the overrides.
        SystemExit: with code 2, for an unknown option or a missing value.
    """
    args = _build_parser().parse_args(_mark_bare_resume(sys.argv[1:] if argv is None else argv))
    misplaced = [word for word in args.opts if word.startswith("--")]
    if misplaced:
        raise InputError(
            f"the option {misplaced[0]} stands among the KEY VALUE overrides: put all options "
            "before the first override"
        )
    if args.num_gpus == 0:
        # 'No GPU' means one process on the CPU.
        args.num_gpus = 1
        args.opts = [*args.opts, "MODEL.DEVICE", "cpu"]
    return args


def _build_parser() -> argparse.ArgumentParser:
    # Some of Detectron2's options mean more here; 'resolve' lets the later definition win.
    parser = argparse.ArgumentParser(
        parents=[default_argument_parser()],
        add_help=False,
        conflict_handler="resolve",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config-file",
        action="append",
        required=True,
        metavar="FILE",
        help="YAML config; may be given several times, later files on top",
    )
    parser.add_argument(
        "--resume",
        type=Resume,
        default=Resume.NEVER,
        metavar="auto",
        help="continue from the newest checkpoint of OUTPUT_DIR, which must have one; "
        "`--resume auto` starts afresh where there is none",
    )
    parser.add_argument(
        "--num-gpus",
        type=int,
        default=1,
        metavar="N",
        help="GPUs, and so processes, per machine; with MODEL.DEVICE cpu, CPU processes",
    )
    parser.add_argument(
        "--dist-url",
        # Detectron2's fixed port would let only one run of a user start.
        default="auto",
        metavar="URL",
        help="where the processes meet, such as tcp://10.0.0.1:29500; "
        "`auto`, for one machine, takes a free port",
    )
    return parser


def _mark_bare_resume(argv: Sequence[str]) -> list[str]:
    """Give a bare `--resume` its value, so that it does not take the first override for it."""
    marked: list[str] = []
    words = list(argv)
    while words:
        word = words.pop(0)
        if word == "--resume" and words[:1] == [Resume.AUTO.value]:
            word = f"--resume={words.pop(0)}"
        elif word == "--resume":
            word = f"--resume={Resume.REQUIRED.value}"
        marked.append(word)
    return marked
