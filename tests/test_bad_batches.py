"""Bad steps: what is told of them, kept of them, and how many pass."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from PIL import Image
from step_fakes import COLOURS, ValueModel, item, run_steps, step_trainer

from schnet.config import load_config
from schnet.engine import bad_batches
from schnet.engine.bad_batches import BadStep, BadSteps, build_bad_steps
from schnet.errors import InputError

NAN = math.nan


def _step(iteration: int, *batch: dict[str, Any]) -> BadStep:
    return BadStep(iteration, 0.25, {"loss_ce": NAN}, "loss_ce nan", batch)


def test_batch_is_kept_as_the_model_took_it(tmp_path: Path) -> None:
    entries = [item(NAN, 1.0, name="x.jpg"), item(1.0, 1.0, name="y.jpg")]
    trainer = step_trainer(ValueModel(), [entries], tmp_path)
    trainer.iter = 123
    with pytest.raises(InputError) as caught:
        run_steps(trainer)
    path = tmp_path / "bad_batches" / "iteration_0000123_rank0.pth"
    assert sorted(path.parent.iterdir()) == [path.with_suffix(".png"), path]
    content = torch.load(path, weights_only=True)
    assert (content["iteration"], content["learning_rate"]) == (123, 1.0)
    assert math.isnan(content["losses"]["loss_a"]) and content["losses"]["loss_b"] == 0.0
    assert content["file_names"] == ["x.jpg", "y.jpg"]
    for number, entry in enumerate(entries):
        assert torch.equal(content["images"][number], entry["image"])
        assert torch.equal(content["sem_seg"][number], entry["sem_seg"])
    told = str(caught.value)
    assert "at iteration 123 (learning rate 1): loss_a nan, loss_b 0" in told
    assert f"on the images x.jpg, y.jpg (kept in {path})" in told and "\n" not in told


@pytest.mark.filterwarnings("error:invalid value")
def test_picture_shows_each_image_beside_its_labels(tmp_path: Path) -> None:
    steps = BadSteps(tmp_path, 1, COLOURS)
    strange = item(1.0)
    strange["image"] = torch.full((3, 16, 8), NAN)
    steps.record(_step(0, item(1.0), strange))
    picture = np.asarray(Image.open(tmp_path / "iteration_0000000_rank0.png"))
    assert picture.shape[0] > 2 * 240  # two rows
    colours = {tuple(c) for c in picture.reshape(-1, 3)}
    assert {(90, 90, 90), COLOURS.palette[1], (0, 0, 0)} <= colours


def test_as_many_pass_as_are_allowed_and_no_more_are_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    steps = BadSteps(tmp_path, 2, COLOURS)
    with caplog.at_level(logging.WARNING, logger="schnet"):
        steps.record(_step(3, item(1.0, name="a.jpg")))
        steps.record(_step(5, item(1.0, name="b.jpg")))
    first, second = [record.getMessage() for record in caplog.records]
    assert "iteration 3" in first and "a.jpg" in first and first.endswith("skipped, 1 of at most 2")
    assert "iteration 5" in second and "b.jpg" in second and "2 of at most 2" in second
    with pytest.raises(InputError, match="iteration 8.*MAX_BAD_STEPS 2"):
        steps.record(_step(8, item(1.0)))
    assert len(list(tmp_path.glob("*.pth"))) == len(list(tmp_path.glob("*.png"))) == 3


def test_only_the_bad_parts_images_are_told(tmp_path: Path) -> None:
    parts = [[item(1.0, 1.0, name="good.jpg")], [item(NAN, 1.0, name="bad.jpg")]]
    trainer = step_trainer(ValueModel(), parts, tmp_path, accumulate_steps=2)
    with pytest.raises(InputError, match="bad.jpg") as caught:
        run_steps(trainer)
    assert "good.jpg" not in str(caught.value)
    (path,) = tmp_path.rglob("*.pth")
    assert torch.load(path, weights_only=True)["file_names"] == ["bad.jpg"]


def test_process_whose_images_are_good_keeps_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = BadSteps(tmp_path, 0, COLOURS)
    other = "loss_ce nan on the images theirs.jpg (kept in there)"
    monkeypatch.setattr(bad_batches.comm, "all_gather", lambda report: [report, other])
    with pytest.raises(InputError, match=r"\(learning rate 0.25\): loss_ce nan on .* theirs.jpg"):
        steps.record(_step(0))
    assert not list(tmp_path.iterdir())


def test_full_disk_does_not_hide_what_was_bad(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(content: Any, path: Path) -> None:
        Path(path).write_bytes(b"half of it")
        raise RuntimeError("PytorchStreamWriter failed\nwriting file")

    monkeypatch.setattr(bad_batches.torch, "save", full)
    steps = BadSteps(tmp_path, 0, COLOURS)
    with pytest.raises(InputError, match=r"loss_ce nan on .*\(not kept in .*failed writing file"):
        steps.record(_step(0, item(1.0)))
    assert not list(tmp_path.iterdir())


def test_config_says_where_and_how_many(tmp_path: Path) -> None:
    MetadataCatalog.pop("bad_train", None)
    MetadataCatalog.get("bad_train").set(stuff_classes=["a", "b"], stuff_colors=[[0] * 3, [9] * 3])
    opts = ["DATASETS.TRAIN", "('bad_train',)", "SOLVER.MAX_BAD_STEPS", "1"]
    steps = build_bad_steps(load_config([], [*opts, "OUTPUT_DIR", str(tmp_path)]))
    steps.record(_step(0, item(1.0)))
    assert len(list((tmp_path / "bad_batches").glob("*.pth"))) == 1
    with pytest.raises(InputError):
        steps.record(_step(1, item(1.0)))
