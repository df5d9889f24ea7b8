"""Train one config with several seeds, and report the mean and the spread of its metrics.

    python tools/train_seeds.py --config-file projects/SCHNet/configs/lip.yaml --seeds 0 1 2 \
        [--num-gpus 8] [KEY VALUE ...]

Each seed is trained by train_net.py into OUTPUT_DIR/seed_<n> with --resume auto: the same command
goes on with an interrupted series, and a seed that is finished is not trained again. A seed that
fails is named, the others are trained still, and its exit code is the series'. The numbers are of
each run's last evaluation.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import yaml
from detectron2.config import CfgNode

from schnet.config import load_config
from schnet.data.files import atomic_path
from schnet.errors import EXIT_INTERRUPTED, EXIT_PREEMPTED, InputError, exit_on_input_error
from schnet.evaluation.report import RESULT_FILE, refuse_foreign_files
from schnet.reporting.run_files import Evaluation, read_evaluation
from schnet.reporting.seeds import JSON_FILE, PICTURE_FILE, TABLE_FILE, write_summary

TRAIN_SCRIPT = Path(__file__).resolve().parents[1] / "train_net.py"
RECORD_FILE = "seed.json"
FORWARDED = ("SIGTERM", "SIGUSR1")


def _argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Train one config with several seeds.")
    parser.add_argument("--config-file", action="append", required=True, metavar="FILE")
    parser.add_argument("--seeds", type=int, nargs="+", required=True, metavar="N")
    parser.add_argument("--num-gpus", type=int, default=1, help="of each run (default: 1)")
    parser.add_argument("opts", nargs="*", help="config overrides: KEY VALUE ...")
    return parser


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; overrides may follow the seeds.

    Raises:
        InputError: a seed is negative or given twice.
    """
    # `--seeds 0 1 KEY VALUE` would be read as seeds to the end: cut it behind the numbers.
    words = list(argv)
    if "--seeds" in words:
        end = words.index("--seeds") + 1
        while end < len(words) and words[end].lstrip("-").isdigit():
            end += 1
        if end < len(words) and not words[end].startswith("-"):
            words.insert(end, "--")
    args = _argument_parser().parse_intermixed_args(words)
    if min(args.seeds) < 0 or len(set(args.seeds)) < len(args.seeds):
        raise InputError(
            f"--seeds is {' '.join(map(str, args.seeds))}: give different numbers from 0 on"
        )
    return args


def seed_options(opts: Sequence[str], output_dir: Path, seed: int) -> list[str]:
    """The overrides of one seed's run."""
    return [*opts, "SEED", str(seed), "OUTPUT_DIR", str(output_dir / f"seed_{seed}")]


def is_finished(folder: Path, config: str) -> bool:
    """Whether a seed's run was finished with this very config.

    Raises:
        InputError: the folder is of another config.
    """
    path = folder / RECORD_FILE
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        finished, earlier = bool(record["finished"]), str(record["config"])
    except FileNotFoundError:
        return False
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is no record of a seed ({type(error).__name__}: {error}): remove it"
        ) from error
    old, new = yaml.safe_load(earlier), yaml.safe_load(config)
    if old != new:
        differing = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
        raise InputError(
            f"{folder} was trained with another config (it differs in {', '.join(differing)}): "
            "give another OUTPUT_DIR, or the config of the series"
        )
    return finished


def write_record(folder: Path, config: str, finished: bool) -> None:
    """Note what a seed's run is trained with, and whether it is finished."""
    with atomic_path(folder / RECORD_FILE) as temporary:
        text = json.dumps({"finished": finished, "config": config}, indent=1)
        temporary.write_text(text, encoding="utf-8")


