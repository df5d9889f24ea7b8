"""What the tests of `schnet parse` share: a fake engine, and runs of the command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from conftest import REPOSITORY
from PIL import Image

FAKE_ENGINE = '''
import errno, os, sys, time, types
import numpy as np
from PIL import Image
from schnet.parsing import Parsing
from schnet.photo_parser import PhotoParser

class OnnxParser(PhotoParser):
    """Label 1 where a photo is bright."""

    @classmethod
    def load(cls, path, threads=None):
        batch = int(os.environ.get("FAKE_BATCH", 1))
        return cls(("background", "bright"), ((0, 0, 0), (9, 200, 7)), batch)

    def parse_arrays(self, images, probabilities=False):
        time.sleep(float(os.environ.get("FAKE_SECONDS", 0)))
        if os.environ.get("FAKE_ERROR"):
            raise ValueError("a defect")
        labels = [(image.mean(2) > 127).astype(np.uint8) for image in images]
        return [Parsing(found, self.classes, self.palette, i) for found, i in zip(labels, images)]

room, save = int(os.environ.get("FAKE_ROOM", -1)), Image.Image.save

def save_where_there_is_room(*args, **options):
    global room
    if not room:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    room -= 1
    save(*args, **options)

Image.Image.save = save_where_there_is_room
module = types.ModuleType("schnet.onnx_parser")
module.OnnxParser = OnnxParser
sys.modules["schnet.onnx_parser"] = module
from schnet.command.main import run_from_shell
try:
    run_from_shell()
finally:
    heavy = {"torch", "detectron2"} & set(sys.modules)
    assert not heavy, heavy
'''
"""Runs the command with a model of NumPy; fails where torch or Detectron2 was imported."""


def write_photos(folder: Path, count: int, size: tuple[int, int] = (24, 32)) -> list[Path]:
    """Write photos, each with another number of white columns."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(count):
        photo = np.zeros((*size, 3), np.uint8)
        photo[:, : number % size[1] + 1] = 255
        paths.append(folder / f"p{number:03d}.png")
        Image.fromarray(photo).save(paths[-1])
    return paths


def command(output: Path, *inputs: object) -> list[str]:
    """A command line of `schnet parse` with the fake engine; the model lies beside `output`."""
    weights = output.parent / "model.onnx"
    if not weights.exists():
        weights.write_bytes(b"a model")
    told = ["parse", *map(str, inputs), "--weights", str(weights), "--output", str(output)]
    return [sys.executable, "-c", FAKE_ENGINE, *told]


def start(
    line: Sequence[str], environment: Mapping[str, str] | None = None, stdin: int | None = None
) -> subprocess.Popen[str]:
    """Begin a command in a process of its own."""
    env = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY / "projects" / "SCHNet"),
        **(environment or {}),
    }
    pipe = subprocess.PIPE
    return subprocess.Popen(line, env=env, stdin=stdin, stdout=pipe, stderr=pipe, text=True)


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Wait for a command: exit code, standard output, standard error."""
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def lines_of(output: Path) -> dict[str, Any]:
    """The lines of results.jsonl by the photo's name; each photo must be there once."""
    found = [json.loads(line) for line in (output / "results.jsonl").read_text().splitlines()]
    by_name = {Path(line["input"]).name: line for line in found}
    assert len(by_name) == len(found)
    return by_name


def require_whole(output: Path, photos: Sequence[Path]) -> None:
    """Every photo has its own, whole label map, and is in results.jsonl once."""
    lines = lines_of(output)
    assert set(lines) == {photo.name for photo in photos}
    for photo in photos:
        with Image.open(output / lines[photo.name]["outputs"]["labels"]) as image:
            labels = np.asarray(image)
        with Image.open(photo) as image:
            assert np.array_equal(labels, np.asarray(image)[..., 0] > 127)
        assert lines[photo.name]["areas"]["bright"] == int(labels.sum())
