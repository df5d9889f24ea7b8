"""Prepare Pascal-Person-Part (PPP): from Pascal-Part's annotations or others' PNGs to indexes.

    python datasets/prepare_pascal_person_part.py --source DOWNLOADS/VOCdevkit DOWNLOADS/trainval
    python datasets/prepare_pascal_person_part.py --source DOWNLOADS/VOCdevkit --labels OTHERS.zip

The source holds VOC2010's `JPEGImages` and Pascal-Part's `Annotations_Part/*.mat`, at any depth;
both come as tar files, to be unpacked first. The parts of persons are merged into the six of PPP
(`PART_GROUPS` in `schnet.data.preparation.pascal_part`); images that show none are dropped. With
`--labels` the label maps are PNGs that others have merged. These are numbered in one of two orders:
ours (1 Head, 2 Torso, 3 Upper-arm, ...) or the redistributed one (1 Lower-arm, 2 Head, 3 Upper-leg,
4 Torso, 5 Lower-leg, 6 Upper-arm), which is detected, or refused where the maps do not tell it;
`--label-order` settles it.

The splits come from `train_id.txt` and `val_id.txt` where the source has them, else from VOC's
`ImageSets/Main/{train,val}.txt`: the published 1716 and 1817 images are those of VOC2010's lists
that show a part of a person. Written are `labels/*.png` in our order, `train.json` and `val.json`.
Photos are not copied, but out of zip files. The source is never changed, and a second run works
only on what is new.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from tqdm import tqdm

from schnet.data.labels import IGNORE_LABEL
from schnet.data.preparation.command import prepare, prepare_parser, read_options
from schnet.data.preparation.official import find_ids, require_folder
from schnet.data.preparation.part_order import (
    NO_EVIDENCE,
    ORDERS,
    OrderEvidence,
    collect_evidence,
    decide_order,
    order_table,
)
from schnet.data.preparation.pascal_part import PART_GROUPS, read_person_parts
from schnet.data.preparation.sources import SourceFile, SourceFolder, SourceTree, open_source
from schnet.data.preparation.splits import (
    IMAGE_ENDINGS,
    SplitFiles,
    check_target,
    files_by_id,
    parse_ids,
)
from schnet.data.reading import UInt8Array, decode_label
from schnet.data.specs import SPECS
from schnet.errors import InputError, exit_on_input_error

SPEC = SPECS["ppp"]
ANNOTATIONS = "Annotations_Part"
ANNOTATION_ENDINGS, LABEL_ENDINGS = (".mat",), (".png",)
VOC_LISTS = ("VOC2010/ImageSets/Main", "ImageSets/Main")
VOC_PHOTOS = ("VOC2010/JPEGImages", "JPEGImages")
# A redistribution in CIHP's manner, which calls the validation split so.
SPLIT_FOLDERS = {"train": "Training/Images", "val": "Testing/Images"}
TAR_ENDINGS = (".tar", ".tgz", ".gz", ".bz2", ".xz")
# The order is the same in all maps: so many, evenly spread, tell it in seconds.
ORDER_SAMPLE = 500


@dataclass(frozen=True)
class Labels:
    """The label files of a download.

    Attributes:
        folder: all of them, by file name.
        endings: of their names.
        redistributed: they are PNGs of others.
    """

    folder: SourceFolder
    endings: tuple[str, ...]
    redistributed: bool

    @property
    def by_id(self) -> dict[str, SourceFile]:
        """The files by image id."""
        return files_by_id(self.folder, self.endings)


def renumber(data: bytes, path: str, order: str) -> UInt8Array | None:
    """Read a PNG of others in our order; a `LabelConverter` once the order is given.

    Args:
        data: the file's bytes.
        path: where they come from, for messages.
        order: a key of `ORDERS`.

    Returns:
        uint8 (H, W), values that the order does not know as they are; None where no part is shown.

    Raises:
        InputError: the file is no image or damaged.
    """
    labels = order_table(order)[decode_label(data, path)]
    return labels if ((labels > 0) & (labels != IGNORE_LABEL)).any() else None


def find_labels(tree: SourceTree, given: SourceTree | None) -> Labels:
    """Find Pascal-Part's annotations or, where they are given, others' PNGs, at any depth.

    Args:
        tree: the download.
        given: what `--labels` names.

    Raises:
        InputError: there are none, or two PNGs are of one image.
    """
    if given is None:
        purpose = "Pascal-Part's annotations (for label PNGs of others, give --labels their folder)"
        return Labels(require_folder(tree, ANNOTATIONS, purpose), ANNOTATION_ENDINGS, False)
    files: dict[str, SourceFile] = {}
    for folder in given.folders:
        for file in files_by_id(folder, LABEL_ENDINGS).values():
            name = file.name.rsplit("/", 1)[-1]
            if name in files:
                raise InputError(
                    f"both {files[name].path} and {file.path} may be the label map {name}: give "
                    "--labels the folder that is meant"
                )
            files[name] = file
    if not files:
        raise InputError(f"--labels {given} holds no PNG: give the folder of the label maps")
    first = given.folders[0]
    return Labels(replace(first, files=files), LABEL_ENDINGS, True)


def find_splits(
    tree: SourceTree, given: SourceTree | None, labels: Labels
) -> tuple[dict[str, SplitFiles], str]:
    """Find the photos and the splits.

    Args:
        tree: the download.
        given: what `--labels` names; id lists may lie there too.
        labels: the label files.

    Returns:
        The splits, and where they come from.

    Raises:
        InputError: a folder or an id list is missing.
    """
    photos = {split: _find_photos(tree, split) for split in SPEC.layout}
    ids, origin = _find_lists(tree, given)
    if ids is None and photos["train"].path != photos["val"].path:
        ids = {split: tuple(files_by_id(own, IMAGE_ENDINGS)) for split, own in photos.items()}
        origin = "the source's folders"
    if ids is None:
        raise InputError(
            f"the source {tree} has neither train_id.txt and val_id.txt nor a folder "
            f"{VOC_LISTS[-1]}/ with train.txt and val.txt, without which the splits cannot be told "
            "apart: give VOC2010's folder to --source as well"
        )
    if labels.redistributed:
        # Only images with a part have a PNG; VOC's lists name all others too.
        ids = {
            split: tuple(name for name in own if name in labels.by_id) for split, own in ids.items()
        }
    splits = {
        split: SplitFiles(photos[split], labels.folder, ids[split], labels.endings) for split in ids
    }
    return splits, origin


def _find_photos(tree: SourceTree, split: str) -> SourceFolder:
    folder = tree.find_folder([SPLIT_FOLDERS[split], *VOC_PHOTOS])
    return folder or require_folder(tree, VOC_PHOTOS[-1], "VOC2010's photos")


def _find_lists(
    tree: SourceTree, given: SourceTree | None
) -> tuple[dict[str, tuple[str, ...]] | None, str]:
    """Read the published id lists, else VOC's own; None where there are neither."""
    for place in (tree, given):
        lists = {} if place is None else {s: find_ids(place, own) for s, own in SPEC.layout.items()}
        found = {split: ids for split, ids in lists.items() if ids is not None}
        if len(found) == len(SPEC.layout):
            return found, f"train_id.txt and val_id.txt in {place}"
        if found:
            raise InputError(
                f"{place} has the id list of {', '.join(found)} alone: put both train_id.txt and "
                "val_id.txt there, or neither to take VOC's own lists"
            )
    voc = tree.find_folder(VOC_LISTS)
    names = [f"{split}.txt" for split in SPEC.layout]
    if voc is None or not set(names) <= set(voc.files):
        return None, ""
    texts = [voc.files[name].read("id list").decode("utf-8", "replace") for name in names]
    ids = {split: parse_ids(text) for split, text in zip(SPEC.layout, texts, strict=True)}
    return ids, f"{voc.path}, images without a part of a person dropped"


