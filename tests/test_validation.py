"""The validation loss: the mean that it is, for any division, and what it leaves as it was."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import randomise
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model
from detectron2.utils import comm
from PIL import Image
from spawned import TWO, prepare_spawning
from tiny_lip import HEIGHT, OPTS, WIDTH, make_lip
from torch import nn

import schnet.modeling  # noqa: F401  registers the architectures, in a spawned process too
from schnet.config import load_config
from schnet.data.catalog import load_registered, register_datasets
from schnet.engine.launch import launch
from schnet.engine.validation import (
    add_validation_losses,
    build_validation_mapper,
    require_losses,
    validation_losses,
)
from schnet.errors import InputError

IMAGES = 5
LOSSES = ["loss", "loss_ce", "loss_lovasz"]


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., CfgNode]:
    """A function of overrides; the test set has images of one size, one hardly labelled."""
    make_lip(tmp_path / "data", {"train": 2, "val": IMAGES})
    register_datasets(str(tmp_path / "data"))
    label = load_registered(["lip_val"])[1]["sem_seg_file_name"]
    labels = np.full((HEIGHT, WIDTH), 255, np.uint8)
    labels[:2, :2] = 3
    Image.fromarray(labels).save(label)
    return lambda *opts: load_config([], [*OPTS, "SOLVER.AMP.ENABLED", "False", *opts])


def _model(cfg: CfgNode) -> Any:
    torch.manual_seed(0)
    return randomise(build_model(cfg), scale=0.05)


def test_is_the_mean_of_the_training_losses_of_single_images(
    config: Callable[..., CfgNode],
) -> None:
    cfg = config()
    model = _model(cfg).train()
    found = validation_losses(cfg, model, "lip_val", None)
    mapper = build_validation_mapper(cfg, "lip_val")
    singles = [model([mapper(entry)]) for entry in load_registered(["lip_val"])]
    assert list(found) == LOSSES
    for name in LOSSES[1:]:
        mean = float(torch.stack([losses[name] for losses in singles]).mean())
        assert found[name] == pytest.approx(mean, rel=1e-5)
    assert found["loss"] == pytest.approx(found["loss_ce"] + found["loss_lovasz"])


@pytest.mark.parametrize("opts", [("SOLVER.IMS_PER_BATCH", "3"), ("DATALOADER.NUM_WORKERS", "2")])
def test_batch_size_and_workers_do_not_matter(
    config: Callable[..., CfgNode], opts: tuple[str, str]
) -> None:
    one, other = config("SOLVER.IMS_PER_BATCH", "1"), config(*opts)
    model = _model(one)
    expected = validation_losses(one, model, "lip_val", None)
    assert validation_losses(other, model, "lip_val", None) == pytest.approx(expected, rel=1e-5)


def test_images_are_spread_over_the_set(config: Callable[..., CfgNode]) -> None:
    seen: list[str] = []

    class _Recorder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def losses(self, batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
            seen.extend(entry["image_id"] for entry in batch)
            assert all(tuple(entry["image"].shape) == (3, HEIGHT, WIDTH) for entry in batch)
            return {"loss_ce": torch.ones(())}

    for wanted, ids in (("3", "024"), ("1", "0"), ("-1", "01234"), ("99", "01234")):
        cfg = config("TEST.LOSS_IMAGES", wanted)
        assert validation_losses(cfg, _Recorder(), "lip_val", None) == {"loss": 1, "loss_ce": 1}
        assert seen == [f"val_{index}" for index in ids]
        seen.clear()


def test_mapper_fits_the_image_into_the_middle_and_draws_nothing(
    config: Callable[..., CfgNode],
) -> None:
    opts = ("INPUT.SIZE", "[48, 64]", "INPUT.FLIP_PROB", "1.0", "INPUT.ROTATION_PROB", "1.0")
    cfg = config(*opts)
    entry = load_registered(["lip_val"])[0]
    mapped = build_validation_mapper(cfg, "lip_val")(entry)
    with Image.open(entry["file_name"]) as photo, Image.open(entry["sem_seg_file_name"]) as label:
        pixels, labels = np.asarray(photo.convert("RGB")), np.asarray(label)
    middle = slice(16, 48)
    np.testing.assert_array_equal(mapped["image"][:, :, middle].permute(1, 2, 0), pixels)
    np.testing.assert_array_equal(mapped["sem_seg"][:, middle], labels)
    outside = [mapped["sem_seg"][:, :16], mapped["sem_seg"][:, 48:]]
    assert all((part == 255).all() for part in outside)
    assert mapped["image"][:, 0, 0].tolist() == [round(value) for value in cfg.MODEL.PIXEL_MEAN]


def _random_states() -> list[Any]:
    return [torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state())]


@pytest.mark.parametrize("workers", ["0", "1"])
def test_random_numbers_and_modes_are_left_as_they_were(
    config: Callable[..., CfgNode], workers: str
) -> None:
    cfg = config("DATALOADER.NUM_WORKERS", workers)
    model = _model(cfg).train()
    model.sem_seg_head.decoder.eval()
    modes = [module.training for module in model.modules()]
    before = _random_states()
    validation_losses(cfg, model, "lip_val", None)
    assert _random_states() == before
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.parameters())


def test_runs_in_evaluation_mode_without_gradients_and_in_the_training_dtype(
    config: Callable[..., CfgNode],
) -> None:
    cfg = config()
    seen: list[tuple[Any, ...]] = []

    class _Probe(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(1, 1)

        def losses(self, batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
            out = self.linear(torch.ones(1, 1))
            seen.append((self.training, out.requires_grad, out.dtype))
            if fails:
                raise RuntimeError("a defect")
            return {"loss_ce": out.float().sum()}

    fails, model = False, _Probe().train()
    validation_losses(cfg, model, "lip_val", torch.bfloat16)
    validation_losses(cfg, model, "lip_val", None)
    assert set(seen) == {(False, False, torch.bfloat16), (False, False, torch.float32)}
    fails = True
    with pytest.raises(RuntimeError, match="a defect"):
        validation_losses(cfg, model, "lip_val", None)
    assert model.training


def test_results_get_the_task_beside_the_metrics(config: Callable[..., CfgNode]) -> None:
    cfg = config()
    model = _model(cfg)
    metrics = {"sem_seg": {"mIoU": 1.0}}
    found = add_validation_losses(cfg, model, None, metrics)
    assert found["sem_seg"] == metrics["sem_seg"] and list(found["val"]) == LOSSES
    two = config("DATASETS.TEST", "('lip_val', 'lip_train')")
    found = add_validation_losses(two, model, None, {"lip_val": metrics, "lip_train": {}})
    assert list(found["lip_val"]) == ["sem_seg", "val"] and list(found["lip_train"]) == ["val"]
    assert found["lip_val"]["val"]["loss"] != found["lip_train"]["val"]["loss"]
    none = config("TEST.LOSS_IMAGES", "0")
    assert add_validation_losses(none, model, None, metrics) == metrics


def test_set_without_labels_has_no_loss(config: Callable[..., CfgNode]) -> None:
    cfg = config("DATASETS.TEST", "('bare_val',)")
    bare = [{"file_name": d["file_name"], "image_id": "a"} for d in load_registered(["lip_val"])]
    DatasetCatalog.register("bare_val", lambda: bare)
    MetadataCatalog.get("bare_val").set(stuff_classes=MetadataCatalog.get("lip_val").stuff_classes)
    try:
        assert validation_losses(cfg, _model(cfg), "bare_val", None) == {}
        assert add_validation_losses(cfg, _model(cfg), None, {}) == {}
    finally:
        DatasetCatalog.remove("bare_val")
        MetadataCatalog.pop("bare_val", None)


def test_architecture_without_losses_is_refused_where_they_are_wanted(
    config: Callable[..., CfgNode],
) -> None:
    with pytest.raises(InputError, match="SCHNet has no method `losses`.*set TEST.LOSS_IMAGES 0"):
        require_losses(config(), nn.Linear(1, 1))
    require_losses(config("TEST.LOSS_IMAGES", "0"), nn.Linear(1, 1))
    require_losses(config(), _model(config()))


def write_losses(config: str, folder: str) -> None:
    """Body of a process: what it finds, with three images and with one, goes to a file."""
    file = Path(folder) / f"config{comm.get_rank()}.yaml"
    file.write_text(config, encoding="utf-8")
    register_datasets()
    found = []
    for wanted in (IMAGES, 1):  # of one image, the other process has none
        cfg = load_config([file], ["TEST.LOSS_IMAGES", str(wanted)])
        found.append(validation_losses(cfg, _model(cfg), "lip_val", None))
    (Path(folder) / f"rank{comm.get_rank()}.json").write_text(json.dumps(found))


def test_two_processes_find_what_one_does(
    config: Callable[..., CfgNode], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare_spawning(monkeypatch, tmp_path / "data")
    expected = []
    for wanted in (IMAGES, 1):
        cfg = config("TEST.LOSS_IMAGES", str(wanted))
        expected.append(validation_losses(cfg, _model(cfg), "lip_val", None))
    launch(write_losses, TWO, (config().dump(), str(tmp_path)))
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2))
    assert second == [{}, {}]
    assert list(first[0]) == LOSSES
    for found, single in zip(first, expected, strict=True):
        assert found == pytest.approx(single, rel=1e-5)
