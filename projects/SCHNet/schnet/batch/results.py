"""Writing the results of one photo: all of them whole, then noted, then under their names.

Noting comes before naming, so that every file with a result's name in the output folder that no
line tells of is the user's. A process that is killed between the two has noted files that are not
there: the photo is parsed again.

Files are not forced onto the disk (fsync): with one thread 400 small label maps took half as long
again, about 2 ms a file. After a power failure a file may be empty, and counts as missing.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from schnet.batch.layout import LABELS_SUFFIX, MASKS_SUFFIX, OVERLAY_SUFFIX
from schnet.batch.workspace import Job, Workspace
from schnet.data.files import name_in_errors
from schnet.data.label_maps import write_label_png
from schnet.errors import InputError
from schnet.parsing import Parsing

LABELS, OVERLAY, MASKS = "labels", "overlay", "masks"

JPEG_QUALITY = 92
JPEG_MAX_SIDE = 65_500


@dataclass(frozen=True)
class Outcome:
    """What became of a photo: `error` is empty where it was parsed."""

    job: Job
    error: str = ""


class ResultWriter:
    """Writes results; any number of threads may."""

    def __init__(
        self,
        workspace: Workspace,
        run: str,
        kinds: Sequence[str],
    ) -> None:
        """Take where to write and what.

        Args:
            workspace: the output folder.
            run: `RunIdentity.id`.
            kinds: of `LABELS`, `OVERLAY`, `MASKS`.
        """
        self._workspace = workspace
        self._run = run
        self._kinds = tuple(kinds)

    def write(self, job: Job, parsing: Parsing, seconds: float) -> Outcome:
        """Write a photo's results, in place of earlier ones.

        Args:
            job: the photo.
            parsing: with its photo, where an overlay is asked for.
            seconds: of work that went into it so far; noted with what this call takes.

        Returns:
            An error where a file of the user's has a result's name.

        Raises:
            OSError: a file cannot be written.
        """
        started = time.perf_counter()
        beginning = self._workspace.unfinished / str(job.number)
        beginning.mkdir()
        try:
            areas = parsing.areas()
            outputs = self._draw(job, parsing, areas, beginning)
            files = _flat(outputs)
            self._refuse_foreign(job, files)
            self._remove_earlier(job)
            self._note(
                job,
                outputs=outputs,
                height=parsing.labels.shape[0],
                width=parsing.labels.shape[1],
                areas=areas,
                seconds=round(seconds + time.perf_counter() - started, 4),
            )
            for file in files:
                target = self._workspace.folder / file
                target.parent.mkdir(exist_ok=True)
                with name_in_errors(target):
                    os.replace(beginning / file, target)
        except InputError as error:
            return self.fail(job, error)
        finally:
            shutil.rmtree(beginning, ignore_errors=True)
        return Outcome(job)

    def fail(self, job: Job, error: Exception) -> Outcome:
        """Note that a photo cannot be parsed; its earlier results, if any, stay."""
        self._note(job, error=str(error), earlier_outputs=list(job.earlier))
        return Outcome(job, str(error))

    def _note(self, job: Job, **content: Any) -> None:
        told = {"input": job.key, **content, "run": self._run, "version": job.version}
        self._workspace.journal.append(told)

    def _draw(
        self, job: Job, parsing: Parsing, areas: dict[str, int], folder: Path
    ) -> dict[str, Any]:
        """Write the results into a folder of this photo's own; their names there, by kind."""
        outputs: dict[str, Any] = {LABELS: job.name + LABELS_SUFFIX}
        write_label_png(folder / outputs[LABELS], parsing.labels, parsing.palette)
        if OVERLAY in self._kinds:
            outputs[OVERLAY] = job.name + OVERLAY_SUFFIX
            _write_overlay(folder / outputs[OVERLAY], parsing)
        if MASKS in self._kinds:
            (folder / (job.name + MASKS_SUFFIX)).mkdir()
            outputs[MASKS] = {
                name: f"{job.name}{MASKS_SUFFIX}/{mask_name(label, name)}"
                for label, name in enumerate(parsing.classes)
                if areas[name]
            }
            for label, name in enumerate(parsing.classes):
                if areas[name]:
                    mask = np.where(parsing.labels == label, np.uint8(255), np.uint8(0))
                    _save(Image.fromarray(mask), folder / outputs[MASKS][name], format="PNG")
        return outputs

    def _refuse_foreign(self, job: Job, files: Sequence[str]) -> None:
        for file in files:
            if file not in job.earlier and os.path.lexists(self._workspace.folder / file):
                raise InputError(
                    f"{self._workspace.folder / file} exists and was not written by this command: "
                    "move that file away, and start again"
                )

    def _remove_earlier(self, job: Job) -> None:
        """Remove the results that these replace: killed after noting, none may look finished."""
        for file in job.earlier:
            (self._workspace.folder / file).unlink(missing_ok=True)
        for parent in {Path(file).parent for file in job.earlier} - {Path()}:
            _quietly((self._workspace.folder / parent).rmdir)


def mask_name(label: int, name: str) -> str:
    """File name of a class's mask, such as `14-left-arm.png`; the number keeps it unique."""
    return f"{label:02d}-{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}.png"


def _flat(outputs: dict[str, Any]) -> list[str]:
    masks = outputs.get(MASKS, {})
    return [*(outputs[kind] for kind in (LABELS, OVERLAY) if kind in outputs), *masks.values()]


def _write_overlay(path: Path, parsing: Parsing) -> None:
    if max(parsing.labels.shape) > JPEG_MAX_SIDE:
        raise InputError(
            f"the overlay {path.name} would have more than {JPEG_MAX_SIDE} pixels a side, which "
            "JPEG has not: parse this photo without --overlays"
        )
    _save(Image.fromarray(parsing.overlay()), path, format="JPEG", quality=JPEG_QUALITY)


def _save(image: Image.Image, path: Path, **options: Any) -> None:
    with name_in_errors(path):
        image.save(path, **options)


def _quietly(action: Callable[[], None]) -> None:
    """Do what may fail: a folder stays where the user keeps something in it."""
    try:
        action()
    except OSError:
        pass
