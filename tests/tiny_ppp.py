"""Pascal-Person-Part's downloads in miniature: VOC2010, Pascal-Part, and PNGs of others."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from data_helpers import save_image
from part_people import whole_person
from pascal_part_files import annotation, person_of, thing

from schnet.data.index import read_index
from schnet.data.label_maps import read_label, write_label_png
from schnet.data.labels import PPP_LABELS
from schnet.data.reading import UInt8Array

TRAIN = [f"2008_{number:06d}" for number in range(1, 9)]
VAL = [f"2009_{number:06d}" for number in range(1, 7)]
NOBODY = {"train": ["2008_000090", "2008_000091"], "val": ["2009_000090"]}
SIZE = (125, 110)
REDISTRIBUTED = [0, 2, 4, 6, 1, 3, 5]
"""The value in the redistributed order of each of our values."""


def truth(image_id: str) -> UInt8Array:
    """The label map that an image must get; another person for each id."""
    return np.ascontiguousarray(whole_person(int(image_id[-6:]) + int(image_id[:4]))[::2, ::2])


def save_photo(path: Path, size: tuple[int, int] = SIZE, channels: int = 3) -> None:
    """A photo of noise."""
    rng = np.random.default_rng(len(path.name))
    shape = (*size, channels) if channels > 1 else size
    save_image(path, rng.integers(0, 256, shape, np.uint8), quality=50)


def write_annotation(folder: Path, image_id: str, labels: UInt8Array | None = None) -> None:
    """Pascal-Part's file of one image: a person and a horse that do not touch each other."""
    labels = truth(image_id) if labels is None else labels
    corner = np.zeros(labels.shape, bool)
    corner[:3, :3] = True
    content = annotation([person_of(labels), thing("horse", [("head", corner)])], image_id)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{image_id}.mat").write_bytes(content)


def make_voc(root: Path) -> Path:
    """VOC2010 with its lists, which name images without people too; returns its folder."""
    voc = root / "VOCdevkit" / "VOC2010"
    for name in [*TRAIN, *VAL, *NOBODY["train"], *NOBODY["val"]]:
        save_photo(voc / "JPEGImages" / f"{name}.jpg")
    lists = voc / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    for split, ids in (("train", TRAIN), ("val", VAL)):
        names = sorted([*ids, *NOBODY[split]])
        (lists / f"{split}.txt").write_text("\n".join(names) + "\n")
        (lists / f"person_{split}.txt").write_text("".join(f"{name}  1\n" for name in names))
    # VOC's other lists and label maps must not be taken for PPP's.
    (voc / "ImageSets" / "Segmentation").mkdir()
    (voc / "ImageSets" / "Segmentation" / "train.txt").write_text(f"{VAL[0]}\n")
    write_label_png(voc / "SegmentationClass" / f"{TRAIN[0]}.png", truth(TRAIN[0]) * 20, [])
    return voc


def make_annotations(root: Path) -> Path:
    """Pascal-Part as it unpacks; returns the folder of the annotations."""
    folder = root / "Annotations_Part"
    for name in [*TRAIN, *VAL]:
        write_annotation(folder, name)
    bike = thing("bicycle", [("saddle", np.ones(SIZE, bool))])
    far = thing("person", [], np.ones(SIZE, bool))
    for name, objects in zip([*NOBODY["train"], *NOBODY["val"]], ([], [bike], [far]), strict=True):
        (folder / f"{name}.mat").write_bytes(annotation(objects, name))
    (root / "part2ind.m").write_text("function pimap = part2ind()\n")
    return folder


def make_download(root: Path) -> Path:
    """Both, unpacked side by side."""
    make_voc(root)
    make_annotations(root / "trainval")
    return root


def make_pngs(
    folder: Path, order: Sequence[int], ids: Sequence[str] = (*TRAIN, *VAL), colors: bool = True
) -> Path:
    """Label maps of others.

    Args:
        folder: of the PNGs.
        order: their value of each of our values.
        ids: the images.
        colors: palette PNGs, else grey ones.
    """
    for name in ids:
        labels = np.array(order, np.uint8)[truth(name)]
        if colors:
            # A palette in another order, as of VOC: converted to grey it would be nonsense.
            write_label_png(folder / f"{name}.png", labels, list(PPP_LABELS.values())[::-1])
        else:
            save_image(folder / f"{name}.png", labels)
    return folder


def write_lists(folder: Path, train: Sequence[str] = TRAIN, val: Sequence[str] = VAL) -> None:
    """The published id lists."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train_id.txt").write_text("\n".join(train) + "\n")
    (folder / "val_id.txt").write_text("\n".join(val) + "\n")


def zip_folder(folder: Path, archive: Path) -> Path:
    """Make a zip file of a folder's content and remove the folder."""
    shutil.make_archive(str(archive.with_suffix("")), "zip", folder)
    shutil.rmtree(folder)
    return archive


def check_output(output: Path, train: Sequence[str] = TRAIN, val: Sequence[str] = VAL) -> None:
    """Both indexes name these images, and every label map is the true one."""
    for split, ids in (("train", train), ("val", val)):
        index = read_index(output / f"{split}.json")
        assert [record.image for record in index.records] == [f"{name}.jpg" for name in ids]
        assert [record.label for record in index.records] == [f"{name}.png" for name in ids]
        assert index.classes == tuple(PPP_LABELS)
        total = np.zeros(7, np.int64)
        for name in ids:
            labels = read_label(Path(index.label_root) / f"{name}.png", 7)
            assert np.array_equal(labels, truth(name)), name
            total += np.bincount(labels.ravel(), minlength=7)
            assert (Path(index.image_root) / f"{name}.jpg").is_file()
        assert list(index.pixel_counts) == total.tolist()


def cells(summary: str, name: str) -> list[str]:
    """The numbers of a row of the summary."""
    line = next(line for line in summary.splitlines() if line.startswith(f"{name}  "))
    return line[len(name) :].split()
