"""Where Pascal-Person-Part's photos, label files and splits lie in a download.

Photos and lists are those of PASCAL VOC 2010 (`JPEGImages`, `ImageSets/Main/{train,val}.txt`), and
annotations those of Pascal-Part (`Annotations_Part/*.mat`). Others hand out merged label maps as
PNGs with id lists: `pascal_person_part_gt` (Chen et al., 2016), `SegmentationPart`, or
`Training/{Images,Category_ids}` and `Testing/{Images,Category_ids}` in CIHP's manner, where the
validation split is called so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from schnet.data.file_names import IMAGE_ENDINGS, LABEL_ENDINGS
from schnet.data.preparation.official import find_ids, read_ids, require_folder
from schnet.data.preparation.sources import SourceFile, SourceFolder, SourceTree
from schnet.data.preparation.splits import SplitFiles, files_by_id
from schnet.data.specs import SPECS
from schnet.errors import InputError

ANNOTATIONS = "Annotations_Part"
ANNOTATION_ENDINGS = (".mat",)

_LAYOUT = SPECS["ppp"].layout
_VOC_LISTS = ("VOC2010/ImageSets/Main", "ImageSets/Main")
_VOC_PHOTOS = ("VOC2010/JPEGImages", "JPEGImages")
_SPLIT_PHOTOS = {"train": "Training/Images", "val": "Testing/Images"}
# Beside it, in CIHP's manner, lie PNGs of the same names that number people.
_CATEGORIES = "Category_ids"

Ids = dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class LabelFiles:
    """The label files of a download.

    Attributes:
        folder: all of them, by file name.
        by_id: all of them, by image id.
        merged: they are PNGs that others have merged, not Pascal-Part's annotations.
    """

    folder: SourceFolder
    by_id: dict[str, SourceFile]
    merged: bool


def find_annotations(tree: SourceTree) -> LabelFiles:
    """Find Pascal-Part's annotations.

    Raises:
        InputError: there are none.
    """
    purpose = "Pascal-Part's annotations (for PNGs that others have merged, give --labels)"
    folder = require_folder(tree, ANNOTATIONS, purpose)
    return LabelFiles(folder, files_by_id(folder, ANNOTATION_ENDINGS), merged=False)


def find_pngs(given: SourceTree) -> LabelFiles:
    """Find the label maps that others have merged: all PNGs, at any depth.

    Where there are folders `Category_ids`, those are meant.

    Args:
        given: what `--labels` names.

    Raises:
        InputError: there are none, or two of one image.
    """
    found: dict[str, SourceFile] = {}
    named = [f for f in given.folders if f.path.rsplit("/", 1)[-1] == _CATEGORIES]
    for folder in named or given.folders:
        for name, file in files_by_id(folder, LABEL_ENDINGS).items():
            if name in found:
                raise InputError(
                    f"both {found[name].path} and {file.path} may be the label map of {name}: give "
                    "--labels the folder that is meant"
                )
            found[name] = file
    if not found:
        raise InputError(f"--labels {given} holds no PNG: give the folder of the label maps")
    files = {file.name.rsplit("/", 1)[-1]: file for file in found.values()}
    return LabelFiles(replace(given.folders[0], files=files), found, merged=True)


def find_splits(
    tree: SourceTree, given: SourceTree | None, labels: LabelFiles
) -> tuple[dict[str, SplitFiles], str]:
    """Find the photos and the splits.

    Args:
        tree: the download.
        given: what `--labels` names; id lists may lie there too.
        labels: the label files.

    Returns:
        The splits, and where they come from.

    Raises:
        InputError: the photos or the id lists are missing.
    """
    photos = {split: _find_photos(tree, split) for split in _LAYOUT}
    found = _published_ids(tree) or (given and _published_ids(given)) or _voc_ids(tree, labels)
    if not found and photos["train"] is not photos["val"]:
        own = {split: tuple(files_by_id(f, IMAGE_ENDINGS)) for split, f in photos.items()}
        found = own, f"{photos['train'].path} and {photos['val'].path}"
    if not found:
        raise InputError(
            f"the source {tree} has neither train_id.txt and val_id.txt nor VOC's "
            f"{_VOC_LISTS[-1]}/ with train.txt and val.txt, without which its splits cannot be "
            "told apart: give VOC2010's folder to --source as well"
        )
    ids, origin = found
    endings = LABEL_ENDINGS if labels.merged else ANNOTATION_ENDINGS
    return {s: SplitFiles(photos[s], labels.folder, ids[s], endings) for s in _LAYOUT}, origin


def _find_photos(tree: SourceTree, split: str) -> SourceFolder:
    folder = tree.find_folder([_SPLIT_PHOTOS[split], *_VOC_PHOTOS])
    return folder or require_folder(tree, _VOC_PHOTOS[-1], "VOC2010's photos")


def _published_ids(tree: SourceTree) -> tuple[Ids, str] | None:
    """Read `train_id.txt` and `val_id.txt`; None where there is neither."""
    lists = {split: find_ids(tree, layout) for split, layout in _LAYOUT.items()}
    ids = {split: own for split, own in lists.items() if own is not None}
    if ids and len(ids) < len(lists):
        raise InputError(
            f"{tree} has the id list of {', '.join(ids)} alone: put both train_id.txt and "
            "val_id.txt there, or neither to take VOC's own lists"
        )
    return (ids, f"train_id.txt and val_id.txt in {tree}") if ids else None


def _voc_ids(tree: SourceTree, labels: LabelFiles) -> tuple[Ids, str] | None:
    """Read VOC's own lists; None where they are not there."""
    folder = tree.find_folder(_VOC_LISTS)
    if folder is None or not {f"{split}.txt" for split in _LAYOUT} <= set(folder.files):
        return None
    ids = {split: read_ids(folder.files[f"{split}.txt"]) for split in _LAYOUT}
    if labels.merged:
        # These lists name images without people too, which have no PNG.
        ids = {split: tuple(i for i in own if i in labels.by_id) for split, own in ids.items()}
    return ids, f"train.txt and val.txt in {folder.path}"
