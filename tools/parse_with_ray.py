"""Parse millions of photos over a Ray cluster, or over this machine's cores: label maps as Parquet.

    python tools/parse_with_ray.py --input photos/ --output parsed/ --weights output/lip \
        [--actors 8 --num-gpus 1 --address auto] [--resume]

Every photo is one row of the output, exactly once, also where workers die or the whole job is
killed and started again with --resume. See docs/large_folders.md. The exit code is 1 where some
photos could not be read; their rows say why. It is 2 where what was given, or the cluster, is at
fault, and 70 where the program is.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from schnet.batch.engines import class_list
from schnet.engines import engine_of, pin_weights
from schnet.errors import EXIT_SOME_FAILED, InputError, exit_by_kind_of_error
from schnet.ray_pipeline.model_choice import ModelChoice


def _at_least(least: float, kind: Callable[[str], float]) -> Callable[[str], float]:
    def read(text: str) -> float:
        value = kind(text)
        if not value >= least:
            raise argparse.ArgumentTypeError(f"{text} is less than {least:g}")
        return value

    return read


def _argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Parse millions of photos with Ray Data; label maps come as Parquet."
    )
    parser.add_argument(
        "--input", type=Path, required=True, help="folder of photos, or Parquet file or folder"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of the Parquet files")
    parser.add_argument(
        "--weights", required=True, help="run's folder, checkpoint, .safetensors or .onnx export"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the job in --output")
    count = _at_least(1, int)
    parser.add_argument(
        "--actors", type=count, help="models held (default: all that fit the GPUs, or one)"
    )
    parser.add_argument(
        "--num-gpus",
        type=_at_least(0, float),
        default=0.0,
        help="GPUs of an actor; 0 runs on CPUs, 0.5 puts two on a GPU (default: 0)",
    )
    parser.add_argument(
        "--cpus-per-actor", type=count, default=1, help="CPUs and threads of an actor without GPU"
    )
    parser.add_argument("--batch-size", type=count, default=8, help="photos parsed together")
    parser.add_argument(
        "--rows-per-shard", type=count, default=256, help="photos of an output file"
    )
    for name in ("id", "image"):
        told = f"of Parquet input (default: {name})"
        parser.add_argument(f"--{name}-column", default=name, help=told)
    parser.add_argument("--dtype", default="auto", help="auto, float32 or bfloat16")
    parser.add_argument(
        "--config-file", action="append", default=[], help="in place of the one beside a checkpoint"
    )
    parser.add_argument("--remap", metavar="NAME|YAML", help="labels of another vocabulary")
    told = 'names to parse by, with commas between: "hat, left sleeve"'
    parser.add_argument("--classes", type=class_list, metavar="NAMES", help=told)
    parser.add_argument("--clip-weights", metavar="FILE", help="CLIP's file, for --classes")
    parser.add_argument(
        "--address", help="of a Ray cluster, or auto (default: RAY_ADDRESS, or start one)"
    )
    parser.add_argument("--temp-dir", type=Path, help="of a started cluster: logs and sockets")
    parser.add_argument(
        "--opts", nargs=argparse.REMAINDER, default=[], help="config overrides: KEY VALUE ..."
    )
    return parser


def _require_ray() -> None:
    missing = [name for name in ("ray", "pyarrow") if find_spec(name) is None]
    if missing:
        raise InputError(
            f"{' and '.join(missing)} cannot be imported: install them with "
            "`pip install 'schnet[ray]'`, or `make env-extras` in the repository"
        )


def _choose_model(args: argparse.Namespace) -> ModelChoice:
    weights = args.weights if "://" in args.weights else os.path.abspath(args.weights)
    # Now, for all: a better checkpoint may come before the last actor loads one.
    weights = pin_weights(weights, engine_of(weights))
    choice = ModelChoice(
        weights,
        device="cuda" if args.num_gpus else "cpu",
        dtype=args.dtype,
        config_files=tuple(os.path.abspath(file) for file in args.config_file),
        opts=tuple(args.opts),
        threads=args.cpus_per_actor,
        classes=args.classes,
        clip_weights=None if args.clip_weights is None else os.path.abspath(args.clip_weights),
        remap=os.path.abspath(args.remap)
        if args.remap and Path(args.remap).is_file()
        else args.remap,
    )
    return choice.pinned()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        The exit code: 0, or 1 where some photos could not be read.

    Raises:
        InputError: bad input, or a cluster that cannot be used; the entry point turns it into exit
            code 2.
    """
    args = _argument_parser().parse_args(argv)
    _require_ray()
    # Only now: without the extra, the sentence above is all there is to say.
    import ray

    from schnet.ray_pipeline.job import Job, require_apart
    from schnet.ray_pipeline.pipeline import cluster, open_input, run_job
    from schnet.ray_pipeline.room import Workers, alive_nodes, default_actors

    if args.output.exists() and not args.output.is_dir():
        raise InputError(f"--output {args.output} is a file: give a folder")
    require_apart(args.input, args.output)
    source = open_input(args.input, args.id_column, args.image_column)
    model = _choose_model(args)
    known = model.identify()
    if known.unmapped:
        print(f"--remap {args.remap}: {known.unmapped}", file=sys.stderr)
    job = Job(
        known.digest,
        known.classes,
        known.palette,
        source.describe(),
        source.photos,
        args.rows_per_shard,
    )
    # Its plan and its logs' folder would stand between the lines of the progress bar.
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    with cluster(args.address, args.temp_dir):
        actors = args.actors or default_actors(alive_nodes(ray.nodes()), args.num_gpus)
        workers = Workers(actors, args.cpus_per_actor, args.num_gpus, args.batch_size)
        done = run_job(source, job, args.output, model.load, workers, resume=args.resume)
    print(
        f"{done.photos - done.errors} of {done.photos} photos parsed into {args.output} "
        f"({done.parsed_now} of them now)"
    )
    if done.errors:
        print(f"{done.errors} could not be read: see the column `error`", file=sys.stderr)
    return EXIT_SOME_FAILED if done.errors else 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    with exit_by_kind_of_error():
        sys.exit(main())
