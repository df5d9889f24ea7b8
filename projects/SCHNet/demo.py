"""Parse photos: a Detectron2 visualizer overlay and an index PNG in the palette for each.

    python projects/SCHNet/demo.py --config-file projects/SCHNet/configs/ccp.yaml \
        --weights output/ccp/model_best.pth --input photo.jpg folder 'more/*.jpg' --output parsed

For `photo.jpg` it writes `photo.png`, whose pixel values are the labels, and `photo_overlay.png`,
both upright as the photo's EXIF orientation says; the overlay of a small photo is enlarged, so that
the parts' names can be read. Where two photos would share a name they keep
their extension (`a.jpg.png`), or their folder's name before it. A file in the output folder is
replaced only where an earlier run wrote it, which `.schnet-outputs` there records.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Collection, Sequence
from pathlib import Path

import cv2
import numpy as np
from detectron2.data.catalog import Metadata
from detectron2.utils.visualizer import Visualizer
from tqdm import tqdm

from schnet.data.label_maps import write_label_png
from schnet.data.reading import read_image
from schnet.errors import InputError, exit_on_input_error
from schnet.image_files import collect_images, output_names
from schnet.inference import Parser
from schnet.parsing import Parsing
from schnet.setup import load_model_config
from schnet.visualization import ByteArray, save_png

LABELS_SUFFIX = ".png"
OVERLAY_SUFFIX = "_overlay.png"
SUFFIXES = (LABELS_SUFFIX, OVERLAY_SUFFIX)
RECORD_FILE = ".schnet-outputs"
OVERLAY_ALPHA = 0.55
# Smallest longer side of an overlay, in pixels.
OVERLAY_SIDE = 640

# A label that no class has: Detectron2's visualizer leaves its pixels as they are.
UNDRAWN = 255


def draw_overlay(image: ByteArray, parsing: Parsing) -> ByteArray:
    """Draw the parts over their photo with Detectron2's visualizer; background stays as it is.

    Args:
        image: (H, W, 3) uint8 RGB.
        parsing: its labels are (H, W).

    Returns:
        (H, W, 3) uint8 RGB; enlarged, the aspect kept, where the longer side is below
        `OVERLAY_SIDE`.
    """
    metadata = Metadata(
        stuff_classes=list(parsing.classes), stuff_colors=[list(c) for c in parsing.palette]
    )
    background = [i for i, name in enumerate(parsing.classes) if name.lower() == "background"]
    labels = np.where(np.isin(parsing.labels, background), np.uint8(UNDRAWN), parsing.labels)
    scale = OVERLAY_SIDE / max(labels.shape)
    if scale > 1:
        size = tuple(max(1, round(side * scale)) for side in labels.shape[::-1])
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_CUBIC), np.uint8)
        labels = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST_EXACT)
    visualizer = Visualizer(image, metadata)
    return visualizer.draw_sem_seg(labels, alpha=OVERLAY_ALPHA).get_image()


def earlier_outputs(folder: Path) -> set[str]:
    """Names of the files in the output folder that earlier runs wrote."""
    record = folder / RECORD_FILE
    return set(record.read_text(encoding="utf-8").splitlines()) if record.is_file() else set()


def plan_outputs(images: Sequence[Path], folder: Path, own: Collection[str]) -> list[str]:
    """Choose the results' base names; no file is touched.

    Args:
        images: photos to parse.
        folder: where the results will go.
        own: names there that may be replaced.

    Returns:
        One base name a photo.

    Raises:
        InputError: a result would replace a file that is not ours.
    """
    inside = [image.name for image in images if image.resolve().parent == folder.resolve()]
    names = output_names(images, SUFFIXES, reserved=inside)
    planned = {name + suffix for name in names for suffix in SUFFIXES}
    for name in sorted(planned - set(own)):
        if (folder / name).exists():
            raise InputError(
                f"{folder / name} exists and was not written by this command: give another "
                "--output folder, or move that file away"
            )
    return names


def parse_files(
    parser: Parser, images: Sequence[Path], names: Sequence[str], folder: Path
) -> list[Path]:
    """Parse photos one by one; what cannot be read is reported and left out.

    Args:
        parser: the model.
        images: photos to parse.
        names: the base name of each photo's results.
        folder: where the results go.

    Returns:
        The photos that could not be read.
    """
    failed = []
    for path, name in zip(tqdm(images, desc="parsing", unit="photo"), names, strict=True):
        try:
            image = read_image(path, apply_exif=True)
        except InputError as error:
            tqdm.write(f"left out: {error}")
            failed.append(path)
            continue
        parsing = parser(image)
        _record_outputs(folder, name)
        write_label_png(folder / (name + LABELS_SUFFIX), parsing.labels, parsing.palette)
        save_png(folder / (name + OVERLAY_SUFFIX), draw_overlay(image, parsing))
    return failed


def _record_outputs(folder: Path, name: str) -> None:
    """Note a photo's results as ours, before they are there: an interrupted run may go again."""
    new = sorted({name + suffix for suffix in SUFFIXES} - earlier_outputs(folder))
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / RECORD_FILE, "a", encoding="utf-8") as record:
        record.writelines(f"{file}\n" for file in new)


def _argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Parse photos and draw the parts over them.")
    parser.add_argument(
        "--config-file",
        action="append",
        required=True,
        metavar="YAML",
        help="config of the model; repeat for files on top, such as an ablation's",
    )
    parser.add_argument("--weights", help="checkpoint of the trained model (MODEL.WEIGHTS)")
    parser.add_argument(
        "--input", nargs="+", required=True, help="image files, folders, or quoted glob patterns"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of the results")
    parser.add_argument(
        "--opts", nargs=argparse.REMAINDER, default=[], help="config overrides: KEY VALUE ..."
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line.

    Raises:
        InputError: bad input, also where only some photos could not be read, after the others
            were parsed; the entry point turns it into exit code 2.
    """
    args = _argument_parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING)
    if args.output.exists() and not args.output.is_dir():
        raise InputError(f"--output {args.output} is a file: give a folder")
    own = earlier_outputs(args.output)
    images = collect_images(args.input, skip={(args.output / name).resolve() for name in own})
    names = plan_outputs(images, args.output, own)
    weights = ["MODEL.WEIGHTS", args.weights] if args.weights else []
    cfg = load_model_config(args.config_file, [*weights, *args.opts])
    parser = Parser.from_config(cfg)
    failed = parse_files(parser, images, names, args.output)
    print(f"parsed {len(images) - len(failed)} of {len(images)} photos into {args.output}")
    if failed:
        raise InputError(
            f"{len(failed)} of {len(images)} photos could not be read: "
            f"{', '.join(map(str, failed))}; replace them or leave them out"
        )


if __name__ == "__main__":
    with exit_on_input_error():
        main()
