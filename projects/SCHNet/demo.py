"""Parse photos or a video: Detectron2 visualizer overlays, index PNGs, comparisons with the truth.

    python projects/SCHNet/demo.py --weights output/ccp --input photo.jpg folder 'more/*.jpg' \
        --output parsed
    python projects/SCHNet/demo.py --weights output/ccp --video walk.mp4 --output walk_parts.mp4

For `photo.jpg` it writes `photo.png`, whose pixel values are the labels, and `photo_overlay.png`,
both upright as the photo's EXIF orientation says; the overlay of a small photo is enlarged, so that
the parts' names can be read. With `--compare` it writes `photo_compare.png` too. Where two photos
would share a name they keep their extension (`a.jpg.png`), or their folder's name before it. A file
in the output folder is replaced only where an earlier run wrote it, which `.schnet-outputs` there
records.

A video's result has its rate and size, and the parts' colours over it; the sound is left out.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from schnet.comparison import Comparison, find_truths, require_different_stems
from schnet.data.label_maps import write_label_png
from schnet.data.reading import decode_upright, open_image
from schnet.drawing import draw_overlay, with_legend
from schnet.errors import InputError, exit_on_input_error
from schnet.export_file import is_export
from schnet.image_files import collect_images, output_names
from schnet.inference import Parser
from schnet.setup import load_model_config
from schnet.trained import AUTO, choose_device
from schnet.video import has_window, open_camera, open_video, require_new_video
from schnet.video_parsing import frame_rate, parse_camera, parse_video
from schnet.visualization import save_png

LABELS_SUFFIX = ".png"
OVERLAY_SUFFIX = "_overlay.png"
COMPARE_SUFFIX = "_compare.png"
RECORD_FILE = ".schnet-outputs"


@dataclass
class Told:
    """What a run over photos has to say at its end.

    Attributes:
        unread: photos that could not be read.
        truthless: photos without a truth.
        bad_truths: photos whose truth cannot be used.
    """

    unread: list[Path] = field(default_factory=list)
    truthless: list[Path] = field(default_factory=list)
    bad_truths: list[Path] = field(default_factory=list)


def earlier_outputs(folder: Path) -> set[str]:
    """Names of the files in the output folder that earlier runs wrote."""
    record = folder / RECORD_FILE
    return set(record.read_text(encoding="utf-8").splitlines()) if record.is_file() else set()


def plan_outputs(
    images: Sequence[Path], folder: Path, own: Collection[str], suffixes: Sequence[str]
) -> list[str]:
    """Choose the results' base names; no file is touched.

    Args:
        images: photos to parse.
        folder: where the results will go.
        own: names there that may be replaced.
        suffixes: what follows the base name in the results' names.

    Returns:
        One base name a photo.

    Raises:
        InputError: a result would replace a file that is not ours.
    """
    inside = [image.name for image in images if image.resolve().parent == folder.resolve()]
    names = output_names(images, suffixes, reserved=inside)
    planned = {name + suffix for name in names for suffix in suffixes}
    for name in sorted(planned - set(own)):
        if (folder / name).exists():
            raise InputError(
                f"{folder / name} exists and was not written by this command: give another "
                "--output folder, or move that file away"
            )
    return names


def parse_files(
    parser: Parser,
    images: Sequence[Path],
    names: Sequence[str],
    folder: Path,
    *,
    legend: bool = False,
    comparison: Comparison | None = None,
) -> Told:
    """Parse photos one by one; what cannot be read is reported and left out.

    Args:
        parser: the model.
        images: photos to parse.
        names: the base name of each photo's results.
        folder: where the results go.
        legend: put the names and colours of a photo's parts beside its overlay.
        comparison: draws each photo's parsing beside its truth.
    """
    told = Told()
    for path, name in zip(tqdm(images, desc="parsing", unit="photo"), names, strict=True):
        try:
            encoded = open_image(path)
            image = decode_upright(encoded)
        except InputError as error:
            tqdm.write(f"left out: {error}")
            told.unread.append(path)
            continue
        parsing = parser(image)
        _record_outputs(folder, name, _suffixes(comparison is not None))
        write_label_png(folder / (name + LABELS_SUFFIX), parsing.labels, parsing.palette)
        drawn = draw_overlay(image, parsing)
        save_png(folder / (name + OVERLAY_SUFFIX), with_legend(drawn, parsing) if legend else drawn)
        if comparison is None:
            continue
        compared = comparison.add(path, encoded, parsing)
        save_png(folder / (name + COMPARE_SUFFIX), compared.picture)
        if compared.missing:
            told.truthless.append(path)
        if compared.problem is not None:
            tqdm.write(f"not compared: {compared.problem}")
            told.bad_truths.append(path)
    return told


def _suffixes(compare: bool) -> tuple[str, ...]:
    return (LABELS_SUFFIX, OVERLAY_SUFFIX, *((COMPARE_SUFFIX,) if compare else ()))


def _record_outputs(folder: Path, name: str, suffixes: Sequence[str]) -> None:
    """Note a photo's results as ours, before they are there: an interrupted run may go again."""
    new = sorted({name + suffix for suffix in suffixes} - earlier_outputs(folder))
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / RECORD_FILE, "a", encoding="utf-8") as record:
        record.writelines(f"{file}\n" for file in new)


