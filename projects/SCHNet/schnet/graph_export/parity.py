"""How far an exported graph is from the model it was made of, measured on pictures."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

from schnet.errors import InputError
from schnet.graph_export.fitting import ByteArray, Fitted, fit_photo, labels_of
from schnet.graph_export.formats import RunGraph
from schnet.graph_export.metadata import GraphMetadata
from schnet.image_files import collect_images
from schnet.photo_input import as_rgb
from schnet.visualization import evenly_spaced

MOST_PHOTOS = 32
LEAST_AGREEMENT = 99.9
"""Percent of pixels whose label an fp32 export must have as the model has it."""

_MOST_REASON = 200
"""Characters of a runtime's own message in ours."""

_GENERATED_SIZES = ((480, 640), (640, 427), (333, 500), (700, 100))


@dataclass(frozen=True)
class Pictures:
    """What is compared on.

    Attributes:
        photos: each (H, W, 3), uint8, RGB.
        source: in words.
        unreadable: what was left out, and why.
    """

    photos: tuple[ByteArray, ...]
    source: str
    unreadable: tuple[str, ...] = ()


@dataclass(frozen=True)
class ParityRow:
    """One side of the comparison.

    Attributes:
        name: such as `onnx float32`.
        max_difference: of a logit, to the model's.
        mean_difference: of all logits.
        agreement: percent of the photos' pixels with the model's label.
        milliseconds: a picture, the median.
        bytes: of the file; of the model its weights'.
    """

    name: str
    max_difference: float
    mean_difference: float
    agreement: float
    milliseconds: float
    bytes: int


def load_pictures(folder: Path | None) -> Pictures:
    """Read the photos of a folder, at most `MOST_PHOTOS` evenly spaced; or make some up.

    Args:
        folder: None makes pictures of smooth noise.

    Raises:
        InputError: the folder holds no photo that can be read.
    """
    if folder is None:
        return Pictures(tuple(generated_pictures()), "generated pictures of smooth noise")
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}: give one with photos")
    files = collect_images([str(folder)])
    photos, unreadable = [], []
    for number in evenly_spaced(len(files), MOST_PHOTOS):
        try:
            photos.append(as_rgb(files[number]))
        except InputError as error:
            unreadable.append(str(error))
    if not photos:
        raise InputError(f"no photo in {folder} can be read: {unreadable[0]}")
    return Pictures(tuple(photos), f"photos of {folder}", tuple(unreadable))


def generated_pictures(seed: int = 0) -> Iterator[ByteArray]:
    """Pictures of smooth noise, of several sizes and shapes, (H, W, 3), uint8."""
    generator = np.random.default_rng(seed)
    for height, width in _GENERATED_SIZES:
        coarse = generator.integers(0, 256, (8, 6, 3)).astype(np.float32)
        smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        noise = generator.normal(0, 12, (height, width, 3))
        yield np.clip(smooth + noise, 0, 255).astype(np.uint8)


class Comparison:
    """The model's own logits and labels of some pictures, and how far others are from them."""

    def __init__(
        self, model: RunGraph, pictures: Pictures, metadata: GraphMetadata, model_bytes: int
    ) -> None:
        """Run the model.

        Args:
            model: the model itself, as it runs in torch.
            pictures: what it is shown.
            metadata: how they are fitted, and what becomes of the logits.
            model_bytes: of its weights.
        """
        self._metadata = metadata
        self._fitted = [fit_photo(photo, metadata) for photo in pictures.photos]
        self._logits, milliseconds = _run_all("torch", model, self._fitted)
        self._labels = self._labels_of(self._logits)
        self.own = ParityRow("torch float32", 0.0, 0.0, 100.0, milliseconds, model_bytes)

    def row(self, name: str, graph: RunGraph, size: int) -> ParityRow:
        """Run a graph on the same pictures.

        Args:
            name: what it is called in the report.
            graph: takes and gives what the model does.
            size: of its file, in bytes.

        Raises:
            InputError: a logit is not a number, or the graph fails.
        """
        try:
            logits, milliseconds = _run_all(name, graph, self._fitted)
        except Exception as error:  # each runtime has its own kinds
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:_MOST_REASON]
            raise InputError(
                f"the export as {name} cannot be run on the pictures ({reason}): it is not "
                "written; try --size H W or another --format"
            ) from error
        differences = [np.abs(a - b) for a, b in zip(logits, self._logits, strict=True)]
        equal = [a == b for a, b in zip(self._labels_of(logits), self._labels, strict=True)]
        return ParityRow(
            name,
            float(max(d.max() for d in differences)),
            float(np.concatenate([d.ravel() for d in differences]).mean(dtype=np.float64)),
            100 * sum(int(e.sum()) for e in equal) / sum(e.size for e in equal),
            milliseconds,
            size,
        )

    def _labels_of(self, logits: Sequence[np.ndarray]) -> list[ByteArray]:
        pairs = zip(logits, self._fitted, strict=True)
        return [labels_of(scores, fitted, self._metadata) for scores, fitted in pairs]


def _run_all(
    name: str, graph: RunGraph, inputs: Sequence[Fitted]
) -> tuple[list[np.ndarray], float]:
    """Logits (K, h, w) of each input, and the median milliseconds of one."""
    found, times = [], []
    warm: set[tuple[int, int]] = set()
    with torch.no_grad():
        for fitted in tqdm(inputs, desc=name, unit="photo", leave=False):
            image = torch.from_numpy(fitted.image)
            if fitted.padded not in warm:  # the first of a size makes plans and takes memory
                graph(image)
                warm.add(fitted.padded)
            start = time.perf_counter()
            logits = graph(image)
            times.append(time.perf_counter() - start)
            found.append(logits[0].numpy())
    return found, 1000 * float(np.median(times))


@dataclass(frozen=True)
class ParityReport:
    """All that was measured of one export.

    Attributes:
        file: name of the file.
        metadata: the graph's.
        pictures: what was compared on, in words.
        count: of pictures.
        threads: that both sides computed with.
        rows: the model's own first.
        versions: of the packages, by name.
    """

    file: str
    metadata: GraphMetadata
    pictures: str
    count: int
    threads: int
    rows: tuple[ParityRow, ...]
    versions: dict[str, str]

    def as_markdown(self) -> str:
        """A table and what it was measured on."""
        size = self.metadata.size
        seen = "any size, multiples of 16" if size is None else f"{size[0]} x {size[1]}"
        lines = [
            f"# Parity of {self.file}",
            "",
            "| | max logit difference | mean | labels that agree | ms a picture | MB |",
            "|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {row.name} | {row.max_difference:.2e} | {row.mean_difference:.2e} | "
            f"{row.agreement:.3f} % | {row.milliseconds:.1f} | {row.bytes / 1e6:.1f} |"
            for row in self.rows
        ]
        versions = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        return "\n".join(
            [
                *lines,
                "",
                f"Compared on {self.count} {self.pictures}, fitted into "
                f"{self.metadata.box[0]} x {self.metadata.box[1]} pixels (height x width); input "
                f"of the graph: {seen}; protocol {self.metadata.protocol}. Times are medians on "
                f"{platform.processor() or platform.machine()}, {self.threads} threads, one "
                f"picture at a time. MB of torch are its weights in memory. {versions}.",
                "",
            ]
        )

    def as_json(self) -> str:
        """The same, for programs."""
        return json.dumps(asdict(self), indent=2) + "\n"
