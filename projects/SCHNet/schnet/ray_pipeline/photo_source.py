"""What photos come from, in an order that two runs agree on, and in pieces that tasks read."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Protocol

Stretch = tuple[int, int]
"""Photos from the first number up to, and without, the second."""


@dataclass(frozen=True)
class InputFile:
    """A file that photos come from, as it was when the job began.

    Attributes:
        name: path below the input folder, with forward slashes.
        size: in bytes.
        mtime_ns: time of the last change, in nanoseconds since 1970.
        photos: how many it holds.
    """

    name: str
    size: int
    mtime_ns: int
    photos: int = 1


@dataclass(frozen=True)
class PhotoBytes:
    """A photo as it was read, not decoded.

    Attributes:
        number: its place among all photos of the input, from 0.
        id: what its row is found by.
        data: the image file's bytes; None where there are none.
        error: why there are none, in a sentence.
    """

    number: int
    id: str
    data: bytes | None
    error: str = ""


@dataclass(frozen=True)
class ReadUnit:
    """What one task reads in one go.

    Attributes:
        first: number of its first photo.
        root: the input folder.
        names: photos, or one Parquet file.
        stretches: the numbers that are wanted; others are skipped.
        row_group: of the Parquet file; -1 where the names are photos.
        id_column: of the Parquet file.
        image_column: of the Parquet file.
    """

    first: int
    root: str
    names: tuple[str, ...]
    stretches: tuple[Stretch, ...] = field(default=())
    row_group: int = -1
    id_column: str = ""
    image_column: str = ""

    def dumps(self) -> str:
        """Write the unit as JSON, which any version of Ray carries."""
        return json.dumps(asdict(self))

    @classmethod
    def loads(cls, text: str) -> ReadUnit:
        """Read what `dumps` wrote."""
        content = json.loads(text)
        content["names"] = tuple(content["names"])
        content["stretches"] = tuple((start, stop) for start, stop in content["stretches"])
        return cls(**content)


class PhotoSource(Protocol):
    """Photos numbered from 0 in an order that depends on the input alone."""

    @property
    def files(self) -> Sequence[InputFile]:
        """The files, in the photos' order."""
        ...

    @property
    def photos(self) -> int:
        """How many photos there are."""
        ...

    def describe(self) -> dict[str, str]:
        """Kind and options, which a job that goes on must share."""
        ...

    def units(self, wanted: Sequence[Stretch]) -> Iterator[ReadUnit]:
        """Cut the wanted photos into what tasks read, in order."""
        ...


def is_text(name: str) -> bool:
    """Whether a file's name is Unicode, as the ids in Parquet must be."""
    try:
        name.encode(sys.getdefaultencoding())
    except UnicodeEncodeError:
        return False
    return True
