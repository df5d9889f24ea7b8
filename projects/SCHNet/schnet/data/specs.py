"""What each data set is: labels, and where its official download puts images and label maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from schnet.data.labels import (
    ATR_LABELS,
    ATR_MIRROR_PAIRS,
    CCP_LABELS,
    CIHP_CLASSES,
    IGNORE_LABEL,
    LIP_CLASSES,
    LIP_MIRROR_PAIRS,
    LIP_PALETTE,
    PHRASES,
    PPP_LABELS,
    Color,
)

SPLITS = ("train", "val")
TEST_SPLIT = "test"


@dataclass(frozen=True)
class SplitLayout:
    """Where one split's files may lie, each a list of candidates below the data set's folder.

    The first candidate that exists is taken; the last is the path without any nesting.

    Attributes:
        image_dirs: folders of the photos; none where only an index tells what belongs together.
        label_dirs: folders of the index PNGs; none where the labels are not published.
        id_lists: text files with one image id (file name without ending) a line.
        shared: the split shares its folders with the other one, so that only an id list can tell
            them apart and 'all images' would train on the validation set.
    """

    image_dirs: tuple[str, ...]
    label_dirs: tuple[str, ...]
    id_lists: tuple[str, ...]
    shared: bool = False


@dataclass(frozen=True)
class DatasetSpec:
    """One data set.

    Attributes:
        name: name that `<name>_<split>` is registered under.
        folder: its folder below the root.
        classes: class names; their position is their label value.
        palette: one (red, green, blue) in 0..255 a class.
        mirror_pairs: label values that change places when an image is mirrored.
        prompts: one or more noun phrases a class, for CLIP.
        layout: where each split's files lie.
        remedy: what to do when the files are not there, as the end of a sentence.
        ignore_label: label value that no class has and no metric counts.
        official_counts: number of images of each split, as published.
        refuse_colors: label maps whose three channels differ are refused; where not, the first
            channel counts, as in published data sets.
    """

    name: str
    folder: str
    classes: tuple[str, ...]
    palette: tuple[Color, ...]
    mirror_pairs: tuple[tuple[int, int], ...]
    prompts: tuple[tuple[str, ...], ...]
    layout: dict[str, SplitLayout]
    remedy: str
    ignore_label: int = IGNORE_LABEL
    official_counts: Mapping[str, int] = field(default_factory=dict)
    refuse_colors: bool = False

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits, training first."""
        return tuple(self.layout)

    @property
    def index_only(self) -> bool:
        """Whether the data set is never read from folders, but by its script's indexes alone."""
        return not any(layout.image_dirs for layout in self.layout.values())


def _nested(prefixes: Sequence[str], path: str) -> tuple[str, ...]:
    """Candidates for a path that archives unpack below any of the prefixes, or below none."""
    return (*(f"{prefix}/{path}" for prefix in prefixes), path)


def _lip_layout() -> dict[str, SplitLayout]:
    photos = ("TrainVal_images/TrainVal_images", "TrainVal_images")
    labels = (
        "TrainVal_parsing_annotations/TrainVal_parsing_annotations",
        "TrainVal_parsing_annotations",
    )
    return {
        split: SplitLayout(
            image_dirs=_nested(photos, f"{split}_images"),
            # Not `{split}_segmentations_reversed`: those are mirrored already.
            label_dirs=_nested(labels, f"{split}_segmentations"),
            id_lists=_nested((*photos, *labels), f"{split}_id.txt"),
        )
        for split in SPLITS
    }


def _lip_test_layout() -> dict[str, SplitLayout]:
    prefixes = ("Testing_images/Testing_images", "Testing_images")
    images = _nested(prefixes, "testing_images")
    return {TEST_SPLIT: SplitLayout(images, (), _nested(prefixes, "test_id.txt"))}


