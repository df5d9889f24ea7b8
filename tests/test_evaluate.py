"""Evaluation from files to numbers, as TEST asks for it: in a training and of a weight file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import randomise
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from parsing_fakes import write_split
from pixel_parser import pixel_parser_registered
from segmentor_fakes import photo
from tiny_lip import OPTS, make_lip, save

from schnet.config import load_config
from schnet.data.catalog import load_registered, register_datasets
from schnet.data.label_maps import read_label
from schnet.data.loader import build_test_loader
from schnet.data.reading import read_image
from schnet.engine.evaluate import evaluate_weights
from schnet.engine.trainer import ParsingTrainer
from schnet.evaluation.argmax import predicted_labels
from schnet.evaluation.test_time import build_test_model, describe_protocol
from schnet.inference import Parser

WARP = ("TEST.PROTOCOL", "warp_labels")
AUG = ("TEST.AUG.ENABLED", "True")
WINDOWS = ("TEST.SLIDING_WINDOW.ENABLED", "True")
ONE_SCALE = ("TEST.AUG.SCALES", "[1.0]")
SIZES = [(60, 44), (31, 33), (60, 44), (1, 1), (60, 44), (62, 66), (7, 90)]

Config = Callable[..., CfgNode]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LIP whose validation photos have several sizes, and the weights of a tiny SCHNet."""
    folder = tmp_path_factory.mktemp("evaluate")
    rng = np.random.default_rng(0)
    labels = [rng.integers(0, 20, size, np.uint8) for size in SIZES]
    write_split(folder / "data", "lip", "val", labels)
    for number, size in enumerate(SIZES):
        pixels = photo(*size, seed=number).permute(1, 2, 0).numpy()
        save(folder / "data" / "lip" / f"val_{number}.jpg", pixels)
    register_datasets(str(folder / "data"))
    model = build_model(load_config([], OPTS))
    randomise(model.backbone.ftm)
    randomise(model.sem_seg_head, scale=0.3)
    torch.save(model.state_dict(), folder / "weights.pth")
    return folder


@pytest.fixture
def config(folder: Path, tmp_path: Path) -> Config:
    """A function of overrides that gives an evaluation's config."""
    register_datasets(str(folder / "data"))

    def read(*opts: str) -> CfgNode:
        own = ("MODEL.WEIGHTS", str(folder / "weights.pth"), "OUTPUT_DIR", str(tmp_path))
        return load_config([], [*OPTS, *own, *opts])

    return read


def predict(cfg: CfgNode, folder: Path) -> tuple[dict[str, np.ndarray], list[int]]:
    """Each image's label map, from the loader's batches, and the batches' lengths."""
    model = build_model(cfg)
    model.load_state_dict(torch.load(folder / "weights.pth", weights_only=True))
    test_model = build_test_model(cfg, model).eval()
    found: dict[str, np.ndarray] = {}
    lengths = []
    with torch.no_grad():
        for batch in build_test_loader(cfg, "lip_val"):
            lengths.append(len(batch))
            for item, result in zip(batch, test_model(batch), strict=True):
                assert item["image_id"] not in found
                found[item["image_id"]] = predicted_labels(result)
    return found, lengths


@pytest.mark.parametrize(
    ("opts", "lengths"),
    [
        ((), {2: [2, 1, 2, 1, 1], 3: [3, 2, 1, 1]}),
        ((*WARP, *AUG), {2: [2, 2, 2, 1], 3: [3, 3, 1]}),
        ((*WINDOWS, *AUG, *ONE_SCALE), {3: [1] * 7}),
    ],
    ids=["plain", "warped views", "windows, mirrored"],
)
def test_labels_do_not_depend_on_the_batch_size(
    config: Config, folder: Path, opts: tuple[str, ...], lengths: dict[int, list[int]]
) -> None:
    alone, _ = predict(config(*opts), folder)
    assert {name: labels.shape for name, labels in alone.items()} == {
        f"val_{number}": size for number, size in enumerate(SIZES)
    }
    assert len(np.unique(np.concatenate([x.ravel() for x in alone.values()]))) > 3
    for batch_size, wanted in lengths.items():
        found, own = predict(config(*opts, "TEST.BATCH_SIZE", str(batch_size)), folder)
        assert own == wanted
        for name, labels in alone.items():
            assert np.array_equal(found[name], labels), name


def test_weights_are_evaluated_as_asked(config: Config, tmp_path: Path) -> None:
    """The numbers are those of the label maps that `Parser` gives, and say how they were made."""
    cfg = config(*WARP, *AUG, "TEST.BATCH_SIZE", "3")
    results = evaluate_weights(cfg)
    parser = Parser.from_config(cfg)
    right, total = 0, 0
    for entry in load_registered(["lip_val"]):
        truth = read_label(entry["sem_seg_file_name"], 20)
        right += (parser(read_image(entry["file_name"])).labels == truth).sum()
        total += truth.size
    assert results["sem_seg"]["pACC"] == pytest.approx(100 * right / total)
    written = json.loads((tmp_path / "evaluation" / "lip_val" / "evaluation.json").read_text())
    assert written["protocol"] == describe_protocol(cfg)
    assert written["protocol"].endswith(
        "test box 48x32 (height x width); scales 0.75, 1, 1.25 with flip"
    )
    assert evaluate_weights(config())["sem_seg"]["pACC"] != results["sem_seg"]["pACC"]


def test_training_evaluates_as_asked(tmp_path: Path) -> None:
    make_lip(tmp_path / "data")
    register_datasets(str(tmp_path / "data"))
    own = ("MODEL.META_ARCHITECTURE", "PixelParser", "OUTPUT_DIR", str(tmp_path / "out"))
    cfg = load_config([], [*OPTS, *own, *WARP, *AUG, "SOLVER.MAX_ITER", "2"])
    weights = ["MODEL.WEIGHTS", str(tmp_path / "out" / "model_final.pth")]
    with pixel_parser_registered():
        trainer = ParsingTrainer(cfg)
        results = trainer.train()
        assert trainer.model.training
        again = evaluate_weights(load_config([], [*OPTS, *own, *WARP, *AUG, *weights]))
        plain = evaluate_weights(load_config([], [*OPTS, *own, *weights]))
    # Some metrics of so few pixels are not defined, and NaN does not equal itself.
    assert again["sem_seg"] == pytest.approx(results["sem_seg"], nan_ok=True)
    assert plain["sem_seg"]["pACC"] != results["sem_seg"]["pACC"]
    written = tmp_path / "out" / "inference" / "lip_val" / "evaluation.json"
    assert json.loads(written.read_text())["protocol"] == describe_protocol(cfg)
