"""A run's numbers as a table: a line an iteration, a column a metric."""

from __future__ import annotations

import csv
import io
import logging
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from detectron2.utils.events import get_event_storage

from schnet.data.files import atomic_path, name_in_errors
from schnet.engine.run_writer import RunWriter
from schnet.errors import InputError

logger = logging.getLogger(__name__)

INDEX_COLUMN = "iteration"
# A table with this column is one of ours, and no file of the user's. It is there from the first
# line on, also where the first steps were skipped and had no loss.
OWN_COLUMN = "total_loss"

Row = list[str]


class CsvWriter(RunWriter):
    """Writes `metrics.csv`: the numbers of `metrics.json`, for a spreadsheet.

    The first column is the iteration; others are added at the right when their metric first has a
    value. Lines are appended; a new column rewrites the file in one piece. Cells without a value
    are empty.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Take the file, which need not exist.

        Args:
            path: of the table.

        Raises:
            InputError: there is a file of that name which no run wrote.
        """
        super().__init__()
        self._path = Path(path)
        self._columns, _ = self._read()

    def start(self, iteration: int, resumes: bool) -> None:
        """Keep the lines of an earlier run up to here; those that follow are computed again.

        The table of another run, which began before this one, is moved to
        `<name>_earlier_<n>.csv`.
        """
        self._columns, rows = self._read()
        if not rows:
            return
        if resumes:
            self._replace(self._columns, [row for row in rows if int(row[0]) < iteration])
            return
        number = 1 + len(list(self._path.parent.glob(f"{self._path.stem}_earlier_*.csv")))
        earlier = self._path.with_name(f"{self._path.stem}_earlier_{number}.csv")
        self._path.rename(earlier)
        self._columns = []
        logger.info("moved the table of an earlier run to %s", earlier)

    def write(self) -> None:
        """Append the lines of the values that are new.

        Raises:
            OSError: the disk is full or the file may not be written.
        """
        for iteration, values in self.new_scalars(get_event_storage()):
            wanted = {OWN_COLUMN, *values}
            added = sorted(wanted - set(self._columns), key=_column_order)
            if added or not self._path.exists():
                _, rows = self._read()
                self._replace([*(self._columns or [INDEX_COLUMN]), *added], rows)
            self._append(iteration, values)

    def _append(self, iteration: int, values: Mapping[str, float]) -> None:
        cells = {name: _cell(value) for name, value in values.items()}
        cells[INDEX_COLUMN] = str(iteration)
        with (
            name_in_errors(self._path),
            open(self._path, "a", encoding="utf-8", newline="") as file,
        ):
            _write_rows(file, [[cells.get(name, "") for name in self._columns]])

    def _replace(self, columns: Sequence[str], rows: Iterable[Row]) -> None:
        """Write the table anew; rows of fewer columns are filled up with empty cells."""
        self._columns = list(columns)
        filled = [row + [""] * (len(columns) - len(row)) for row in rows]
        with (
            atomic_path(self._path) as temporary,
            open(temporary, "w", encoding="utf-8", newline="") as file,
        ):
            _write_rows(file, [self._columns, *filled])

    def _read(self) -> tuple[list[str], list[Row]]:
        """Read columns and lines; without the last line where a killed run left half of it."""
        try:
            text = self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return [], []
        except UnicodeDecodeError:
            raise self._foreign() from None
        whole = text[: text.rfind("\n") + 1]
        lines = list(csv.reader(io.StringIO(whole)))
        if not text:
            return [], []
        columns, rows = (lines[0], lines[1:]) if lines else ([], [])
        if OWN_COLUMN not in columns or columns[0] != INDEX_COLUMN:
            raise self._foreign()
        if not all(len(row) == len(columns) and row[0].isdecimal() for row in rows):
            raise self._foreign()
        return columns, rows

    def _foreign(self) -> InputError:
        return InputError(
            f"{self._path} is not the table of a training run, which would be written there: move "
            "it away or choose another OUTPUT_DIR"
        )


def _column_order(name: str) -> tuple[bool, str]:
    # The few numbers of the steps come before an evaluation's many, `<task>/<metric>`.
    return "/" in name, name


def _write_rows(file: Iterable[str], rows: Iterable[Row]) -> None:
    csv.writer(file, lineterminator="\n").writerows(rows)  # type: ignore[arg-type]


def _cell(value: float) -> str:
    return repr(value) if math.isfinite(value) else ""