def _argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Parse photos or a video, and draw the parts over them."
    )
    parser.add_argument(
        "--weights", help="a run's output folder, a checkpoint, or an export of it (.safetensors)"
    )
    parser.add_argument(
        "--config-file",
        action="append",
        metavar="YAML",
        help="config of the model, where it is not the one beside the checkpoint; repeat for files "
        "on top, such as an ablation's",
    )
    parser.add_argument("--device", help=f"{AUTO}, cpu, cuda, cuda:1, mps")
    kinds = parser.add_mutually_exclusive_group(required=True)
    kinds.add_argument("--input", nargs="+", help="image files, folders, or quoted glob patterns")
    kinds.add_argument("--video", type=Path, metavar="FILE", help="a video file")
    kinds.add_argument(
        "--webcam", type=int, nargs="?", const=0, metavar="N", help="a camera; 0 is the first"
    )
    parser.add_argument(
        "--output", type=Path, help="folder of the results; of a video or camera the new video"
    )
    parser.add_argument(
        "--legend", action="store_true", help="add the names and colours of the parts that occur"
    )
    photos = parser.add_argument_group("photos")
    photos.add_argument(
        "--compare",
        metavar="FOLDER",
        help="index PNGs of the truth, named as the photos: draw photo, truth and prediction",
    )
    videos = parser.add_argument_group("video and camera")
    videos.add_argument(
        "--smooth",
        type=float,
        metavar="FACTOR",
        help="average each frame with those before it, whose share this is, in [0, 1); try 0.5",
    )
    videos.add_argument("--frames", type=int, metavar="N", help="stop after N frames")
    videos.add_argument(
        "--rate", type=float, help="frames a second of the result, where the input does not tell"
    )
    videos.add_argument("--window", action="store_true", help="show what the camera sees")
    parser.add_argument(
        "--opts", nargs=argparse.REMAINDER, default=[], help="config overrides: KEY VALUE ..."
    )
    return parser


def _check_arguments(args: argparse.Namespace) -> None:
    """Refuse options that do not go together, before a model is loaded."""
    photos = args.input is not None
    misplaced = {
        "--compare": args.compare is not None and not photos,
        "--smooth": args.smooth is not None and photos,
        "--frames": args.frames is not None and photos,
        "--rate": args.rate is not None and photos,
        "--window": args.window and args.webcam is None,
    }
    kind = "--input" if photos else "--video" if args.video is not None else "--webcam"
    for option, wrong in misplaced.items():
        if wrong:
            raise InputError(f"{option} does not go with {kind}: leave one of them out")
    if args.output is None and not args.window:
        raise InputError("--output is missing: name the results' folder, or the new video")
    if args.window and not has_window():
        raise InputError(
            "--window needs an OpenCV that can open one, and this is its headless build: leave "
            "--window out and give --output camera.mp4, or install opencv-python in its place"
        )
    if args.frames is not None and args.frames < 1:
        raise InputError(f"--frames is {args.frames}: give 1 or more")
    if not photos and args.output is not None:
        require_new_video(args.output)
    if photos and args.output.exists() and not args.output.is_dir():
        raise InputError(f"--output {args.output} is a file: give a folder")


def _load_parser(args: argparse.Namespace) -> Parser:
    # An export has a config of its own; a config that is given with one takes its place.
    replaced = args.config_file is not None and args.weights and is_export(args.weights)
    if args.weights is not None and not replaced:
        return Parser.load(
            args.weights,
            device=args.device or AUTO,
            config_files=args.config_file or (),
            opts=args.opts,
        )
    if args.config_file is None:
        raise InputError(
            "--weights is missing: give a run's output folder, a checkpoint or an export"
        )
    # Without --weights they are those that the config names.
    own = ["MODEL.WEIGHTS", args.weights] if args.weights else []
    own += ["MODEL.DEVICE", choose_device(args.device)] if args.device else []
    return Parser.from_config(load_model_config(args.config_file, [*own, *args.opts]))


def _parse_photos(args: argparse.Namespace) -> None:
    own = earlier_outputs(args.output)
    skip = {(args.output / name).resolve() for name in own}
    truths = {} if args.compare is None else find_truths(args.compare, skip)
    images = collect_images(args.input, skip | {path.resolve() for path in truths.values()})
    require_different_stems(images, truths)
    names = plan_outputs(images, args.output, own, _suffixes(args.compare is not None))
    parser = _load_parser(args)
    comparison = None
    if args.compare is not None:
        comparison = Comparison(truths, len(parser.classes))
    told = parse_files(
        parser, images, names, args.output, legend=args.legend, comparison=comparison
    )
    print(f"parsed {len(images) - len(told.unread)} of {len(images)} photos into {args.output}")
    if comparison is not None:
        print(comparison.summary())
        if told.truthless:
            print(f"no truth in {args.compare} for: {', '.join(map(str, told.truthless))}")
    if told.unread:
        raise InputError(
            f"{len(told.unread)} of {len(images)} photos could not be read: "
            f"{', '.join(map(str, told.unread))}; replace them or leave them out"
        )
    if told.bad_truths:
        raise InputError(
            f"the truth of {len(told.bad_truths)} of {len(images)} photos cannot be used: "
            f"{', '.join(map(str, told.bad_truths))}; correct the label maps or leave them out"
        )


def _parse_moving(args: argparse.Namespace) -> None:
    is_file = args.video is not None
    with open_video(args.video) if is_file else open_camera(args.webcam) as source:
        rate = frame_rate(source, args.rate)
        parser = _load_parser(args)
        options = {"rate": rate, "smooth": args.smooth, "legend": args.legend, "limit": args.frames}
        if is_file:
            count = parse_video(parser, source, args.output, **options)
        else:
            count = parse_camera(parser, source, args.output, window=args.window, **options)
    print(f"parsed {count} frames" + (f" into {args.output}" if args.output else ""))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line.

    Raises:
        InputError: bad input, also where only some photos or frames could not be read, after the
            others were parsed; the entry point turns it into exit code 2.
    """
    args = _argument_parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING)
    _check_arguments(args)
    if args.input is not None:
        _parse_photos(args)
    else:
        _parse_moving(args)


if __name__ == "__main__":
    with exit_on_input_error():
        main()
