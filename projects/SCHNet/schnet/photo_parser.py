"""What every engine's parser does: photos of any kind in, in batches; parsings out, in order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import overload

from schnet.parsing import ByteArray, Color, Parsing
from schnet.photo_input import Photo, as_rgb


class PhotoParser(ABC):
    """Parses photos, one or many; the engines below it parse arrays.

    Attributes:
        classes: K names, in label order.
        palette: K colours (r, g, b) in 0..255.
        batch_size: photos that are run together where nothing else is asked for.
    """

    def __init__(
        self, classes: Sequence[str], palette: Sequence[Color], batch_size: int = 1
    ) -> None:
        """Take what is known of the labels, and the usual batch."""
        self.classes = tuple(classes)
        self.palette: tuple[Color, ...] = tuple((int(r), int(g), int(b)) for r, g, b in palette)
        self.batch_size = batch_size

    @overload
    def __call__(self, photos: list[Photo], *, probabilities: bool = ...) -> list[Parsing]: ...
    @overload
    def __call__(self, photos: Photo, *, probabilities: bool = ...) -> Parsing: ...
    def __call__(
        self, photos: Photo | list[Photo], *, probabilities: bool = False
    ) -> Parsing | list[Parsing]:
        """Parse a photo, or a list of them.

        Args:
            photos: what `schnet.photo_input.as_rgb` takes, or a list of such, of any sizes.
            probabilities: make them in the same pass, rather than in another when asked for.

        Returns:
            The parsing, at the upright photo's size; for a list a list, in its order.

        Raises:
            InputError: a file cannot be read.
            ValueError, TypeError: an array is no image, see `as_rgb`.
        """
        if isinstance(photos, (list, tuple)):
            return list(self.stream(photos, probabilities=probabilities))
        return self.parse_arrays([as_rgb(photos)], probabilities)[0]

    def stream(
        self,
        photos: Iterable[Photo],
        *,
        batch_size: int | None = None,
        probabilities: bool = False,
        keep_images: bool = True,
    ) -> Iterator[Parsing]:
        """Parse photos one batch after the other; no more than a batch is in memory.

        Args:
            photos: what `as_rgb` takes.
            batch_size: photos that are run together; None takes the engine's.
            probabilities: make them in the same pass.
            keep_images: let each parsing keep its photo, to draw on.

        Yields:
            A parsing for each photo, in order. Without its photo it has no probabilities but those
            that were made in the same pass.

        Raises:
            ValueError: the batch size is below 1.
            InputError, TypeError: a photo cannot be read, see `as_rgb`.
        """
        size = self.batch_size if batch_size is None else batch_size
        if size < 1:
            raise ValueError(f"the batch size is {size}: give 1 or more")
        waiting = map(as_rgb, photos)
        while images := list(islice(waiting, size)):
            found = self.parse_arrays(images, probabilities)
            # Only what the caller keeps is in memory when the next batch is read.
            images.clear()
            found.reverse()
            while found:
                yield _kept(found.pop(), keep_images, probabilities)

    @abstractmethod
    def parse_arrays(
        self, images: Sequence[ByteArray], probabilities: bool = False
    ) -> list[Parsing]:
        """Parse a batch of upright photos.

        Args:
            images: each (H, W, 3), uint8, RGB, contiguous; of any sizes.
            probabilities: make them now.

        Returns:
            One parsing a photo, in order, equal to that of the photo alone.
        """


def _kept(parsing: Parsing, keep_image: bool, keep_scores: bool) -> Parsing:
    """A parsing without its photo, which what makes probabilities later would hold too."""
    if keep_image:
        return parsing
    return replace(parsing, image=None, scores=parsing.scores if keep_scores else None)
