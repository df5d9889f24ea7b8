"""Where the files of an instance evaluation lie, and which belong to the same image.

Known folders lie below the one that the user gives (`--gt`, `--pred`): ground truth in those of
CIHP's archive, `Instance_ids` (part instances), `Human_ids` (persons) and `Category_ids` (classes);
predictions in those of its challenges' zip files, `instance_parsing`, `instance_segmentation` and
`global_parsing`, in folders named as the archive's, or in those that CIHP_PGN and SCHP write.
A folder without any of them that holds PNGs itself is one of part instances.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from schnet.errors import InputError

ARCHIVE = "instance-level_human_parsing"
SPLIT = "Validation"
# As the archive unpacks, once or twice nested, or the split's own folder.
TRUTH_PLACES = (
    "",
    SPLIT,
    f"{ARCHIVE}/{SPLIT}",
    f"{ARCHIVE}/{ARCHIVE}/{SPLIT}",
)
TRUTH_NAMES: Mapping[str, tuple[str, ...]] = {
    "parts": ("Instance_ids",),
    "persons": ("Human_ids",),
    "labels": ("Category_ids",),
}
PREDICTION_NAMES: Mapping[str, tuple[str, ...]] = {
    "parts": ("instance_parsing", "Instance_ids", "cihp_instance_part_maps"),
    "persons": ("instance_segmentation", "Human_ids", "global_tag", "cihp_human_maps"),
    "labels": ("global_parsing", "Category_ids", "cihp_parsing_maps"),
}
_NAMED_FILES = 3


@dataclass(frozen=True)
class InstanceFolders:
    """Folders of index PNGs and their lists; None for what there is not.

    Attributes:
        parts: of part instances.
        persons: of persons.
        labels: of classes.
    """

    parts: Path | None = None
    persons: Path | None = None
    labels: Path | None = None

    @property
    def has_persons(self) -> bool:
        """Whether the persons' label maps can be told, as AP^p and PCP need."""
        return self.persons is not None and (self.labels is not None or self.parts is not None)

    @property
    def by_role(self) -> dict[str, Path]:
        """The folders there are, by the attribute's name."""
        roles = {"parts": self.parts, "persons": self.persons, "labels": self.labels}
        return {role: folder for role, folder in roles.items() if folder is not None}


@dataclass(frozen=True)
class ImageFiles:
    """One image's files; None for what there is not.

    Attributes:
        parts: PNG of part instances.
        part_list: its text list.
        persons: PNG of persons.
        person_list: its text list.
        labels: PNG of classes.
    """

    parts: Path | None = None
    part_list: Path | None = None
    persons: Path | None = None
    person_list: Path | None = None
    labels: Path | None = None


@dataclass(frozen=True)
class ImageTask:
    """One image to evaluate.

    Attributes:
        truth: its ground truth.
        prediction: what was predicted for it.
    """

    truth: ImageFiles
    prediction: ImageFiles


def find_truth(root: Path, from_maps: bool = False) -> InstanceFolders:
    """Find the folders of ground truth: part instances, or classes and persons, or all three.

    Args:
        root: the folder that CIHP's archive unpacks to, its `Validation` folder (or `Training`),
            or a folder of part instances with their lists.
        from_maps: leave `Instance_ids` aside and make the part instances of classes and persons.

    Raises:
        InputError: the folder does not exist, or holds none of this.
    """
    _require_folder(root, "--gt")
    places = (_find(root / place, TRUTH_NAMES, "--gt") for place in TRUTH_PLACES)
    folders = next((found for found in places if found != InstanceFolders()), None)
    if folders is None:
        folders = InstanceFolders(parts=root if _files(root, ".png") else None)
    parts = None if from_maps else folders.parts
    if folders.persons is not None and folders.labels is not None:
        return InstanceFolders(parts, folders.persons, folders.labels)
    if parts is None:
        raise InputError(
            f"the folder {root} holds {'not' if from_maps else 'neither Instance_ids/ nor'} both "
            "Category_ids/ and Human_ids/: give --gt the folder that CIHP unpacks to, or its "
            f"{SPLIT} folder"
        )
    # Without either map there are no label maps of persons to compare.
    return InstanceFolders(parts)


