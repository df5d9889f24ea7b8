"""Registration of the data sets with Detectron2, and the list of images of each split."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from schnet.data.custom import CustomPaths, load_custom, open_custom
from schnet.data.file_names import IMAGE_ENDINGS, LABEL_ENDINGS, is_litter, key_by_stem
from schnet.data.id_lists import decode_ids
from schnet.data.index import read_index, require_labels
from schnet.data.specs import SPECS, SPLITS, DatasetSpec, SplitLayout
from schnet.errors import InputError

__all__ = [
    "SPECS",
    "DatasetSpec",
    "class_frequencies",
    "index_path",
    "load_registered",
    "load_split",
    "register_custom",
    "register_datasets",
    "require_registered",
]

DatasetDict = dict[str, Any]


def register_datasets(root: str | None = None) -> None:
    """Register `<name>_<split>` of every spec with Detectron2; no file is touched.

    May be called again, also with another root: the last call counts.

    Args:
        root: folder of the data sets' folders; None takes the environment variable
            DETECTRON2_DATASETS, or `datasets` where that is not set.
    """
    if root is None:
        root = os.environ.get("DETECTRON2_DATASETS") or "datasets"
    for spec in SPECS.values():
        for split in spec.splits:
            _register_published(spec, split, root)


def register_custom(paths: CustomPaths) -> None:
    """Register `<name>_train` and `<name>_val` of a data set of one's own with Detectron2.

    Its `classes.yaml` is read; no photo is touched. May be called again: the last call counts.

    Raises:
        InputError: the `classes.yaml` is missing or wrong, or the name is a published data set's.
    """
    data = open_custom(paths)
    for split in SPLITS:
        name = f"{paths.name}_{split}"
        load = partial(load_custom, data, split)
        _register(data.spec, name, load, data.index_path(split), str(data.classes_file))


def _register_published(spec: DatasetSpec, split: str, root: str) -> None:
    name = f"{spec.name}_{split}"
    load = partial(load_split, spec, split, root)
    _register(spec, name, load, index_path(spec, split, root), f"the data set {spec.name}")


def _register(
    spec: DatasetSpec, name: str, load: Callable[[], list[DatasetDict]], index: Path, origin: str
) -> None:
    # Both catalogs refuse a second entry or another value under a name that they know.
    if name in DatasetCatalog.list():
        DatasetCatalog.remove(name)
    if name in MetadataCatalog.list():
        MetadataCatalog.remove(name)
    DatasetCatalog.register(name, load)
    MetadataCatalog.get(name).set(
        stuff_classes=list(spec.classes),
        stuff_colors=[list(color) for color in spec.palette],
        ignore_label=spec.ignore_label,
        mirror_pairs=list(spec.mirror_pairs),
        prompts=[list(phrases) for phrases in spec.prompts],
        evaluator_type="parsing",
        spec_name=spec.name,
        index_file=str(index),
        labels_from=origin,
        refuse_colors=spec.refuse_colors,
    )


def index_path(spec: DatasetSpec, split: str, root: str | os.PathLike[str]) -> Path:
    """Give the path of a split's index file, which may not exist."""
    return Path(root) / spec.folder / f"{split}.json"


def require_registered(name: str) -> None:
    """Refuse a data set name that is not registered.

    Raises:
        InputError: names it and the registered parsing data sets.
    """
    if name not in DatasetCatalog.list():
        known = [other for other in DatasetCatalog.list() if _is_parsing(other)]
        raise InputError(
            f"there is no data set {name!r}: take one of {', '.join(known)}, or describe your own "
            "in DATASETS.CUSTOM"
        )


def _is_parsing(name: str) -> bool:
    # Asking for metadata that is not there would make it.
    if name not in MetadataCatalog.list():
        return False
    return MetadataCatalog.get(name).get("evaluator_type") == "parsing"


def load_registered(names: Sequence[str]) -> list[DatasetDict]:
    """Load registered data sets, one after the other, as one list of dicts.

    Raises:
        InputError: a name is not registered, its files are not there, or its label list differs
            from the first one's.
    """
    dicts: list[DatasetDict] = []
    for name in names:
        require_registered(name)
        if MetadataCatalog.get(name).stuff_classes != MetadataCatalog.get(names[0]).stuff_classes:
            raise InputError(
                f"the data sets {names[0]} and {name} have different label lists: train on one of "
                "them"
            )
        dicts.extend(DatasetCatalog.get(name))
    return dicts


