"""The photos that the loader benchmark reads: registered data sets, and some of them enlarged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import MetadataCatalog
from PIL import Image
from tqdm import tqdm

from schnet.data.catalog import load_registered
from schnet.data.label_maps import read_label
from schnet.data.reading import read_image
from schnet.errors import InputError

JPEG_QUALITY = 90


@dataclass(frozen=True)
class PhotoSet:
    """Photos with their label maps.

    Attributes:
        title: what the table calls them.
        dataset: name of the registered data set that they come from.
        dicts: one dict a photo, as Detectron2's mapper and SCHNet's take it; the label maps are
            grey PNGs, the only ones whose indices Detectron2's mapper keeps.
    """

    title: str
    dataset: str
    dicts: tuple[dict[str, Any], ...]

    @property
    def median_size(self) -> tuple[int, int]:
        """Median height and width in pixels."""
        sizes = [(entry["height"], entry["width"]) for entry in self.dicts]
        height, width = np.median(sizes, axis=0).astype(int).tolist()
        return height, width


def load_photos(dataset: str, count: int, folder: Path) -> PhotoSet:
    """Take evenly spaced photos of a registered data set.

    Args:
        dataset: such as `ccp_train`.
        count: photos to take, fewer where the data set has fewer.
        folder: existing folder to write the grey label maps to.

    Raises:
        InputError: the data set is not registered or not there, has no labelled photo, or a file
            cannot be read.
    """
    labelled = [entry for entry in load_registered([dataset]) if "sem_seg_file_name" in entry]
    if not labelled:
        raise InputError(f"the data set {dataset} has no photo with labels: take another one")
    number = min(count, len(labelled))
    chosen = [labelled[i * len(labelled) // number] for i in range(number)]
    return PhotoSet(dataset, dataset, tuple(_stored(chosen, dataset, folder, 1)))


def enlarge_photos(photos: PhotoSet, factor: int, folder: Path, most: int) -> PhotoSet:
    """Enlarge the first photos by a whole factor: bicubic, stored as JPEGs; labels by repetition.

    Args:
        photos: the originals, which stay as they are.
        factor: >= 2.
        folder: existing folder to write to.
        most: largest number of photos.

    Raises:
        InputError: a file cannot be read.
    """
    title = f"{photos.title}, enlarged {factor}x"
    dicts = _stored(photos.dicts[:most], photos.dataset, folder, factor)
    return PhotoSet(title, photos.dataset, tuple(dicts))


def _stored(
    dicts: Sequence[dict[str, Any]], dataset: str, folder: Path, factor: int
) -> list[dict[str, Any]]:
    """Write label maps, and enlarged photos, and give the dicts that name them."""
    metadata = MetadataCatalog.get(dataset)
    stored = []
    for number, entry in enumerate(tqdm(dicts, desc=f"{dataset} x{factor}", unit="photo")):
        label = read_label(
            entry["sem_seg_file_name"], len(metadata.stuff_classes), metadata.ignore_label
        )
        label = label.repeat(factor, axis=0).repeat(factor, axis=1)
        label_path = folder / f"{dataset}_x{factor}_{number}.png"
        Image.fromarray(label).save(label_path)
        photo_path = Path(entry["file_name"])
        if factor > 1:
            photo_path = label_path.with_suffix(".jpg")
            photo = Image.fromarray(read_image(entry["file_name"]))
            size = photo.width * factor, photo.height * factor
            photo.resize(size, Image.Resampling.BICUBIC).save(photo_path, quality=JPEG_QUALITY)
        stored.append(
            {
                **entry,
                "file_name": str(photo_path),
                "sem_seg_file_name": str(label_path),
                "height": label.shape[0],
                "width": label.shape[1],
            }
        )
    return stored