def find_order(labels: Labels, tree: SourceTree, given: str | None) -> tuple[str, str]:
    """Settle which order others' PNGs have.

    Args:
        labels: the PNGs.
        tree: the download; where it has Pascal-Part's annotations, the PNGs are compared with them.
        given: what `--label-order` says.

    Returns:
        A key of `ORDERS`, and a sentence for the report.

    Raises:
        InputError: the maps do not tell it and it is not given.
    """
    evidence = _gather_evidence(labels.by_id, tree.find_folder([ANNOTATIONS]))
    try:
        decision = decide_order(evidence, labels.folder.path)
    except InputError:
        if given is None:
            raise
        return given, f"{given!r}, as --label-order says; the label maps do not tell it"
    if given is None:
        return decision.order, decision.reason
    if given == decision.order:
        return given, f"{given!r}, as --label-order and the label maps say"
    return given, f"{given!r}, as --label-order says, BUT the label maps say {decision.reason}"


def _gather_evidence(
    labels: Mapping[str, SourceFile], annotations: SourceFolder | None
) -> OrderEvidence:
    known = {} if annotations is None else files_by_id(annotations, ANNOTATION_ENDINGS)
    sample = sorted(labels)[:: -(-len(labels) // ORDER_SAMPLE)]
    evidence = NO_EVIDENCE
    for name in tqdm(sample, desc="label order", unit="image"):
        try:
            label_map = decode_label(labels[name].read("label map"), labels[name].path)
            file = known.get(name)
            truth = file and read_person_parts(file.read("annotation"), file.path)
            evidence += collect_evidence(label_map, truth)
        except InputError:
            # Damaged maps are named when their pair is checked; here there are others.
            continue
    return evidence


def prepare_ppp(namespace: argparse.Namespace) -> str:
    """Prepare Pascal-Person-Part.

    Args:
        namespace: the command line.

    Returns:
        The summary to print.

    Raises:
        InputError: the source is not PPP, its label order is open, the output lies in it, or too
            much is damaged.
    """
    tree = _open("--source", namespace.source)
    given = _open("--labels", namespace.labels) if namespace.labels else None
    options = read_options(namespace)
    if given is not None:
        check_target(options.output, given)
    labels = find_labels(tree, given)
    splits, origin = find_splits(tree, given, labels)
    notes = {"split": origin}
    if not labels.redistributed:
        groups = [f"{group}={','.join(members)}" for group, members in PART_GROUPS.items()]
        return prepare(
            SPEC, tree, splits, options, convert=read_person_parts, settings=groups, notes=notes
        )
    order, notes["label order"] = find_order(labels, tree, namespace.label_order)
    outside = set(labels.by_id).difference(*(files.ids or () for files in splits.values()))
    if outside:
        notes["label maps outside the split"] = f"{len(outside)}, not used"
    convert = partial(renumber, order=order)
    settings = [f"order={','.join(ORDERS[order])}"]
    return prepare(SPEC, tree, splits, options, convert=convert, settings=settings, notes=notes)


def _open(flag: str, paths: Sequence[Path]) -> SourceTree:
    for path in paths:
        if not path.exists():
            raise InputError(f"{flag} {path} does not exist: give a folder or a zip file")
        if path.is_file() and path.suffix.lower() in TAR_ENDINGS:
            raise InputError(
                f"{flag} {path} is a tar file, whose files cannot be reached one by one: unpack it "
                f"(tar -xf) and give {flag} the folder"
            )
    return open_source(paths)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prepare Pascal-Person-Part as the command line says and print the summary."""
    parser = prepare_parser(SPEC.name, "Prepare Pascal-Person-Part for SCHNet.")
    parser.add_argument(
        "--labels",
        type=Path,
        nargs="+",
        metavar="PATH",
        help="folder or zip file of label PNGs that others have merged; else Annotations_Part",
    )
    parser.add_argument(
        "--label-order",
        choices=tuple(ORDERS),
        help="the order that these PNGs are numbered in (default: detected)",
    )
    namespace = parser.parse_args(arguments)
    if namespace.label_order and not namespace.labels:
        parser.error("--label-order is for the PNGs of --labels, which is not given")
    sys.stdout.write(prepare_ppp(namespace) + "\n")


if __name__ == "__main__":
    with exit_on_input_error():
        main()