def class_frequencies(name: str) -> list[float]:
    """Give each class's share of a registered data set's labelled pixels.

    Args:
        name: such as `lip_train`.

    Returns:
        K numbers in class order that sum to 1.

    Raises:
        InputError: the data set is not registered, has no index, or its index counts no pixel.
    """
    require_registered(name)
    metadata = MetadataCatalog.get(name)
    index = read_index(metadata.index_file)
    require_labels(index, metadata.index_file, metadata.stuff_classes, metadata.ignore_label)
    total = sum(index.pixel_counts)
    if total == 0:
        raise InputError(
            f"the index file {metadata.index_file} counts no labelled pixel: write it again with "
            "the data set's script in datasets/"
        )
    return [count / total for count in index.pixel_counts]


def load_split(spec: DatasetSpec, split: str, root: str | os.PathLike[str]) -> list[DatasetDict]:
    """List the images of one split: from its index where there is one, else from the folders.

    Args:
        spec: the data set.
        split: one of its splits.
        root: folder of the data sets' folders.

    Returns:
        One dict an image: 'file_name', 'image_id' (the file name without its ending), and, where
        known, 'sem_seg_file_name' and the stored 'height' and 'width' in pixels.

    Raises:
        InputError: the folder or what belongs into it is missing, an index belongs to other
            labels, or the split is empty.
    """
    folder = Path(root) / spec.folder
    if not folder.is_dir():
        raise InputError(f"the data set {spec.name} has no folder {folder}: {spec.remedy}")
    path = index_path(spec, split, root)
    if path.exists():
        dicts = _from_index(spec, path)
    elif spec.index_only:
        raise InputError(f"the data set {spec.name} has no index {path}: {spec.remedy}")
    else:
        dicts = _from_tree(spec, folder, spec.layout[split], path)
    if not dicts:
        raise InputError(
            f"the data set {spec.name}_{split} is empty: no image in {folder}; {spec.remedy}"
        )
    return dicts


def _from_index(spec: DatasetSpec, path: Path) -> list[DatasetDict]:
    index = read_index(path)
    require_labels(index, path, spec.classes, spec.ignore_label)
    dicts = []
    for record in index.records:
        entry: DatasetDict = {
            "file_name": os.path.join(index.image_root, record.image),
            "image_id": os.path.splitext(record.image)[0],
            "height": record.height,
            "width": record.width,
        }
        if record.label:
            entry["sem_seg_file_name"] = os.path.join(index.label_root, record.label)
        dicts.append(entry)
    return dicts


def _from_tree(
    spec: DatasetSpec, folder: Path, layout: SplitLayout, index: Path
) -> list[DatasetDict]:
    images = _require_folder(spec, folder, layout.image_dirs, index)
    sources = [("image", "file_name", images, _names_by_id(images, IMAGE_ENDINGS))]
    if layout.label_dirs:
        labels = _require_folder(spec, folder, layout.label_dirs, index)
        names = _names_by_id(labels, LABEL_ENDINGS)
        sources.append(("label map", "sem_seg_file_name", labels, names))
    ids = _read_ids(spec, folder, layout, index)
    dicts = []
    for image_id in sorted(sources[0][3]) if ids is None else ids:
        entry: DatasetDict = {"image_id": image_id}
        for kind, key, place, names in sources:
            if image_id not in names:
                raise InputError(
                    f"the {kind} of {spec.name} image {image_id!r} is not in {place}: put it "
                    "there or take the id out of the split"
                )
            entry[key] = str(place / names[image_id])
        dicts.append(entry)
    return dicts


def _require_folder(
    spec: DatasetSpec, folder: Path, candidates: Sequence[str], index: Path
) -> Path:
    for candidate in candidates:
        if (folder / candidate).is_dir():
            return folder / candidate
    raise InputError(
        f"the data set {spec.name} has neither an index {index} nor one of the folders "
        f"{', '.join(candidates)} in {folder}: {spec.remedy}"
    )


def _names_by_id(folder: Path, endings: Sequence[str]) -> dict[str, str]:
    return key_by_stem((n for n in os.listdir(folder) if not is_litter(n)), endings, folder)


def _read_ids(
    spec: DatasetSpec, folder: Path, layout: SplitLayout, index: Path
) -> Sequence[str] | None:
    """Read the split's ids; None where no list is there and none is needed."""
    for candidate in layout.id_lists:
        if (folder / candidate).is_file():
            return decode_ids((folder / candidate).read_bytes(), folder / candidate)
    if not layout.shared:
        return None
    raise InputError(
        f"the data set {spec.name} has neither an index {index} nor an id list "
        f"{layout.id_lists[-1]} in {folder}, without which its splits cannot be told apart: "
        f"{spec.remedy}"
    )
