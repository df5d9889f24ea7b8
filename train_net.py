#!/usr/bin/env python
"""Train and evaluate SCHNet: Detectron2's command line.

Examples:
    train_net.py --config-file projects/SCHNet/configs/lip.yaml --num-gpus 8
    train_net.py --config-file projects/SCHNet/configs/lip.yaml --resume auto
    train_net.py --config-file projects/SCHNet/configs/lip.yaml --eval-only MODEL.WEIGHTS best.pth
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from typing import Any

with warnings.catch_warnings():
    # fvcore and Detectron2 0.6 call it on import; neither is ours to change.
    warnings.filterwarnings("ignore", "`torch.jit.script`", FutureWarning)
    from schnet.config import load_config
    from schnet.engine.arguments import parse_arguments
    from schnet.engine.evaluate import evaluate_weights
    from schnet.engine.launch import launch, plan_processes
    from schnet.engine.trainer import ParsingTrainer
    from schnet.errors import exit_on_input_error
    from schnet.run_config import write_run_config
    from schnet.setup import setup_evaluation, setup_training


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Train, or with `--eval-only` evaluate; runs in every process.

    Returns:
        The latest evaluation's results; empty on other processes than the main one.
    """
    if args.eval_only:
        return evaluate_weights(setup_evaluation(args.config_file, args.opts, args.resume))
    cfg, continues = setup_training(args.config_file, args.opts, args.resume)
    trainer = ParsingTrainer(cfg)
    trainer.resume_or_load(continues)
    write_run_config(cfg, trainer.start_iter)
    return trainer.train()


def main(argv: Sequence[str] | None = None) -> dict[str, Any] | None:
    """Run the command line.

    Args:
        argv: arguments; None takes the process's own.

    Returns:
        The results where the run had a single process.

    Raises:
        SystemExit: with code 2 and one sentence on standard error for bad input; with 75 where
            SIGTERM or SIGUSR1 ended the training, which is saved. `--help` tells all codes.
    """
    with exit_on_input_error():
        args = parse_arguments(argv)
        # Read here already, so that a mistake in it costs one message and no processes.
        cfg = load_config(args.config_file, args.opts)
        layout = plan_processes(
            cfg.MODEL.DEVICE,
            args.num_gpus,
            args.num_machines,
            args.machine_rank,
            args.dist_url,
        )
        return launch(run, layout, (args,))


if __name__ == "__main__":
    main()
