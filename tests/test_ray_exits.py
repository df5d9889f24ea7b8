"""How the command line ends where a model fails, and what two nodes hold, on clusters of Ray."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY
from ray_fakes import write_model, write_photos
from test_ray_cluster import environment

pytestmark = pytest.mark.slow
pytest.importorskip("ray.data", reason="Ray is not installed: make env-extras")


def test_weights_of_nan_are_one_sentence(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    photos = tmp_path / "photos"
    write_photos(photos, 18)
    weights = write_model(tmp_path / "model")
    state = torch.load(weights, weights_only=True)
    for name in state:
        if "classifier" in name:
            state[name] = state[name] * float("nan")
    torch.save(state, weights)
    command = [sys.executable, str(REPOSITORY / "tools" / "parse_with_ray.py")]
    command += ["--input", str(photos), "--output", str(tmp_path / "out")]
    command += ["--weights", str(weights), "--temp-dir", "t"]  # not absolute, as Ray wants it
    place = tmp_path_factory.mktemp("r")
    ended = subprocess.run(command, env=environment(), capture_output=True, text=True, cwd=place)
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.count("error: the model's prediction of an image is not a number") == 1
    assert "Traceback" not in ended.stderr and not (tmp_path / "out" / "_SUCCESS").exists()
    assert (place / "t" / "session_latest").exists()


def test_an_actor_lies_on_one_node(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 18)
    command = [sys.executable, str(REPOSITORY / "tests" / "ray_fakes.py"), "nodes"]
    command += [str(tmp_path / "photos"), str(tmp_path / "out")]
    ended = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert ended.returncode == 0, f"a job waits without end: {ended.stdout}{ended.stderr}"
    told = json.loads(ended.stdout.splitlines()[-1])
    # Those who fit are done; a CPU of the other node is enough to read with.
    assert told.pop("half") == told.pop("2 on a GPU") == 18
    assert "room for 0 of them (its largest node has 2 CPUs" in told.pop("3 CPUs")
    assert "room for 1 of them (its largest node has 2 CPUs" in told.pop("all CPUs")
    assert "room for 2 of them (its largest node has 2 CPUs and 1 GPUs" in told.pop("3 on a GPU")
    assert not told
