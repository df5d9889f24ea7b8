"""Parse photos: an index PNG in the palette for each, and results.jsonl with a line for each.

    schnet parse photo.jpg folder 'more/*.jpg' --weights output/lip --output parsed
    find /photos -name '*.jpg' | schnet parse - --weights schnet_lip.onnx --output parsed --overlays
    torchrun --nproc-per-node 8 -m schnet.command parse --list photos.txt --weights W --output DIR

Started again it goes on where it ended; what could not be parsed is tried again. The exit code is 0
where all photos are parsed, 1 where some could not be, 2 where nothing could be begun or written
any more, 70 where the program itself failed, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import io
import os
import stat
import sys
from pathlib import Path

from tqdm import tqdm

from schnet.batch.engines import ENGINES, EngineOptions, class_list, identity_of, load_parser
from schnet.batch.pipeline import PhotoPipeline
from schnet.batch.results import LABELS, MASKS, OVERLAY, ResultWriter
from schnet.batch.run_file import check_run, write_run
from schnet.batch.shard import Shard, shard_of
from schnet.batch.torchrun import wait_for_all
from schnet.batch.workspace import Wanted, Workspace, working_in
from schnet.errors import EXIT_SOME_FAILED, InputError
from schnet.image_files import collect_images, paths_in_list
from schnet.photo_parser import PhotoParser

STANDARD_INPUT = "-"
WORKERS = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add(
        "inputs",
        nargs="*",
        metavar="INPUT",
        help="image files, folders, quoted globs; - for a list on standard input, one path a line",
    )
    add(
        "--list",
        action="append",
        default=[],
        metavar="FILE",
        help="a file of paths, one a line; repeat for more",
    )
    add("--output", type=Path, required=True, metavar="DIR", help="folder of the results")
    add(
        "--weights",
        required=True,
        help="a run's folder, a checkpoint, a .safetensors or an .onnx file",
    )
    add("--engine", choices=ENGINES, default="auto", help="auto goes by the ending of --weights")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (torch)")
    add("--dtype", default="auto", help="auto, float32, bfloat16 (torch)")
    add(
        "--batch-size",
        type=_positive,
        metavar="N",
        help="photos that are parsed together; 1 on a CPU, more on a GPU",
    )
    add(
        "--workers",
        type=_positive,
        default=min(WORKERS, os.cpu_count() or 1),
        metavar="N",
        help="threads that decode (default %(default)s)",
    )
    add(
        "--config-file",
        action="append",
        default=[],
        metavar="YAML",
        help="in place of the config.yaml beside a checkpoint; repeat for files on top",
    )
    _add_results(parser)


def _add_results(parser: argparse.ArgumentParser) -> None:
    """Declare what of a photo is written, and how."""
    add = parser.add_argument
    add("--overlays", action="store_true", help="also write the parts laid over the photo")
    add(
        "--masks",
        action="store_true",
        help="also write a mask (0 or 255) for each class in the photo",
    )
    add("--remap", metavar="NAME|YAML", help="write the labels of another vocabulary")
    add(
        "--classes",
        type=class_list,
        metavar="NAMES",
        help='names to parse by, with commas between: "hat, left sleeve"',
    )
    add("--clip-weights", metavar="FILE", help="CLIP's file, for --classes")
    add("--quiet", action="store_true", help="no progress and no summary")
    add(
        "--overwrite",
        action="store_true",
        help="parse again what is finished, also by another model",
    )
    add(
        "--opts",
        nargs=argparse.REMAINDER,
        default=[],
        help="config overrides: KEY VALUE ...; the last option",
    )


def run(args: argparse.Namespace) -> int:
    """Parse the photos.

    Returns:
        0, or `EXIT_SOME_FAILED`.

    Raises:
        InputError: bad input, before any photo is parsed.
    """
    _check_output(args.output)
    shard = shard_of(os.environ)
    kinds = (LABELS, *[OVERLAY] * args.overlays, *[MASKS] * args.masks)
    options = _engine_options(args)
    inputs = [text for text in args.inputs if text != STANDARD_INPUT]
    images = collect_images(inputs, listed=_listed(args, shard))
    options = options.pinned()
    identity = identity_of(options)
    check_run(args.output, identity, args.overwrite)
    parser = _load_parser(options, shard)
    wanted = Wanted(images, identity.id, kinds, args.overwrite)

    def admit() -> None:
        check_run(args.output, identity, args.overwrite)
        write_run(args.output, identity, parser.classes, parser.palette)

    with working_in(args.output, shard, wanted, admit) as workspace:
        if workspace.left_out and shard.rank == 0 and not args.quiet:
            print(_left_out(workspace), file=sys.stderr)
        writer = ResultWriter(workspace, identity.id, kinds)
        pipeline = PhotoPipeline(
            parser,
            writer,
            batch_size=args.batch_size or parser.batch_size,
            workers=args.workers,
        )
        failed = _parse(pipeline, workspace, shard, args.quiet)
    wait_for_all(shard, bool(failed))
    return EXIT_SOME_FAILED if failed else 0


def _parse(pipeline: PhotoPipeline, workspace: Workspace, shard: Shard, quiet: bool) -> int:
    """Parse what is to be parsed; how many photos could not be."""
    total, failed = len(workspace.jobs), 0
    # One bar a machine: those of several processes would write over one another.
    hidden = quiet or os.environ.get("LOCAL_RANK", "0") != "0"
    prefix = "" if shard.world == 1 else f"{shard}: "
    with tqdm(total=total, desc=f"{prefix}parsing", unit="photo", disable=hidden) as bar:
        for outcome in pipeline.run(workspace.jobs):
            if outcome.error:
                failed += 1
                tqdm.write(f"{prefix}left out: {outcome.error}", file=sys.stderr)
            bar.update()
    if not quiet:
        skipped = f", {workspace.finished} were finished before" if workspace.finished else ""
        told = f", {failed} could not be" if failed else ""
        print(f"{prefix}parsed {total - failed} photos into {workspace.folder}{told}{skipped}")
    return failed


def _left_out(workspace: Workspace) -> str:
    one = workspace.left_out == 1
    told = "1 result of an earlier run" if one else f"{workspace.left_out} results of earlier runs"
    return f"{told} in {workspace.folder} {'is' if one else 'are'} left out"


def _check_output(folder: Path) -> None:
    """Refuse a folder that cannot be made, before the model is loaded.

    Raises:
        InputError: it, or what it would lie in, is a file, or cannot be looked at.
    """
    for place in (folder, *folder.parents):
        try:
            if stat.S_ISDIR(os.stat(place).st_mode):
                return
            reason: object = f"{place} is a file"
        except FileNotFoundError:
            if not os.path.islink(place):
                continue
            reason = f"{place} is a link to nothing"
        except NotADirectoryError:
            continue  # one of its parents is the file
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
        raise InputError(f"--output {folder} cannot be made ({reason}): give another folder")


def _engine_options(args: argparse.Namespace) -> EngineOptions:
    return EngineOptions(
        weights=args.weights,
        engine=args.engine,
        device=args.device,
        dtype=args.dtype,
        config_files=tuple(args.config_file),
        opts=tuple(args.opts),
        classes=args.classes,
        clip_weights=args.clip_weights,
        remap=args.remap,
    )


def _listed(args: argparse.Namespace, shard: Shard) -> list[str]:
    """The paths of the lists that are given."""
    paths = []
    if STANDARD_INPUT in args.inputs:
        if shard.world > 1:
            raise InputError(
                "several processes cannot read one standard input: write the paths into a file, "
                "and give --list FILE"
            )
        if isinstance(sys.stdin, io.TextIOWrapper):
            # A file name is bytes, and need not be Unicode.
            sys.stdin.reconfigure(errors="surrogateescape")
        paths += paths_in_list(sys.stdin)
    for file in args.list:
        try:
            with open(file, encoding="utf-8", errors="surrogateescape") as lines:
                paths += paths_in_list(lines)
        except OSError as error:
            raise InputError(
                f"the list {file} cannot be read ({error.strerror}): give a file with one path a "
                "line"
            ) from None
    return paths


def _load_parser(options: EngineOptions, shard: Shard) -> PhotoParser:
    """The parser, with labels as they are asked for; the first process says what has none."""
    parser = load_parser(options)
    if options.remap is None:
        return parser
    from schnet.remap import RemappedParser, load_remap

    remap = load_remap(options.remap, parser.classes)
    if remap.unmapped and shard.rank == 0:
        print(f"--remap {options.remap}: {remap.describe_unmapped()}", file=sys.stderr)
    return RemappedParser(parser, remap)


def _positive(text: str) -> int:
    """A whole number of 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of 1 or more")
    return int(text)
