"""The parts of one photo, and what people do with them; needs NumPy, OpenCV and Pillow alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from schnet.data.label_maps import write_label_png
from schnet.data.sides import plain_name
from schnet.errors import InputError
from schnet.visualization import overlay

ByteArray = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]
Color = tuple[int, int, int]

UNDRAWN = 255
"""A label that no class has: pictures leave its pixels as they are."""

OVERLAY_ALPHA = 0.6


@dataclass(frozen=True, eq=False)
class Parsing:
    """The parts of one image.

    Attributes:
        labels: (H, W) uint8 at the size of the upright photo, values in 0..K-1; 255 where a remap
            left a pixel without a class.
        classes: K names; their position is their label.
        palette: K colours (r, g, b) in 0..255.
        image: the upright photo, (H, W, 3) uint8 RGB; None where only labels were kept.
        scores: makes the probabilities, (K, H, W) fp32, when they are asked for.
    """

    labels: ByteArray
    classes: tuple[str, ...]
    palette: tuple[Color, ...]
    image: ByteArray | None = field(default=None, repr=False)
    scores: Callable[[], FloatArray] | None = field(default=None, repr=False)

    @property
    def probabilities(self) -> FloatArray:
        """Probability of each label at each pixel, (K, H, W) fp32, 4 bytes x K x H x W.

        Made when first asked for, which costs another pass of the model unless the parser was
        called with `probabilities=True`; kept from then on.

        Raises:
            InputError: the parsing was copied to another process, or the engine has labels only.
        """
        held = self.__dict__.get("_probabilities")
        if held is None:
            if self.scores is None:
                raise InputError(
                    "this parsing has no probabilities: call the parser with probabilities=True, "
                    "in the process where they are needed"
                )
            held = self.scores()
            self.__dict__["_probabilities"] = held
        return held

    def mask(self, *names: str) -> npt.NDArray[np.bool_]:
        """Where any of some parts is.

        Args:
            names: of classes; upper and lower case, spaces, hyphens and underscores count as the
                same: `left arm` is `Left-arm`.

        Returns:
            (H, W) bool.

        Raises:
            InputError: no class has such a name.
        """
        wanted = [class_number(self.classes, name) for name in names]
        return np.isin(self.labels, wanted)

    def areas(self) -> dict[str, int]:
        """Pixels of each class, in label order; 0 where it is not in the photo.

        Pixels of the label 255, which a remap may leave without a class, are in none.
        """
        return dict(zip(self.classes, label_areas(self.labels, len(self.classes)), strict=True))

    def overlay(self, alpha: float = OVERLAY_ALPHA) -> ByteArray:
        """Lay the parts' colours over the photo; the background stays as it is.

        Args:
            alpha: weight of the colours, in [0, 1].

        Returns:
            (H, W, 3) uint8 RGB.

        Raises:
            InputError: the photo was not kept.
        """
        if self.image is None:
            raise InputError("this parsing has no photo to draw on: parse with keep_images=True")
        return overlay(self.image, self.drawn_labels(), self.palette, alpha, ignore_label=UNDRAWN)

    def drawn_labels(self) -> ByteArray:
        """The labels as they are drawn over the photo, (H, W): `UNDRAWN` for the background."""
        background = background_numbers(self.classes)
        return np.where(np.isin(self.labels, background), np.uint8(UNDRAWN), self.labels)

    def save_png(self, path: str | os.PathLike[str]) -> None:
        """Write the labels as an index PNG in the palette, atomically; pixel value = label."""
        write_label_png(path, self.labels, self.palette)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what cannot go to another process: the way back to the model."""
        return {**self.__dict__, "scores": None}


def label_areas(labels: ByteArray, known: int) -> list[int]:
    """Pixels of each label.

    Args:
        labels: (H, W) uint8, values in 0..known-1; 255 is of no class, and counted nowhere.
        known: K, how many labels there are.
    """
    return np.bincount(labels.ravel(), minlength=known)[:known].tolist()


def class_number(classes: tuple[str, ...], name: str) -> int:
    """Find a class by its name, or by another writing of it.

    Raises:
        InputError: no class, or more than one, is meant; the names are listed.
    """
    if name in classes:
        return classes.index(name)
    meant = [
        number for number, known in enumerate(classes) if plain_name(known) == plain_name(name)
    ]
    if len(meant) != 1:
        raise InputError(
            f"there is no class {name!r}: give one of {', '.join(classes)}"
            if not meant
            else f"{name!r} may be {' or '.join(classes[n] for n in meant)}: write one of them"
        )
    return meant[0]


def background_numbers(classes: tuple[str, ...]) -> list[int]:
    """Labels of the classes that are named background."""
    return [number for number, name in enumerate(classes) if plain_name(name) == "background"]
