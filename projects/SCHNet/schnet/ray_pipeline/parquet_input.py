"""Parquet files of photos as the input of a job."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schnet.data.file_names import unreadable_folder
from schnet.errors import InputError
from schnet.ray_pipeline.photo_source import InputFile, PhotoBytes, ReadUnit, Stretch, is_text

ENDING = ".parquet"
READ_ROWS = 16
READ_BUFFER = 1 << 20
"""Bytes of a column that are read at a time; without it a row group of photos is read whole."""


class ParquetInput:
    """Photos in the rows of Parquet files, in the order of the files' names."""

    def __init__(
        self, path: str | os.PathLike[str], id_column: str = "id", image_column: str = "image"
    ) -> None:
        """Read the files' footers and the column of ids, which is held in memory meanwhile.

        Args:
            path: a file, or a folder of `.parquet` files at all depths; names that begin with `.`
                or `_` are passed over, as all readers of Parquet do.
            id_column: of texts or whole numbers; no two photos may share one.
            image_column: of an image file's bytes, or of a struct with them in a field `bytes`, as
                Hugging Face's data sets have it.

        Raises:
            InputError: a file cannot be read or lacks a column, there is no row, or an id is
                missing or there twice.
        """
        given = Path(path).resolve()
        self.root = given if given.is_dir() else given.parent
        self.id_column, self.image_column = id_column, image_column
        self.photos = 0
        # Of each row group: its first photo, file, place in the file, rows.
        self._groups: list[tuple[int, str, int, int]] = []
        self.files: tuple[InputFile, ...] = tuple(
            self._opened(file) for file in ([given] if given.is_file() else _found(given))
        )
        if not self.photos:
            raise InputError(f"{path} holds no row: give Parquet files of photos")
        self._require_unique()

    def describe(self) -> dict[str, str]:
        """See `PhotoSource.describe`."""
        own = {"id column": self.id_column, "image column": self.image_column}
        return {"kind": "parquet", **own}

    def units(self, wanted: Sequence[Stretch]) -> Iterator[ReadUnit]:
        """See `PhotoSource.units`; a unit is a row group, since nothing less can be found."""
        waiting = list(reversed(wanted))
        for first, name, group, rows in self._groups:
            stretches = []
            while waiting and waiting[-1][0] < first + rows:
                start, stop = waiting.pop()
                stretches.append((start, min(stop, first + rows)))
                if stop > first + rows:
                    waiting.append((first + rows, stop))
            if stretches:
                columns = (self.id_column, self.image_column)
                root, names = str(self.root), (name,)
                yield ReadUnit(first, root, names, tuple(stretches), group, *columns)

    def _opened(self, path: Path) -> InputFile:
        """Look at one file, and note its row groups."""
        name = path.relative_to(self.root).as_posix()
        if not is_text(name):
            raise InputError(f"the file name {name!r} is no Unicode: rename the file")
        try:
            with pq.ParquetFile(path) as file:
                schema, metadata = file.schema_arrow, file.metadata
        except (OSError, pa.ArrowException) as error:
            raise InputError(
                f"{path} cannot be read as Parquet ({_first_line(error)}): replace the file or "
                "take it out of the folder"
            ) from None
        self._require_columns(path, schema)
        for group in range(metadata.num_row_groups):
            rows = metadata.row_group(group).num_rows
            self._groups.append((self.photos, name, group, rows))
            self.photos += rows
        stat = path.stat()
        return InputFile(name, stat.st_size, stat.st_mtime_ns, metadata.num_rows)

    def _require_columns(self, path: Path, schema: pa.Schema) -> None:
        named = {self.id_column: "--id-column", self.image_column: "--image-column"}
        for column, option in named.items():
            if column not in schema.names:
                raise InputError(
                    f"{path} has no column {column!r}: give one of {', '.join(schema.names)} as "
                    f"{option}"
                )
        id_type, image = schema.field(self.id_column).type, schema.field(self.image_column).type
        if not (pa.types.is_integer(id_type) or _is_text_type(id_type)):
            raise InputError(
                f"the column {self.id_column!r} of {path} holds {id_type}: give one of texts or "
                "whole numbers as --id-column"
            )
        if pa.types.is_struct(image) and image.get_field_index("bytes") >= 0:
            image = image.field("bytes").type
        if not (pa.types.is_binary(image) or pa.types.is_large_binary(image)):
            raise InputError(
                f"the column {self.image_column!r} of {path} holds {image}: give one of bytes as "
                "--image-column"
            )

    def _require_unique(self) -> None:
        read = [
            pq.read_table(self.root / file.name, columns=[self.id_column]).column(0)
            for file in self.files
        ]
        for file, column in zip(self.files, read, strict=True):
            if column.null_count:
                raise InputError(
                    f"{self.root / file.name} has {column.null_count} rows without a value in "
                    f"{self.id_column!r}: give each photo an id"
                )
        ids = pa.chunked_array([chunk for c in read for chunk in c.cast(pa.large_string()).chunks])
        if pc.count_distinct(ids).as_py() == len(ids):
            return
        counted = pc.value_counts(ids)
        twice = counted.filter(pc.greater(counted.field("counts"), 1)).field("values")
        which = [
            file.name
            for file, column in zip(self.files, read, strict=True)
            if pc.any(pc.equal(column.cast(pa.large_string()), twice[0])).as_py()
        ]
        raise InputError(
            f"{len(twice)} ids are in {self.root} more than once, the first is "
            f"{twice[0].as_py()!r} (in {' and '.join(which[:2])}): give each photo an id of its "
            "own, or leave the copies out"
        )


def read_parquet_unit(unit: ReadUnit) -> Iterator[PhotoBytes]:
    """Read the wanted rows of a row group, a few at a time.

    Yields:
        Each photo; one without bytes has an error.
    """
    path = os.path.join(unit.root, unit.names[0])
    with pq.ParquetFile(path, buffer_size=READ_BUFFER) as file:
        number = unit.first
        for batch in file.iter_batches(
            READ_ROWS, row_groups=[unit.row_group], columns=[unit.id_column, unit.image_column]
        ):
            for start, stop in unit.stretches:
                low, high = max(start, number), min(stop, number + len(batch))
                if low < high:
                    yield from _photos(batch.slice(low - number, high - low), low, unit)
            number += len(batch)


def _photos(batch: pa.RecordBatch, first: int, unit: ReadUnit) -> Iterator[PhotoBytes]:
    ids = batch.column(unit.id_column).cast(pa.large_string())
    images = batch.column(unit.image_column)
    for offset in range(len(batch)):
        name, value = ids[offset].as_py(), images[offset].as_py()
        data = value.get("bytes") if isinstance(value, dict) else value
        error = "" if data else f"the image {name} has no bytes in {unit.image_column!r}"
        yield PhotoBytes(first + offset, name, data or None, error)


def first_parquet(folder: Path) -> Path | None:
    """A Parquet file of a folder; None where there is none."""
    return next(_below(folder), None)


def _found(root: Path) -> list[Path]:
    return sorted(_below(root), key=lambda path: path.relative_to(root).as_posix())


def _below(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root, onerror=_refuse):
        folders[:] = [name for name in folders if name[0] not in "._"]
        for name in names:
            if name.lower().endswith(ENDING) and name[0] not in "._":
                yield Path(folder, name)


def _refuse(error: OSError) -> None:
    raise unreadable_folder(error) from None


def _is_text_type(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
