"""Jobs on a cluster of this machine: workers and drivers are killed, every photo is there once."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from conftest import REPOSITORY
from parsing_fakes import fake_parser
from PIL import Image
from ray_fakes import UNREADABLE, SlowLoad, SlowParser, make_job, write_model, write_photos

from schnet.data.label_maps import decode_label
from schnet.errors import InputError
from schnet.inference import Parser
from schnet.parsing import ByteArray, Parsing
from schnet.photo_parser import PhotoParser
from schnet.ray_pipeline.model_choice import ModelChoice, ModelIdentity

pytestmark = pytest.mark.slow
pytest.importorskip("ray.data", reason="Ray is not installed: make env-extras")
pa = pytest.importorskip("pyarrow")

PHOTOS = 60
WAIT_SECONDS = 300.0


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The module, with a cluster of two CPUs whose processes find what the tests define."""
    from schnet.ray_pipeline import pipeline

    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment().items():
            patch.setenv(name, value)
        with pipeline.cluster(temp_dir=tmp_path_factory.mktemp("r"), num_cpus=2):
            yield pipeline


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


def environment() -> dict[str, str]:
    path = [str(REPOSITORY / "tests"), str(REPOSITORY / "projects" / "SCHNet")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": "1"}


def read_output(folder: Path) -> list[dict]:
    import pyarrow.dataset

    return pyarrow.dataset.dataset(folder).to_table().to_pylist()


def wait_for_shards(folder: Path, count: int) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while len(list(folder.glob("part-*.parquet"))) < count:
        assert time.monotonic() < end, "no shard was committed"
        time.sleep(0.02)


def assert_parsed(rows: list[dict], photos: Path, ids: list[str], parser: PhotoParser) -> None:
    assert sorted(row["id"] for row in rows) == ids
    for row in rows:
        if row["id"] == UNREADABLE:
            assert UNREADABLE in row["error"] and row["labels"] is row["areas"] is None
            continue
        parsing = parser(photos / row["id"])
        labels = decode_label(row["labels"], row["id"])
        assert np.array_equal(labels, parsing.labels)
        assert (row["height"], row["width"]) == labels.shape
        assert row["areas"] == parsing.areas() and row["error"] is None
        assert Image.open(io.BytesIO(row["labels"])).mode == "P"


def test_killed_worker(pipeline: ModuleType, weights: Path, tmp_path: Path) -> None:
    photos, output, processes = (tmp_path / name for name in ("photos", "out", "processes"))
    ids = write_photos(photos, PHOTOS)
    processes.mkdir()
    at_the_kill: list[bool] = []

    def kill() -> None:
        wait_for_shards(output, 1)
        (process,) = processes.iterdir()
        os.kill(int(process.name), signal.SIGKILL)
        at_the_kill.append((output / "_SUCCESS").exists())

    source = pipeline.open_input(photos)
    job = make_job(ModelChoice(str(weights)).identify(), source.describe(), PHOTOS, 4)
    load = SlowLoad(str(weights), str(processes))
    killer = threading.Thread(target=kill)
    killer.start()
    done = pipeline.run_job(source, job, output, load, pipeline.Workers(batch_size=2))
    killer.join()
    assert at_the_kill == [False], "the job was over before the worker was killed"
    assert len(list(processes.iterdir())) > 1, "no worker took the dead one's place"
    assert (done.photos, done.errors, done.parsed_now) == (PHOTOS, 1, PHOTOS)
    assert_parsed(read_output(output), photos, ids, Parser.load(weights))
    success = json.loads((output / "_SUCCESS").read_text())
    assert success["rows"] == PHOTOS and success["errors"] == 1
    assert [shard["rows"] for shard in success["shards"]] == [4] * 15
    again = pipeline.run_job(source, job, output, load, pipeline.Workers(), resume=True)
    assert (again.errors, again.parsed_now) == (1, 0)


def test_killed_driver(
    weights: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    photos, output, processes = (tmp_path / name for name in ("photos", "out", "processes"))
    ids = write_photos(photos, PHOTOS)
    processes.mkdir()
    script = REPOSITORY / "tests" / "ray_fakes.py"
    temp = str(tmp_path_factory.mktemp("r"))
    arguments = [str(script), "slowly", *map(str, (photos, output, weights, processes)), temp]
    driver = subprocess.Popen([sys.executable, *arguments], env=environment())
    wait_for_shards(output, 2)
    driver.kill()
    driver.wait()
    before = {path: path.stat().st_mtime_ns for path in output.glob("part-*.parquet")}
    assert not (output / "_SUCCESS").exists() and 2 <= len(before) < 15
    (worker,) = processes.iterdir()
    end = time.monotonic() + WAIT_SECONDS
    while Path("/proc", worker.name).exists():
        assert time.monotonic() < end, "the worker outlived its driver"
        time.sleep(0.1)
    half = output / ".part-000009.1.parquet"  # as a write that was killed leaves it
    half.write_bytes(b"PAR1")
    command = [sys.executable, str(REPOSITORY / "tools" / "parse_with_ray.py")]
    command += ["--input", str(photos), "--output", str(output), "--weights", str(weights)]
    command += ["--rows-per-shard", "4", "--temp-dir", temp]
    refused = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert refused.returncode == 2 and "give --resume" in refused.stderr
    resumed = subprocess.run(
        [*command, "--resume"], env=environment(), capture_output=True, text=True
    )
    assert resumed.returncode == 1, resumed.stderr
    assert f"{PHOTOS - 1} of {PHOTOS} photos" in resumed.stdout
    assert f"({PHOTOS - 4 * len(before)} of them now)" in resumed.stdout
    assert_parsed(read_output(output), photos, ids, Parser.load(weights))
    assert not half.exists()
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_parquet_input(pipeline: ModuleType, weights: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    photos, tables, output = (tmp_path / name for name in ("photos", "tables", "out"))
    ids = write_photos(photos, 20)
    tables.mkdir()
    for name, part in (("x.parquet", ids[:13]), ("y.parquet", ids[13:])):
        images = [{"bytes": (photos / photo).read_bytes(), "path": photo} for photo in part]
        pq.write_table(pa.table({"key": part, "image": images}), tables / name, row_group_size=5)
    source = pipeline.open_input(tables, "key")
    job = make_job(ModelChoice(str(weights)).identify(), source.describe(), 20, 4)
    load = ModelChoice(str(weights)).load
    done = pipeline.run_job(source, job, output, load, pipeline.Workers(batch_size=3))
    assert (done.photos, done.errors) == (20, 1)
    rows = read_output(output)
    assert [row["id"] for row in rows] == ids
    assert_parsed(rows, photos, ids, Parser.load(weights))


def no_model() -> PhotoParser:
    raise InputError("the model is not there: put it there")


class Killer(SlowParser):
    """A model whose process ends at a photo of 22 rows."""

    def parse_arrays(
        self, images: Sequence[ByteArray], probabilities: bool = False
    ) -> list[Parsing]:
        if any(len(image) == 22 for image in images):
            os.kill(os.getpid(), signal.SIGKILL)
        return [Parsing(image[..., 0] * 0, self.classes, self.palette) for image in images]


def killer() -> PhotoParser:
    return Killer(fake_parser(), 0)


@pytest.fixture
def small(pipeline: ModuleType, tmp_path: Path) -> Callable[..., None]:
    """A function that runs a job of 18 photos with a loader on workers."""
    count = len(write_photos(tmp_path / "photos", 18))
    source = pipeline.open_input(tmp_path / "photos")
    known = ModelIdentity("x", ("background", "bright"), ((0, 0, 0), (9, 9, 9)))
    job = make_job(known, source.describe(), count, 4)

    def run(load: Callable[[], PhotoParser], **workers: float) -> None:
        pipeline.run_job(source, job, tmp_path / "out", load, pipeline.Workers(**workers))

    return run


def test_what_cannot_run_is_one_sentence(small: Callable[..., None]) -> None:
    with pytest.raises(InputError, match="^the model is not there: put it there$"):
        small(no_model)
    with pytest.raises(InputError, match="room for 1 of them .its largest node has 2 CPUs"):
        small(no_model, actors=2)
    with pytest.raises(InputError, match="--actors 1 with 1 GPUs .* and 0 GPUs"):
        small(no_model, gpus=1)


def defective() -> PhotoParser:
    raise RuntimeError("a defect")


def lacking() -> PhotoParser:
    raise ModuleNotFoundError("No module named 'schnet'")


def dying() -> PhotoParser:
    os._exit(3)


def test_loader_that_fails(
    small: Callable[..., None], pipeline: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Exception, match="RuntimeError: a defect") as caught:
        small(defective)
    assert not isinstance(caught.value, InputError), "a defect is told as bad input"
    with pytest.raises(InputError, match="no actor could be started .*No module named 'schnet'"):
        small(lacking)
    monkeypatch.setattr(pipeline, "ACTOR_RESTARTS", 2)
    with pytest.raises(InputError, match="workers died again and again"):
        small(dying)


def test_a_photo_that_kills_every_worker_ends_the_job(
    small: Callable[..., None], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="workers died again and again"):
        small(killer, batch_size=2)
    assert not (tmp_path / "out" / "_SUCCESS").exists()
