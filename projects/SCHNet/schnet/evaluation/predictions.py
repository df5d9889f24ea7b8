"""Predictions as files: index PNGs under the photos' names, and the zip that test servers take.

What the servers of LIP and CIHP take: CIHP's page (sysu-hcp.net/lip/mparsing_challenge.php, and
its successor competitions.codalab.org/competitions/23431) asks for a zip with a folder
`global_parsing` of `<image id>.png`, each of exactly the photo's size, beside a folder for the
instance track. For LIP's single persons no page is to be had any more; SCHP, which won that track,
wrote `<image id>.png` (its `evaluate.py`), index PNGs with a palette as they are here, and they go
to the top level of the zip. An image id is the photo's name without its ending.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from schnet.data.files import atomic_path
from schnet.data.label_maps import write_label_png
from schnet.errors import InputError

PREDICTION_FOLDER = "predictions"
ARCHIVE_FILE = "submission.zip"
ENDING = ".png"

ARCHIVE_FOLDERS: dict[str, str] = {"cihp": "global_parsing"}
"""Folder inside the zip by data set; the top level for those that are not here."""


class PredictionFiles:
    """The files of one split's predictions, below a folder that belongs to its evaluation.

    Several processes may each write their own images; a file that an earlier evaluation left under
    the same name is replaced.

    Attributes:
        folder: folder of the PNGs.
        archive: path of the zip; None where none is wanted.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike[str],
        dataset_dicts: Sequence[Mapping[str, Any]],
        palette: Sequence[Sequence[int]],
        *,
        archive: bool = False,
        archive_folder: str = "",
    ) -> None:
        """Name the files; none is written yet.

        Args:
            output_dir: folder of the evaluation; the PNGs go to its `predictions`, the zip is its
                `submission.zip`.
            dataset_dicts: all images of the split, with `file_name` and `image_id`.
            palette: one (red, green, blue) in 0..255 a class.
            archive: a zip is wanted.
            archive_folder: folder inside the zip; "" is its top level.

        Raises:
            InputError: two images would share a file, or an id leads out of the folder.
        """
        self.folder = Path(output_dir) / PREDICTION_FOLDER
        self.archive = Path(output_dir) / ARCHIVE_FILE if archive else None
        self._palette = palette
        self._num_images = len(dataset_dicts)
        self._names = {str(entry["image_id"]): _png_name(entry) for entry in dataset_dicts}
        _refuse_shared_names(
            dataset_dicts, _png_name, "TEST.SAVE_PREDICTIONS and TEST.SUBMISSION_ZIP"
        )
        self._archive_names: dict[str, str] = {}
        if archive:
            # The servers know no sub folders of ids.
            _refuse_shared_names(
                dataset_dicts, lambda entry: _png_name(entry).name, "TEST.SUBMISSION_ZIP"
            )
            place = PurePosixPath(archive_folder)
            self._archive_names = {
                str(place / name.name): str(name) for name in self._names.values()
            }

    def __len__(self) -> int:
        """Number of images of the split."""
        return self._num_images

    def write(self, image_id: Any, labels: npt.NDArray[np.uint8]) -> None:
        """Write one predicted label map (H, W) of values in 0..K-1, atomically.

        Raises:
            KeyError: the split has no such image.
        """
        write_label_png(self.folder / self._names[str(image_id)], labels, self._palette)

    def write_archive(self) -> Path:
        """Put all PNGs, which every process must have written, into the zip, atomically.

        The same PNGs give the same bytes: entries are sorted by name, stored and dated 1980-01-01.

        Returns:
            Path of the zip.

        Raises:
            InputError: a PNG is not there.
            ValueError: no zip is wanted.
        """
        if self.archive is None:
            raise ValueError("no archive was asked for")
        with (
            atomic_path(self.archive) as temporary,
            zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive,
        ):
            for name, source in sorted(self._archive_names.items()):
                entry = zipfile.ZipInfo(name)
                entry.create_system = 3  # Unix, also where it is not
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, self._read(source))
        return self.archive

    def _read(self, name: str) -> bytes:
        path = self.folder / name
        try:
            return path.read_bytes()
        except FileNotFoundError:
            raise InputError(
                f"the prediction {path} is not there for {self.archive}: evaluate the whole split, "
                "on machines that share OUTPUT_DIR"
            ) from None


def _png_name(entry: Mapping[str, Any]) -> PurePosixPath:
    """Give an image's PNG, relative to the folder of the predictions."""
    image_id = str(entry["image_id"])
    name = PurePosixPath(f"{image_id}{ENDING}")
    if name.is_absolute() or ".." in name.parts or not PurePosixPath(image_id).name:
        raise InputError(
            f"the image id {image_id!r} of {entry['file_name']} cannot name a file below "
            f"{PREDICTION_FOLDER}/: give the photo a relative path without '..' in the index"
        )
    return name


def _refuse_shared_names(
    dataset_dicts: Sequence[Mapping[str, Any]],
    name_of: Callable[[Mapping[str, Any]], object],
    keys: str,
) -> None:
    """Refuse images with one file name; upper and lower case are one on some file systems."""
    owners: dict[str, str] = {}
    for entry in dataset_dicts:
        name = str(name_of(entry))
        other = owners.setdefault(name.casefold(), entry["file_name"])
        if other != entry["file_name"]:
            raise InputError(
                f"the predictions of {other} and {entry['file_name']} would both be {name}: "
                f"rename one of the photos, or set {keys} False"
            )
