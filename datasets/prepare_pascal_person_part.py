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
`ImageSets/Main/{train,val}.txt`: by our reading the published 1716 and 1817 images are those of
VOC2010's lists that show a part of a person, and the summary holds what is found against them.
Written are `labels/*.png` in our order, `train.json` and `val.json`. Photos are not copied, except
out of zip files. The source is never changed, and a second run works only on what is new.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tqdm import tqdm

from schnet.data.label_maps import decode_label
from schnet.data.labels import IGNORE_LABEL
from schnet.data.preparation.command import prepare, prepare_parser, read_options
from schnet.data.preparation.output import check_target
from schnet.data.preparation.part_order import (
    NO_EVIDENCE,
    ORDERS,
    OrderEvidence,
    collect_evidence,
    decide_order,
    order_table,
)
from schnet.data.preparation.pascal_part import PART_GROUPS, read_person_parts
from schnet.data.preparation.pascal_person_part_files import (
    ANNOTATION_ENDINGS,
    ANNOTATIONS,
    LabelFiles,
    find_annotations,
    find_pngs,
    find_splits,
)
from schnet.data.preparation.sources import SourceTree, open_source
from schnet.data.preparation.splits import files_by_id
from schnet.data.reading import UInt8Array
from schnet.data.specs import SPECS
from schnet.errors import InputError, exit_on_input_error

SPEC = SPECS["ppp"]
TAR_ENDINGS = (".tar", ".tgz", ".gz", ".bz2", ".xz")
# All maps of a set have one order: so many, evenly spread, tell it in seconds.
ORDER_SAMPLE = 500


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


def find_order(labels: LabelFiles, tree: SourceTree, given: str | None) -> tuple[str, str]:
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
    evidence = _gather_evidence(labels, tree)
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


def _gather_evidence(labels: LabelFiles, tree: SourceTree) -> OrderEvidence:
    folder = tree.find_folder([ANNOTATIONS])
    annotations = {} if folder is None else files_by_id(folder, ANNOTATION_ENDINGS)
    sample = list(labels.by_id.items())[:: -(-len(labels.by_id) // ORDER_SAMPLE)]
    evidence = NO_EVIDENCE
    for name, file in tqdm(sample, desc="label order", unit="image"):
        truth = None
        try:
            label_map = decode_label(file.read("label map"), file.path)
            if name in annotations:
                annotation = annotations[name]
                truth = read_person_parts(annotation.read("annotation"), annotation.path)
        except InputError:
            # A damaged map is named when its pair is checked; the others tell the order.
            continue
        evidence += collect_evidence(label_map, truth)
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
        check_target(options.output, given, (), ())
    labels = find_annotations(tree) if given is None else find_pngs(given)
    splits, origin = find_splits(tree, given, labels)
    notes = {"split": origin}
    if not labels.merged:
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