def _cihp_layout() -> dict[str, SplitLayout]:
    archive = "instance-level_human_parsing"
    prefixes = (f"{archive}/{archive}", archive)
    layout = {}
    folders = (("train", "Training"), ("val", "Validation"), (TEST_SPLIT, "Testing"))
    for split, folder in folders:
        ids = f"{split}_id.txt"
        labels = _nested(prefixes, f"{folder}/Category_ids")
        layout[split] = SplitLayout(
            image_dirs=_nested(prefixes, f"{folder}/Images"),
            # Not `Categories`: those are colours for people to look at.
            label_dirs=() if split == TEST_SPLIT else labels,
            id_lists=(*_nested(prefixes, f"{folder}/{ids}"), *_nested(prefixes, ids)),
        )
    return layout


def _shared_layout(
    prefixes: Sequence[str],
    image_dir: str,
    label_dirs: tuple[str, ...],
    splits: Sequence[str] = SPLITS,
) -> dict[str, SplitLayout]:
    return {
        split: SplitLayout(
            image_dirs=_nested(prefixes, image_dir),
            label_dirs=label_dirs,
            id_lists=_nested(prefixes, f"{split}_id.txt"),
            shared=True,
        )
        for split in splits
    }


def _phrases(classes: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    return tuple(PHRASES[name.lower()] for name in classes)


def _lip_like(
    name: str,
    classes: tuple[str, ...],
    layout: dict[str, SplitLayout],
    remedy: str,
    official_counts: Mapping[str, int],
) -> DatasetSpec:
    return DatasetSpec(
        name=name,
        folder=name,
        classes=classes,
        palette=LIP_PALETTE,
        mirror_pairs=LIP_MIRROR_PAIRS,
        prompts=_phrases(classes),
        layout=layout,
        remedy=remedy,
        official_counts=official_counts,
    )


def _colored(
    name: str,
    labels: dict[str, Color],
    layout: dict[str, SplitLayout],
    remedy: str,
    official_counts: Mapping[str, int],
    mirror_pairs: tuple[tuple[int, int], ...] = (),
) -> DatasetSpec:
    return DatasetSpec(
        name=name,
        folder=name,
        classes=tuple(labels),
        palette=tuple(labels.values()),
        mirror_pairs=mirror_pairs,
        prompts=_phrases(tuple(labels)),
        layout=layout,
        remedy=remedy,
        official_counts=official_counts,
    )


_UNPACK = "run datasets/prepare_{}.py, or unpack the official download there"

SPECS: dict[str, DatasetSpec] = {
    spec.name: spec
    for spec in (
        _lip_like(
            "lip",
            LIP_CLASSES,
            {**_lip_layout(), **_lip_test_layout()},
            _UNPACK.format("lip"),
            {"train": 30462, "val": 10000, TEST_SPLIT: 10000},
        ),
        _lip_like(
            "cihp",
            CIHP_CLASSES,
            _cihp_layout(),
            _UNPACK.format("cihp"),
            {"train": 28280, "val": 5000, TEST_SPLIT: 5000},
        ),
        # Others' label maps lie in the same folders in another order: a tree would mislead.
        _colored(
            "ppp",
            PPP_LABELS,
            {split: SplitLayout((), (), (f"{split}_id.txt",), shared=True) for split in SPLITS},
            "run datasets/prepare_pascal_person_part.py",
            {"train": 1716, "val": 1817},
        ),
        _colored(
            "atr",
            ATR_LABELS,
            _shared_layout(
                ("humanparsing",),
                "JPEGImages",
                _nested(("humanparsing",), "SegmentationClassAug"),
                (*SPLITS, TEST_SPLIT),
            ),
            f"{_UNPACK.format('atr')} with its id lists",
            # The usual numbers; the 17 706 images come without lists.
            {"train": 16000, "val": 700, TEST_SPLIT: 1006},
            ATR_MIRROR_PAIRS,
        ),
        _colored(
            "ccp",
            CCP_LABELS,
            _shared_layout((), "photos", ("labels",)),
            "run datasets/prepare_ccp.py",
            # 1004 images with pixel labels; the split is ours.
            {"train": 803, "val": 201},
        ),
        _lip_like("dolls", LIP_CLASSES, _lip_layout(), "run datasets/make_paper_dolls.py", {}),
    )
}
"""Every data set that `register_datasets` knows, by name."""
