"""What tasks and actors do with tables of photos; Ray calls them, and they know nothing of it.

Between them a row has `number`, `id`, `height`, `width`, `data` (pixels, then labels, then a PNG),
`areas`, `error` and `fatal`, which ends the job.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from schnet.data.label_maps import label_png
from schnet.data.reading import decode_upright, parse_image
from schnet.errors import InputError
from schnet.parsing import label_areas
from schnet.photo_parser import PhotoParser
from schnet.ray_pipeline.folder_input import read_folder_unit
from schnet.ray_pipeline.parquet_input import read_parquet_unit
from schnet.ray_pipeline.photo_source import PhotoBytes, ReadUnit

TABLE_BYTES = 64 << 20
"""Pixels that a table holds before it is handed on; a larger photo has one to itself."""

ROW_SCHEMA = pa.schema(
    [
        ("number", pa.int64()),
        ("id", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        # 64-bit offsets: the pixels of a few hundred photos are more than 2 GB.
        ("data", pa.large_binary()),
        ("areas", pa.list_(pa.int64())),
        ("error", pa.string()),
        ("fatal", pa.string()),
    ]
)

Row = dict[str, Any]


def read_photos(units: pa.Table) -> Iterator[pa.Table]:
    """Read and decode the photos of units, in tables of bounded size.

    Args:
        units: a column `unit` of `ReadUnit.dumps`.

    Yields:
        Rows with pixels, (height, width, 3) uint8 RGB, or with an error. Where the storage fails
        the last has `fatal`: it would be wrong to call the photos unreadable.
    """
    rows: list[Row] = []
    size = 0
    for row in _decoded(ReadUnit.loads(text) for text in units.column("unit").to_pylist()):
        rows.append(row)
        size += len(row["data"] or b"")
        if size >= TABLE_BYTES:
            yield _table(rows)
            rows, size = [], 0
    if rows:
        yield _table(rows)


class ParsePhotos:
    """Holds one model, and parses the photos that come."""

    def __init__(self, load: Callable[[], PhotoParser]) -> None:
        """Load the model; where it cannot be used, each row will say so, in one sentence."""
        self._parser: PhotoParser | None = None
        self._fault = ""
        try:
            self._parser = load()
        except InputError as error:
            self._fault = str(error)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Parse one batch.

        Args:
            table: rows of `read_photos`.

        Returns:
            The rows with labels, (height, width) uint8, in place of pixels; where the model is at
            fault, as one whose scores are NaN, they have `fatal` instead.
        """
        rows = table.to_pylist()
        if self._parser is None:
            return _fatal(rows, self._fault)
        good = [row for row in rows if row["data"] is not None]
        if good:
            # Copied, for torch takes no array that cannot be written to.
            images = [
                np.frombuffer(row["data"], np.uint8).reshape(row["height"], row["width"], 3).copy()
                for row in good
            ]
            try:
                parsings = self._parser.parse_arrays(images)
            except InputError as error:
                # Ray would raise another error, of another class, in the driver.
                return _fatal(rows, str(error))
            for row, parsing in zip(good, parsings, strict=True):
                row["data"] = np.ascontiguousarray(parsing.labels).tobytes()
        return _table(rows)


class EncodeLabels:
    """Writes label maps as index PNGs in a palette, and counts the pixels of each class."""

    def __init__(self, palette: tuple[tuple[int, int, int], ...]) -> None:
        """Take K colours (r, g, b) in 0..255."""
        self.palette = palette

    def __call__(self, table: pa.Table) -> pa.Table:
        """Encode the labels of `ParsePhotos`; rows without any pass."""
        rows = table.to_pylist()
        for row in rows:
            if row["data"] is not None:
                labels = np.frombuffer(row["data"], np.uint8).reshape(row["height"], row["width"])
                row["data"] = label_png(labels, self.palette)
                row["areas"] = label_areas(labels, len(self.palette))
        return _table(rows)


def _decoded(units: Iterable[ReadUnit]) -> Iterator[Row]:
    for unit in units:
        read = read_folder_unit if unit.row_group < 0 else read_parquet_unit
        try:
            yield from (_decode(photo) for photo in read(unit))
        except (OSError, pa.ArrowException) as error:
            told = f"{unit.root}/{unit.names[0]} and what follows cannot be read ({error})"
            fatal = f"{told}: see that the storage works, and start again with --resume"
            yield _row(unit.first, unit.names[0], fatal=fatal)


def _decode(photo: PhotoBytes) -> Row:
    if photo.data is None:
        return _row(photo.number, photo.id, error=photo.error)
    try:
        pixels = decode_upright(parse_image(photo.data, photo.id))
    except InputError as error:
        return _row(photo.number, photo.id, error=str(error))
    height, width, _ = pixels.shape
    return _row(photo.number, photo.id, height=height, width=width, data=pixels.tobytes())


def _fatal(rows: Iterable[Row], fault: str) -> pa.Table:
    return _table([_row(row["number"], row["id"], fatal=fault) for row in rows])


def _row(number: int, id: str, **known: Any) -> Row:
    return {**dict.fromkeys(ROW_SCHEMA.names), "number": number, "id": id, **known}


def _table(rows: list[Row]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=ROW_SCHEMA)
