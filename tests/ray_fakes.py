"""What tests of the Ray pipeline share: photos, a model that takes its time, and a job to kill."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from parsing_fakes import write_tiny_model
from PIL import Image

from schnet.inference import Parser
from schnet.parsing import ByteArray, Parsing
from schnet.photo_parser import PhotoParser
from schnet.ray_pipeline.job import Job
from schnet.ray_pipeline.model_choice import ModelChoice, ModelIdentity

UNREADABLE = "b/17.jpg"


def write_photos(folder: Path, count: int) -> list[str]:
    """Write photos of noise, of which one is no image; their ids, in order."""
    random = np.random.default_rng(0)
    names = [f"{'ab'[number % 2]}/{number:02d}.png" for number in range(count)]
    names[17] = UNREADABLE
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name == UNREADABLE:
            path.write_bytes(b"no image")
        else:
            noise = random.integers(0, 255, (20 + number, 30, 3)).astype(np.uint8)
            Image.fromarray(noise).save(path)
    return sorted(names)


def write_model(folder: Path) -> Path:
    """Write the tiny model as a run has it: a checkpoint beside its config."""
    folder.mkdir(parents=True, exist_ok=True)
    config, weights = write_tiny_model(folder)
    shutil.move(config, folder / "config.yaml")
    return weights


def make_job(known: ModelIdentity, source: dict[str, str], photos: int, rows: int) -> Job:
    return Job(known.digest, known.classes, known.palette, source, photos, rows)


class SlowParser(PhotoParser):
    """A parser that takes so long for each photo that it can be killed at it."""

    def __init__(self, parser: PhotoParser, seconds: float) -> None:
        super().__init__(parser.classes, parser.palette)
        self.parser = parser
        self.seconds = seconds

    def parse_arrays(
        self, images: Sequence[ByteArray], probabilities: bool = False
    ) -> list[Parsing]:
        time.sleep(self.seconds * len(images))
        return self.parser.parse_arrays(images, probabilities)


@dataclass(frozen=True)
class SlowLoad:
    """Loads a `SlowParser`, and leaves a file named by its process in a folder."""

    weights: str
    processes: str
    seconds: float = 0.1

    def __call__(self) -> PhotoParser:
        Path(self.processes, str(os.getpid())).touch()
        return SlowParser(Parser.load(self.weights, device="cpu"), self.seconds)


def run_slowly(photos: str, output: str, weights: str, processes: str, temp: str) -> None:
    """The job of the command line, with a slow model; to be killed."""
    from schnet.ray_pipeline.pipeline import Workers, cluster, open_input, run_job

    source = open_input(Path(photos))
    known = ModelChoice(weights).identify()
    job = make_job(known, source.describe(), source.photos, 4)
    with cluster(temp_dir=Path(temp), num_cpus=2):
        run_job(source, job, Path(output), SlowLoad(weights, processes), Workers(batch_size=2))


def dark() -> PhotoParser:
    """Loads a model that sees `background` alone."""
    return Dark(("background", "bright"), ((0, 0, 0), (9, 9, 9)))


class Dark(PhotoParser):
    """Labels each pixel 0."""

    def parse_arrays(
        self, images: Sequence[ByteArray], probabilities: bool = False
    ) -> list[Parsing]:
        return [Parsing(image[..., 0] * 0, self.classes, self.palette) for image in images]


def run_on_two_nodes(photos: str, output: str) -> None:
    """Jobs on two nodes of two CPUs, one with a GPU in name alone; what became of each, as JSON.

    What does not end says so by exit code 9.
    """
    from ray.cluster_utils import Cluster

    from schnet.errors import InputError
    from schnet.ray_pipeline.pipeline import Workers, cluster, open_input, run_job

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    nodes.add_node(num_cpus=2, num_gpus=1)
    source, parser = open_input(Path(photos)), dark()
    known = ModelIdentity("x", parser.classes, parser.palette)
    job = make_job(known, source.describe(), source.photos, 4)
    told: dict[str, str | int] = {}
    asked = {
        **{"3 CPUs": Workers(1, 3), "all CPUs": Workers(2, 2), "half": Workers(1, 2)},
        **{"3 on a GPU": Workers(3, gpus=0.3), "2 on a GPU": Workers(2, gpus=0.3)},
    }
    with cluster(nodes.address):
        for name, workers in asked.items():
            watch = threading.Timer(90, os._exit, [9])
            watch.start()
            try:
                told[name] = run_job(source, job, Path(output, name), dark, workers).photos
            except InputError as error:
                told[name] = str(error)
            watch.cancel()
            print(json.dumps(told), flush=True)
    nodes.shutdown()


if __name__ == "__main__":
    {"slowly": run_slowly, "nodes": run_on_two_nodes}[sys.argv[1]](*sys.argv[2:])
