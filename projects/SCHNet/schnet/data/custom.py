"""One's own data set: folders of photos and of index PNGs, and a `classes.yaml` of the labels.

    names: [background, hair, left sleeve, right sleeve]   # label 0, 1, 2, 3
    mirror_pairs: [[left sleeve, right sleeve]]            # change places in a mirrored photo
    colors: {hair: [128, 0, 0]}                            # the others get a colour of their own
    prompts: {hair: [hair, hairdo]}                        # phrases for CLIP; else the name

All but the names may be left out. Photos and label maps belong together by their path below the two
folders, without the ending.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schnet.data.class_list import ClassList, read_class_list
from schnet.data.file_names import IMAGE_ENDINGS, LABEL_ENDINGS, key_by_stem, walk_files
from schnet.data.index import read_index
from schnet.data.labels import IGNORE_LABEL
from schnet.data.sides import side_of
from schnet.data.specs import SPECS, DatasetSpec
from schnet.errors import InputError

DatasetDict = dict[str, Any]

CLASSES_FILE = "classes.yaml"
IMAGE_FOLDER, LABEL_FOLDER = "images", "labels"

# It names files.
_NAME = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class CustomPaths:
    """Where a data set of one's own lies, as DATASETS.CUSTOM says.

    Attributes:
        classes: a `classes.yaml`, or the folder that holds it.
        name: it is registered as `<name>_train` and `<name>_val`.
        images: folder of the photos; empty takes `images` beside the `classes.yaml`.
        labels: folder of the index PNGs; empty takes `labels` there.
        val_images: photos of the validation split; empty holds a share of the others out.
        val_labels: their index PNGs; empty together with `val_images`.
        val_share: share that is held out, in (0, 1).
    """

    classes: str
    name: str = "custom"
    images: str = ""
    labels: str = ""
    val_images: str = ""
    val_labels: str = ""
    val_share: float = 0.1


@dataclass(frozen=True)
class CustomDataset:
    """A data set of one's own, its `classes.yaml` read.

    Attributes:
        paths: as the config says.
        classes_file: the `classes.yaml`.
        class_list: what stands in it.
    """

    paths: CustomPaths
    classes_file: Path
    class_list: ClassList

    @property
    def spec(self) -> DatasetSpec:
        """What it has in common with the published ones; its layout is empty."""
        own = self.class_list
        return DatasetSpec(
            name=self.paths.name,
            folder="",
            classes=own.names,
            palette=own.palette,
            mirror_pairs=own.mirror_pairs,
            prompts=own.prompts,
            layout={},
            remedy=f"correct {self.classes_file} or DATASETS.CUSTOM",
            refuse_colors=True,
        )

    def index_path(self, split: str) -> Path:
        """Give the path of a split's index, which `datasets/validate.py` writes on request."""
        return self.classes_file.parent / f"{self.paths.name}_{split}.json"

    def folders(self, split: str) -> tuple[Path, Path]:
        """Give the folders of a split's photos and index PNGs."""
        if split == "val" and self.paths.val_images:
            return Path(self.paths.val_images), Path(self.paths.val_labels)
        home = self.classes_file.parent
        images = Path(self.paths.images) if self.paths.images else home / IMAGE_FOLDER
        labels = Path(self.paths.labels) if self.paths.labels else home / LABEL_FOLDER
        return images, labels


@dataclass(frozen=True)
class CustomPair:
    """A photo and its label map by name; a path is None where that file is missing."""

    image_id: str
    image: Path | None
    label: Path | None


def open_custom(paths: CustomPaths) -> CustomDataset:
    """Read a data set's `classes.yaml`; no photo is touched.

    Raises:
        InputError: the file is missing or wrong, the name is a published data set's or none, or
            the split is impossible.
    """
    if paths.name in SPECS:
        raise InputError(
            f"config key DATASETS.CUSTOM.NAME is {paths.name!r}, the name of a published data set: "
            "choose another"
        )
    if not _NAME.fullmatch(paths.name):
        raise InputError(
            f"the data set's name is {paths.name!r}: give it one of letters, digits, `_` and `-`"
        )
    if not 0 < paths.val_share < 1:
        raise InputError(
            f"the share of images that validates is {paths.val_share}: give a number in (0, 1)"
        )
    if bool(paths.val_images) != bool(paths.val_labels):
        raise InputError(
            "config keys DATASETS.CUSTOM.VAL_IMAGES and VAL_LABELS go together: give both, or "
            "neither to hold out VAL_SHARE of the images"
        )
    file = Path(paths.classes)
    if file.is_dir():
        file = file / CLASSES_FILE
    return CustomDataset(paths, file, read_class_list(file))