def find_prediction(root: Path) -> InstanceFolders:
    """Find the folders of a prediction: part instances, or classes and persons, or all three.

    Args:
        root: a folder that holds them, such as an unpacked submission to CIHP's server, or itself
            a folder of part instances with their lists.

    Raises:
        InputError: the folder does not exist, holds none of this, or several names of the same.
    """
    _require_folder(root, "--pred")
    folders = _find(root, PREDICTION_NAMES, "--pred")
    if folders == InstanceFolders():
        folders = InstanceFolders(parts=root if _files(root, ".png") else None)
    if folders.parts is None and not folders.has_persons:
        raise InputError(
            f"the folder {root} holds neither instance_parsing/ nor both global_parsing/ and "
            "instance_segmentation/: give --pred the folder that holds them, or a folder of part "
            "instances (.png) with their lists (.txt)"
        )
    # The lists of part instances tell the classes already.
    return folders if folders.parts is None else InstanceFolders(folders.parts, folders.persons)


def pair_images(truth: InstanceFolders, prediction: InstanceFolders) -> list[ImageTask]:
    """List the images of the ground truth, by name, with their predictions.

    Args:
        truth: its folders.
        prediction: its folders.

    Raises:
        InputError: there is no image, or a file is missing or one too many; it is named.
    """
    reference = truth.parts or truth.labels
    assert reference is not None, "find_truth gives one of them"
    names = sorted(_files(reference, ".png"))
    if not names:
        raise InputError(f"the folder {reference} holds no PNG: give --gt the folder of CIHP's own")
    true_files = {
        role: _of_images(folder, names, reference) for role, folder in truth.by_role.items()
    }
    predicted = {
        role: _of_images(folder, names, reference) for role, folder in prediction.by_role.items()
    }
    true_lists = {} if truth.parts is None else _files(truth.parts, ".txt")
    if truth.parts is not None and true_lists:
        _require_same(truth.parts, ".txt", set(true_lists), names, truth.parts)
    lists = {
        role: _lists(folder, names)
        for role, folder in (("parts", prediction.parts), ("persons", prediction.persons))
        if folder is not None
    }
    return [
        ImageTask(
            _image_files(name, true_files, {"parts": true_lists}),
            _image_files(name, predicted, lists),
        )
        for name in names
    ]


def _require_folder(root: Path, option: str) -> None:
    if not root.is_dir():
        raise InputError(f"{option} {root} is not a folder: give the one that holds the PNGs")


def _find(root: Path, names: Mapping[str, Sequence[str]], option: str) -> InstanceFolders:
    found: dict[str, Path] = {}
    for role, candidates in names.items():
        there = [root / name for name in candidates if (root / name).is_dir()]
        if len(there) > 1:
            raise InputError(
                f"{there[0]} and {there[1]} may both be the {role} of {option} {root}: leave one"
            )
        if there:
            found[role] = there[0]
    return InstanceFolders(**found)


def _files(folder: Path, ending: str) -> dict[str, Path]:
    """Map a folder's files of one ending by their name without it; hidden ones are passed over.

    Raises:
        InputError: two differ in their ending's case only.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() != ending or path.name.startswith("."):
            continue
        if path.stem in found:
            raise InputError(f"{found[path.stem]} and {path} are of one image: remove one")
        found[path.stem] = path
    return found


def _of_images(folder: Path, names: Sequence[str], reference: Path) -> dict[str, Path]:
    files = _files(folder, ".png")
    _require_same(folder, ".png", set(files), names, reference)
    return files


def _lists(folder: Path, names: Sequence[str]) -> dict[str, Path]:
    files = _files(folder, ".txt")
    _require_same(folder, ".txt", set(files), names, folder)
    return files


def _require_same(
    folder: Path, ending: str, found: set[str], names: Sequence[str], reference: Path
) -> None:
    """Refuse a folder that lacks files of images, or has files of none."""
    missing, extra = sorted(set(names) - found), sorted(found - set(names))
    if missing:
        raise InputError(
            f"the folder {folder} lacks {_some(missing, ending)}, whose PNGs are in {reference}: "
            "every image of the ground truth needs its files (an empty list and an empty map "
            "where nothing was found)"
        )
    if extra:
        raise InputError(
            f"the folder {folder} holds {_some(extra, ending)}, but {reference} has no such PNG: "
            "take the ground truth of the same images, or remove the files"
        )


def _some(names: Sequence[str], ending: str) -> str:
    shown = ", ".join(f"{name}{ending}" for name in names[:_NAMED_FILES])
    return shown if len(names) <= _NAMED_FILES else f"{shown} and {len(names) - _NAMED_FILES} more"


def _image_files(
    name: str, files: Mapping[str, Mapping[str, Path]], lists: Mapping[str, Mapping[str, Path]]
) -> ImageFiles:
    def one(of: Mapping[str, Mapping[str, Path]], role: str) -> Path | None:
        return of.get(role, {}).get(name)

    return ImageFiles(
        parts=one(files, "parts"),
        part_list=one(lists, "parts"),
        persons=one(files, "persons"),
        person_list=one(lists, "persons"),
        labels=one(files, "labels"),
    )
