"""What earlier runs of a preparation found, so that a run works only on what is new or changed.

The journal is a JSON-lines file in the output folder: a line of settings, then a line a pair, added
as the pairs are done. An interrupted run loses at most its last line.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from schnet.data.files import atomic_path, name_in_errors
from schnet.data.index import IndexRecord
from schnet.data.preparation.pairs import OutputFile, PairResult, PairStatus, PairTask
from schnet.data.preparation.sources import SourceFile

JOURNAL_FORMAT = "schnet-journal/1"


@dataclass(frozen=True)
class _Entry:
    """A pair's line: as it stands in the file, its files then, and its result."""

    line: str
    task: list[list[Any] | None] | None
    result: PairResult


class Journal:
    """Results by pair; a context in which new ones are added.

    Attributes:
        path: the file.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Read what is there.

        Args:
            path: the file; it need not exist.
            settings: plain data that the results depend on besides the files. Of results of other
                settings only the files that were written count.
        """
        self.path = path
        self._header = {"format": JOURNAL_FORMAT, "settings": dict(settings)}
        self._entries = _read(path, self._header)
        self._file: IO[str] | None = None

    def find(self, task: PairTask, target: Path) -> PairResult | None:
        """Give a pair's earlier result, where neither its files nor its outputs have changed.

        A file that could not be read is tried again: the disk or its permissions may have been at
        fault, which no size or time tells.

        Args:
            task: the pair as it is now.
            target: the output folder.
        """
        entry = self._entries.get(task.image_id)
        if entry is None or entry.task != _task_key(task):
            return None
        if entry.result.status is PairStatus.UNREADABLE:
            return None
        if not all(output.is_intact(target) for output in entry.result.outputs):
            return None
        return entry.result

    def outputs(self, task: PairTask) -> tuple[OutputFile, ...]:
        """Give the files that earlier runs wrote for a pair, whatever became of them since."""
        entry = self._entries.get(task.image_id)
        return () if entry is None else entry.result.outputs

    def __enter__(self) -> Journal:
        """Rewrite the file without damaged lines, and open it for more."""
        with atomic_path(self.path) as temporary:
            lines = [json.dumps(self._header), *(entry.line for entry in self._entries.values())]
            temporary.write_text("".join(f"{line}\n" for line in lines), "utf-8")
        self._file = open(self.path, "a", encoding="utf-8", buffering=1)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the file."""
        assert self._file is not None
        with name_in_errors(self.path):
            self._file.close()
        self._file = None

    def add(self, task: PairTask, result: PairResult) -> None:
        """Note a pair's new result; within the context."""
        assert self._file is not None, "a journal is written in its context"
        content = dataclasses.asdict(result)
        content["status"] = result.status.name
        entry = {"id": task.image_id, "task": _task_key(task), "result": content}
        with name_in_errors(self.path):
            self._file.write(json.dumps(entry) + "\n")


def _task_key(task: PairTask) -> list[list[Any] | None]:
    """Say which files a pair consists of, with what changes when they do."""
    return [_file_key(task.image), _file_key(task.label)]


def _file_key(file: SourceFile | None) -> list[Any] | None:
    return None if file is None else [file.root, file.name, file.size, file.stamp]


def _parse_result(content: Mapping[str, Any]) -> PairResult:
    record = content["record"]
    fields = {
        **content,
        "status": PairStatus[content["status"]],
        "record": None if record is None else IndexRecord(**record),
        "pixel_counts": tuple(content["pixel_counts"]),
        "outputs": tuple(OutputFile(**output) for output in content["outputs"]),
    }
    return PairResult(**fields)


def _read(path: Path, header: Mapping[str, Any]) -> dict[str, _Entry]:
    """Read the entries of a journal; none where it is none, without tasks if of other settings."""
    try:
        first, *lines = path.read_text(encoding="utf-8").splitlines()
        of_these_settings = json.loads(first) == json.loads(json.dumps(header))
    except (OSError, ValueError):
        return {}
    entries = {}
    for line in lines:
        try:
            content = json.loads(line)
            task = content["task"]
            if not of_these_settings:
                task, line = None, json.dumps({**content, "task": None})
            entries[content["id"]] = _Entry(line, task, _parse_result(content["result"]))
        except (ValueError, KeyError, TypeError):
            # The line that an interrupted run was writing: its pair is done again.
            continue
    return entries