def list_pairs(data: CustomDataset, split: str) -> list[CustomPair]:
    """List a split's photos and label maps, also those without a partner; sorted by name.

    Raises:
        InputError: a folder is missing, or two files have one name but for the ending.
    """
    images_folder, labels_folder = data.folders(split)
    images = _files_below(images_folder, IMAGE_ENDINGS, "images")
    labels = _files_below(labels_folder, LABEL_ENDINGS, "label maps")
    names = sorted({*images, *labels})
    if not data.paths.val_images:
        held_out = _held_out(names, data.paths.val_share)
        names = [name for name in names if (name in held_out) == (split == "val")]
    return [CustomPair(name, images.get(name), labels.get(name)) for name in names]


def load_custom(data: CustomDataset, split: str) -> list[DatasetDict]:
    """List the images of one split, as `schnet.data.catalog.load_split` does.

    Returns:
        One dict an image: 'file_name', 'sem_seg_file_name', 'image_id' (the path below its folder
        without the ending) and, where the split has an index, 'height' and 'width' in pixels.

    Raises:
        InputError: a folder or a partner is missing, the split is empty, or its index is of other
            images.
    """
    images_folder, labels_folder = data.folders(split)
    entries = []
    for pair in list_pairs(data, split):
        if pair.image is None or pair.label is None:
            lacks = "label map" if pair.label is None else "image"
            place = labels_folder if pair.label is None else images_folder
            raise InputError(
                f"the {lacks} of {pair.image or pair.label} is not in {place}: put it there under "
                "the same name, or move that file out of the data set"
            )
        entry: DatasetDict = {"image_id": pair.image_id, "file_name": str(pair.image)}
        entry["sem_seg_file_name"] = str(pair.label)
        entries.append(entry)
    if not entries:
        raise InputError(
            f"the data set {data.paths.name}_{split} is empty: {images_folder} holds no image for "
            "it; put some there, or change DATASETS.CUSTOM.VAL_SHARE"
        )
    _add_sizes(data, split, entries)
    return entries


def require_mirror_pairs(
    classes: Sequence[str], pairs: Collection[tuple[int, int]], where: str
) -> None:
    """Refuse label lists that mirroring would get wrong: sides that do not change places.

    Args:
        classes: names in label order.
        pairs: label values that change places when an image is mirrored.
        where: what to correct, for the message: a `classes.yaml`, or a data set's name.

    Raises:
        InputError: a name contains left or right and is in no pair.
    """
    paired = {value for pair in pairs for value in pair}
    for value, name in enumerate(classes):
        if value not in paired and side_of(name):
            raise InputError(
                f"label {value} of {where} is {name!r} and in none of its mirror_pairs, so that "
                "mirrored photos would be learned with left and right swapped: add the pair there, "
                "or set INPUT.FLIP_PROB 0.0 (and TEST.AUG.FLIP False)"
            )


def _files_below(folder: Path, endings: Sequence[str], kind: str) -> dict[str, Path]:
    """Map the files of a folder, at all depths, by their path without the ending."""
    if not folder.is_dir():
        raise InputError(
            f"the folder of {kind} {folder} does not exist: correct DATASETS.CUSTOM, or put the "
            "files there"
        )
    names = [f"{place}{name}" for place, files in walk_files(folder) for name in files]
    return {key: folder / name for key, name in key_by_stem(names, endings, folder).items()}


def _held_out(names: Sequence[str], share: float) -> set[str]:
    """Choose the names that validate: each by its own hash, so that more images move none."""
    ranks = {name: _rank(name) for name in names}
    chosen = {name for name, rank in ranks.items() if rank < share}
    if not chosen and len(names) > 1:
        chosen = {min(names, key=lambda name: ranks[name])}
    return chosen


def _rank(name: str) -> float:
    """Give a number in [0, 1) that depends on a name alone."""
    return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:6], "big") / 2**48


def _add_sizes(data: CustomDataset, split: str, entries: list[DatasetDict]) -> None:
    path = data.index_path(split)
    if not path.exists():
        return
    index = read_index(path)
    sizes = {os.path.splitext(r.image)[0]: (r.height, r.width) for r in index.records}
    names = {entry["image_id"] for entry in entries}
    fits = index.classes == data.class_list.names and index.ignore_label == IGNORE_LABEL
    if not fits or set(sizes) != names:
        raise InputError(
            f"the index {path} is not of the labels and images that are there now "
            f"({len(sizes)} images, {len(names)} there): write it again with datasets/validate.py "
            "--write-index, or move it away"
        )
    for entry in entries:
        entry["height"], entry["width"] = sizes[entry["image_id"]]
