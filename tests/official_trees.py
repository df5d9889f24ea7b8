"""Miniatures of the official downloads, with the traps that the real ones set."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
from data_helpers import color_of, patchwork, save_image
from PIL import Image

from schnet.data.label_maps import write_label_png
from schnet.data.labels import LIP_PALETTE
from schnet.data.reading import UInt8Array

SIZE = (40, 32)
TURN_RIGHT = 6


def write_pair(images: Path, labels: Path, name: str, seed: int, num_classes: int = 20) -> None:
    """Write a sound pair: an RGB JPEG and a palette PNG."""
    truth = patchwork(SIZE, seed=seed, num_classes=num_classes)
    save_image(images / f"{name}.jpg", color_of(truth))
    write_label_png(labels / f"{name}.png", truth, LIP_PALETTE)


def plant_traps(images: Path, labels: Path) -> dict[str, UInt8Array]:
    """Write pairs that are sound and easily got wrong; the labels that each has.

    A three-channel label map, a grey one, a grey photo, a CMYK photo, a photo that its EXIF turns
    onto its labels, one whose EXIF must not be heeded, and unlabelled pixels.
    """
    truth = {
        name: patchwork(SIZE, seed=50 + number)
        for number, name in enumerate(
            ("rgb_label", "grey_label", "grey_photo", "cmyk", "turned", "as_stored", "ignored")
        )
    }
    truth["ignored"][:3] = 255
    for name, label in truth.items():
        save_image(images / f"{name}.jpg", color_of(label))
        write_label_png(labels / f"{name}.png", label, LIP_PALETTE)
    three = np.dstack([truth["rgb_label"], np.full(SIZE, 7, np.uint8), np.zeros(SIZE, np.uint8)])
    save_image(labels / "rgb_label.png", three)
    save_image(labels / "grey_label.png", truth["grey_label"])
    save_image(images / "grey_photo.jpg", color_of(truth["grey_photo"])[:, :, 0], subsampling=-1)
    Image.fromarray(color_of(truth["cmyk"])).convert("CMYK").save(images / "cmyk.jpg", quality=95)
    exif = Image.Exif()
    exif[0x0112] = TURN_RIGHT
    stored = np.ascontiguousarray(np.rot90(color_of(truth["turned"])))
    save_image(images / "turned.jpg", stored, exif=exif)
    exif[0x0112] = 3
    save_image(images / "as_stored.jpg", color_of(truth["as_stored"]), exif=exif)
    return truth


def plant_damage(images: Path, labels: Path) -> dict[str, str]:
    """Write pairs that cannot be used; what must be said of each, by a name in the sentence."""
    for number, name in enumerate(("cut", "small", "range", "no_label", "text")):
        write_pair(images, labels, name, seed=90 + number)
    photo = images / "cut.jpg"
    photo.write_bytes(photo.read_bytes()[:-60])
    save_image(labels / "small.png", patchwork((SIZE[0], SIZE[1] - 1)))
    save_image(labels / "range.png", np.full(SIZE, 20, np.uint8))
    (labels / "no_label.png").unlink()
    (labels / "text.png").write_text("<html>404</html>")
    save_image(labels / "no_photo.png", patchwork(SIZE))
    return {
        "cut.jpg": "cannot be read",
        "small.png": "both must have one size",
        "range.png": "holds the value 20",
        "no_label.jpg": "the label map of",
        "text.png": "cannot be read",
        "no_photo.png": "the image no_photo is missing",
    }


def zip_tree(folder: Path, archive: Path, *, below: str = "") -> Path:
    """Pack a folder's files, with the litter that macOS adds."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                name = f"{below}{path.relative_to(folder).as_posix()}"
                file.write(path, name)
                file.writestr(f"__MACOSX/{Path(name).parent}/._{path.name}", b"attributes")
    return archive


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Modification time and content of every file."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def row(summary: str, title: str) -> list[str]:
    """The cells of a summary's line."""
    line = next(line for line in summary.splitlines() if line.startswith(title))
    return line.removeprefix(title).split()