def run_command(command: Sequence[str]) -> int:
    """Run a command, its output passed through; SIGTERM and SIGUSR1 reach it, and it is waited for.

    Returns:
        Its exit code; 128 and the signal's number where a signal ended it.
    """
    with subprocess.Popen(command) as process:

        def forward(number: int, frame: FrameType | None) -> None:
            process.send_signal(number)

        numbers = [getattr(signal, name) for name in FORWARDED if hasattr(signal, name)]
        before = {number: signal.signal(number, forward) for number in numbers}
        try:
            code = process.wait()
        except KeyboardInterrupt:
            # Ctrl-C reached the run as well, which ends by itself.
            process.wait()
            code = EXIT_INTERRUPTED
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    return code if code >= 0 else 128 - code


def train_seed(args: argparse.Namespace, output_dir: Path, seed: int, script: Path) -> int:
    """Train one seed, or go on with it; a finished one is left as it is.

    Returns:
        The exit code of its run; 0 where it was finished before.

    Raises:
        InputError: its folder is of another config.
    """
    opts = seed_options(args.opts, output_dir, seed)
    cfg = load_config(args.config_file, opts)
    folder, config = Path(cfg.OUTPUT_DIR), cfg.dump()
    if is_finished(folder, config):
        print(f"== seed {seed}: finished before", flush=True)
        return 0
    write_record(folder, config, finished=False)
    files = [word for file in args.config_file for word in ("--config-file", file)]
    command = [sys.executable, str(script), *files, "--num-gpus", str(args.num_gpus)]
    code = run_command([*command, "--resume", "auto", *opts])
    if code == 0:
        write_record(folder, config, finished=True)
    return code


def collect(cfg: CfgNode, output_dir: Path, seeds: Sequence[int]) -> dict[str, dict[int, Any]]:
    """Read the last evaluations of the seeds, by data set.

    Raises:
        InputError: a run that finished has no evaluation.
    """
    found: dict[str, dict[int, Evaluation]] = {}
    for dataset in cfg.DATASETS.TEST:
        for seed in seeds:
            path = output_dir / f"seed_{seed}" / "inference" / dataset / RESULT_FILE
            if not path.is_file():
                raise InputError(
                    f"seed {seed} has finished and {path} is missing: evaluate it again, or "
                    f"remove {output_dir / f'seed_{seed}'} to train it again"
                )
            found.setdefault(dataset, {})[seed] = read_evaluation(path)
    return found


def main(argv: Sequence[str] | None = None, script: Path = TRAIN_SCRIPT) -> int:
    """Run the command line.

    Args:
        argv: arguments; None takes the process's own.
        script: what trains one seed.

    Returns:
        0; or the exit code of the run that was ended from outside, else of the first that failed.

    Raises:
        InputError: bad input; the entry point turns it into exit code 2.
    """
    args = parse_arguments(sys.argv[1:] if argv is None else argv)
    cfg = load_config(args.config_file, args.opts)
    output_dir = Path(cfg.OUTPUT_DIR)
    refuse_foreign_files(output_dir, (JSON_FILE, TABLE_FILE, PICTURE_FILE), ("format", "datasets"))
    done, first_code = [], 0
    for number, seed in enumerate(args.seeds, start=1):
        print(f"\n== seed {seed} ({number} of {len(args.seeds)})", flush=True)
        code = train_seed(args, output_dir, seed, script)
        if code == 0:
            done.append(seed)
            continue
        first_code = first_code or code
        print(f"== seed {seed} failed with exit code {code}", file=sys.stderr, flush=True)
        if code in (EXIT_PREEMPTED, EXIT_INTERRUPTED, 128 + signal.SIGTERM):
            # What ends one run from outside is meant for the series: the same command goes on.
            first_code = code
            break
    if done:
        print(f"\n{write_summary(output_dir, collect(cfg, output_dir, done))}")
        print(f"\nwrote {output_dir / TABLE_FILE}, {JSON_FILE} and a picture beside it")
    if len(done) < len(args.seeds):
        missing = [str(seed) for seed in args.seeds if seed not in done]
        print(f"not finished: seed {', '.join(missing)}; the same command goes on", file=sys.stderr)
    return first_code


if __name__ == "__main__":
    with exit_on_input_error():
        sys.exit(main())
