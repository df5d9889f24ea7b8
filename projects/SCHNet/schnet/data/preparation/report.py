"""What a preparation or validation found, as a table to print."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from tabulate import tabulate

from schnet.data.preparation.pairs import GOOD, PairStatus, count_labels
from schnet.data.preparation.splits import Results, problems
from schnet.data.specs import DatasetSpec


def report(spec: DatasetSpec, results: Results, notes: Mapping[str, str]) -> str:
    """Sum up what was found.

    Args:
        spec: the data set.
        results: of each split.
        notes: further lines, by what stands on their left.

    Returns:
        Lines: everything that is left out, by name; notes; counts a split against the official
        ones; image modes; and of each class its share of the labelled pixels and the number of
        images that show it.
    """
    left_out = [f"left out: {problem}" for found in results.values() for problem in problems(found)]
    lines = [f"{left}: {right}" for left, right in notes.items()]
    return "\n".join([*left_out, *lines, "", _counts(spec, results), "", _classes(spec, results)])


def _counts(spec: DatasetSpec, results: Results) -> str:
    rows: list[list[str]] = []

    def add(name: str, counts: Mapping[str, int | None]) -> None:
        cells = ["–" if count is None else f"{count:,}" for count in counts.values()]
        rows.append([name, *cells])

    add("images", {split: sum(r.has_image for r in found) for split, found in results.items()})
    add("label maps", {split: sum(r.has_label for r in found) for split, found in results.items()})
    statuses = {split: Counter(r.status for r in found) for split, found in results.items()}
    indexed = {split: sum(statuses[split][good] for good in GOOD) for split in results}
    add("pairs to use", indexed)
    official = {split: spec.official_counts.get(split) for split in results}
    if any(official.values()):
        add("official number of images", official)
        add("more or fewer than these", {s: _difference(indexed[s], official[s]) for s in results})
    for status in PairStatus:
        add(status.value, {split: statuses[split][status] for split in results})
    turned = {split: sum(r.turned for r in found) for split, found in results.items()}
    add("photos turned by their EXIF", turned)
    modes = {s: Counter(r.mode for r in found if r.mode) for s, found in results.items()}
    for mode in sorted(set().union(*modes.values())):
        add(f"photos of mode {mode}", {split: modes[split][mode] for split in results})
    return _table(["", *results], rows)


def _difference(count: int, official: int | None) -> int | None:
    return None if official is None else count - official


def _classes(spec: DatasetSpec, results: Results) -> str:
    headers = ["label"]
    columns = []
    for split, found in results.items():
        headers += [f"{split} pixels", "share", "images"]
        columns.append(count_labels(found, len(spec.classes)))
    rows = []
    for value, name in enumerate([*spec.classes, "ignored"]):
        label = value if value < len(spec.classes) else spec.ignore_label
        row = [f"{label:3d} {name}"]
        for pixels, images in columns:
            # Shares are of the labelled pixels, as class weights take them.
            labelled = max(1, int(pixels[:-1].sum()))
            row += [f"{pixels[value]:,}", f"{100 * pixels[value] / labelled:.3f} %"]
            row.append(f"{images[value]:,}")
        rows.append(row)
    return _table(headers, rows)


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    alignment = ["left", *["right"] * (len(headers) - 1)]
    # The numbers are formatted already; tabulate would take their commas and zeros off.
    text = tabulate(rows, headers, tablefmt="simple", colalign=alignment, disable_numparse=True)
    return str(text)
