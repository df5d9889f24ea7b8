"""What checkpoints hold of a model with bases, and onto which models they load."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from base_files import base_opts, predict, train_a_little, write_clip, write_sam
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from torch import nn

from schnet.checkpoint import ParsingCheckpointer, load_model_weights
from schnet.config import load_config
from schnet.engine.trainer import ParsingTrainer
from schnet.errors import InputError
from schnet.exported import build_trained_model

Config = Callable[..., CfgNode]
SAM, CLIP = "backbone.encoder.", "clip."
NO_FREEZE = ("MODEL.SAM.FREEZE", "False")


@pytest.fixture
def opts(tmp_path: Path) -> tuple[str, ...]:
    """Overrides that name files of both bases."""
    return base_opts(tmp_path / "bases")


def _save(model: nn.Module, folder: Path, **more: Any) -> Path:
    ParsingCheckpointer(model, str(folder), **more).save("model_init", iteration=-1)
    return folder / "model_init.pth"


def _read(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)


def _rewrite(path: Path, **entries: Any) -> None:
    torch.save({**_read(path), **entries}, path)


def _same(a: nn.Module, b: nn.Module) -> bool:
    other = b.state_dict()
    return all(torch.equal(value, other[name]) for name, value in a.state_dict().items())


def test_frozen_bases_of_files_are_left_out_and_told(
    tiny_cfg: Config, opts: tuple[str, ...], tmp_path: Path
) -> None:
    model = train_a_little(build_model(tiny_cfg(opts)))
    content = _read(_save(model, tmp_path))
    everything = set(model.state_dict())
    assert set(content["model"]) == {n for n in everything if not n.startswith((SAM, CLIP))}
    assert set(content["bases"]) == {SAM, CLIP}
    assert content["bases"][SAM] == model.backbone.encoder.source.as_dict()
    assert content["bases"][CLIP]["weights"] == opts[3]
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained <= set(content["model"])


def test_it_comes_back_whole(tiny_cfg: Config, opts: tuple[str, ...], tmp_path: Path) -> None:
    model = train_a_little(build_model(tiny_cfg(opts)))
    path = _save(model, tmp_path)
    for load in (
        lambda other: load_model_weights(other, str(path)),
        lambda other: ParsingCheckpointer(other, str(tmp_path)).load(str(path)),
    ):
        other = build_model(tiny_cfg(opts))
        assert not torch.equal(predict(other), predict(model))
        load(other)
        assert torch.equal(predict(other), predict(model))
        assert other.backbone.encoder.source is not None


def test_the_same_values_of_another_file_will_do(
    tiny_cfg: Config, opts: tuple[str, ...], tmp_path: Path
) -> None:
    model = train_a_little(build_model(tiny_cfg(opts)))
    other = build_model(tiny_cfg(base_opts(tmp_path / "copies")))
    load_model_weights(other, str(_save(model, tmp_path)))
    assert torch.equal(predict(other), predict(model))


def _refusals(model: nn.Module, path: Path) -> list[str]:
    """What loading for a new run, and resuming, say; the model must stay as it is."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    told = []
    for load in (
        lambda: load_model_weights(model, str(path)),
        lambda: ParsingCheckpointer(model, str(path.parent)).load(str(path)),
    ):
        with pytest.raises(InputError) as caught:
            load()
        told.append(str(caught.value))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    return told


def test_another_sam_is_refused(tiny_cfg: Config, opts: tuple[str, ...], tmp_path: Path) -> None:
    path = _save(build_model(tiny_cfg(opts)), tmp_path)
    other = write_sam(tmp_path / "other.pth", seed=5)
    model = build_model(tiny_cfg((*opts, "MODEL.SAM.WEIGHTS", other)))
    starts = (f"MODEL.WEIGHTS names {path}", f"--resume takes {path}")
    for told, start in zip(_refusals(model, path), starts, strict=True):
        assert told.startswith(f"{start}, which was trained with SAM tiny of {opts[1]} (")
        assert f"and this model has SAM tiny of {other} (fingerprint" in told
        assert told.endswith(
            "whose values differ: set MODEL.SAM.WEIGHTS to the file that it was trained with"
        )
        assert "\n" not in told


def test_a_clip_whose_text_tower_alone_differs_is_refused(
    tiny_cfg: Config, opts: tuple[str, ...], tmp_path: Path
) -> None:
    path = _save(build_model(tiny_cfg(opts)), tmp_path)
    other = write_clip(tmp_path / "other.pt", text_shift=0.5)
    model = build_model(tiny_cfg((*opts, "MODEL.CLIP.WEIGHTS", other)))
    for told in _refusals(model, path):
        assert f"CLIP tiny of {opts[3]} (" in told and f"CLIP tiny of {other} (" in told
        assert "set MODEL.CLIP.WEIGHTS to" in told


@pytest.mark.parametrize("key", ["MODEL.SAM.WEIGHTS", "MODEL.CLIP.WEIGHTS"])
def test_random_weights_in_place_of_a_file_are_refused(
    tiny_cfg: Config, opts: tuple[str, ...], tmp_path: Path, key: str
) -> None:
    path = _save(build_model(tiny_cfg(opts)), tmp_path)
    model = build_model(tiny_cfg((*opts, key, "random")))
    for told in _refusals(model, path):
        assert "where this model has weights of no file" in told
        assert told.endswith(f"set {key} to {opts[opts.index(key) + 1]}")


def test_random_bases_are_held(tiny_cfg: Config, tmp_path: Path) -> None:
    model = build_model(tiny_cfg())
    content = _read(_save(model, tmp_path))
    assert set(content["model"]) == set(model.state_dict())
    assert content["bases"] == {}


def test_a_trained_base_is_held_and_taken_by_a_model_that_freezes_it(
    tiny_cfg: Config, opts: tuple[str, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = train_a_little(build_model(tiny_cfg((*opts, *NO_FREEZE))))
    path = _save(model, tmp_path)
    content = _read(path)
    assert set(content["bases"]) == {CLIP}
    assert any(name.startswith(SAM) for name in content["model"])
    frozen = build_model(tiny_cfg(opts))
    with caplog.at_level(logging.WARNING):
        load_model_weights(frozen, str(path))
    assert f"MODEL.WEIGHTS names {path}, which holds other weights of backbone.enc" in caplog.text
    assert torch.equal(predict(frozen), predict(model))
    # They are those of no file now, and would be lost.
    again = _read(_save(frozen, tmp_path / "again"))
    assert set(again["bases"]) == {CLIP}
    assert torch.equal(again["model"][f"{SAM}pos_embed"], content["model"][f"{SAM}pos_embed"])


def test_a_frozen_bases_training_may_go_on_unfrozen(
    tiny_cfg: Config, opts: tuple[str, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = _save(train_a_little(build_model(tiny_cfg(opts))), tmp_path)
    model = build_model(tiny_cfg((*opts, *NO_FREEZE)))
    load_model_weights(model, str(path))
    trained = train_a_little(model)
    own = _save(trained, tmp_path / "own")
    resumed = build_model(tiny_cfg((*opts, *NO_FREEZE)))
    ParsingCheckpointer(resumed, str(own.parent)).load(str(own))
    assert _same(resumed, trained)
    # Nothing of this is worth a warning.
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    # It is no longer the base that the first one was trained with.
    with pytest.raises(InputError, match="whose values differ"):
        load_model_weights(trained, str(path))


def _first_format(path: Path, model: nn.Module) -> None:
    content = {**_read(path), "format": "schnet-checkpoint/1", "model": model.state_dict()}
    del content["bases"]
    torch.save(content, path)


def test_the_first_format_loads_and_resumes(
    tiny_cfg: Config, opts: tuple[str, ...], tmp_path: Path
) -> None:
    model = train_a_little(build_model(tiny_cfg(opts)))
    path = _save(model, tmp_path)
    _first_format(path, model)
    bare = tmp_path / "bare.pth"
    torch.save(model.state_dict(), bare)
    for load in (
        lambda other: load_model_weights(other, str(path)),
        lambda other: load_model_weights(other, str(bare)),
        lambda other: ParsingCheckpointer(other, str(tmp_path)).load(str(path)),
    ):
        other = build_model(tiny_cfg(opts))
        load(other)
        assert _same(model, other)
        # The same values: the base is still the file's.
        assert set(_read(_save(other, tmp_path / "own"))["bases"]) == {SAM, CLIP}


def test_the_first_format_brings_its_sam_and_refuses_another_clip(
    tiny_cfg: Config, opts: tuple[str, ...], tmp_path: Path
) -> None:
    model = build_model(tiny_cfg(opts))
    path = _save(model, tmp_path)
    _first_format(path, model)
    other = build_model(
        tiny_cfg((*opts, "MODEL.SAM.WEIGHTS", write_sam(tmp_path / "other.pth", seed=5)))
    )
    load_model_weights(other, str(path))
    assert _same(model, other)
    assert other.backbone.encoder.source is None
    clip = write_clip(tmp_path / "other.pt", seed=5)
    for told in _refusals(build_model(tiny_cfg((*opts, "MODEL.CLIP.WEIGHTS", clip))), path):
        assert f"other weights of clip than those of this model (CLIP tiny of {clip} (" in told
        assert "text_features" in told


@pytest.mark.parametrize("version", ["schnet-checkpoint/3", "schnet-checkpoint/10"])
def test_a_later_format_is_refused(tiny_cfg: Config, tmp_path: Path, version: str) -> None:
    model = build_model(tiny_cfg())
    path = _save(model, tmp_path)
    _rewrite(path, format=version)
    for told in _refusals(model, path):
        assert f"written by a newer version of schnet (format '{version}'" in told
        assert told.endswith("update schnet")


@pytest.mark.parametrize(
    ("entries", "told"),
    [
        ({"model": [1]}, "holds no weights under `model`"),
        ({"bases": {"clip.": {"key": "MODEL.CLIP.WEIGHTS"}}}, "does not tell which bases"),
        ({"bases": [1]}, "does not tell which bases"),
    ],
)
def test_malformed_entries_are_refused(
    tiny_cfg: Config, tmp_path: Path, entries: dict[str, Any], told: str
) -> None:
    model = build_model(tiny_cfg())
    path = _save(model, tmp_path)
    _rewrite(path, **entries)
    for refusal in _refusals(model, path):
        assert told in refusal


def test_averaged_weights_are_preferred(
    tiny_cfg: Config, opts: tuple[str, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, average = (train_a_little(build_model(tiny_cfg(opts)), seed) for seed in (3, 4))
    path = _save(model, tmp_path)
    names = [n for n in _read(path)["model"] if n.startswith(("backbone.ftm", "sem_seg_head"))]
    averaged = {name: average.state_dict()[name] for name in names}
    _rewrite(path, ema={"decay": 0.9, "updates": 7, "model": averaged})
    other = build_model(tiny_cfg(opts))
    with caplog.at_level(logging.INFO, logger="schnet"):
        load_model_weights(other, str(path))
    assert _same(other, average)
    assert "taking the averaged weights (EMA, decay 0.9)" in caplog.text
    # A run goes on with the weights themselves.
    ParsingCheckpointer(other, str(tmp_path)).load(str(path))
    assert _same(other, model)


def test_other_labels_start_from_everything_but_the_classifier(
    tiny_cfg: Config, opts: tuple[str, ...], tmp_path: Path
) -> None:
    model = train_a_little(build_model(tiny_cfg(opts)))
    path = _save(model, tmp_path)
    other = build_model(tiny_cfg((*opts, "MODEL.SEM_SEG_HEAD.NUM_CLASSES", "6")))
    fresh = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(InputError, match=r"for 4 classes .* set MODEL.WEIGHTS_IGNORE_CLASSIFIER"):
        load_model_weights(other, str(path))
    load_model_weights(other, str(path), ignore_classifier=True)
    for name, value in other.state_dict().items():
        is_classifier = name.startswith("sem_seg_head.classifier.")
        wanted = fresh if is_classifier else model.state_dict()
        assert torch.equal(value, wanted[name]), name
    # What does not fit besides is told as ever.
    wider = build_model(tiny_cfg((*opts, "MODEL.FTM.NUM_TOKENS", "6")))
    with pytest.raises(InputError, match=r"tokens.* has shape \(8, 5, 96\) there"):
        load_model_weights(wider, str(path), ignore_classifier=True)


def test_a_training_starts_on_other_labels_as_its_config_says(
    tiny_cfg: Config, opts: tuple[str, ...], tmp_path: Path
) -> None:
    model = train_a_little(build_model(tiny_cfg(opts)))
    path = _save(model, tmp_path)
    start = (
        "MODEL.WEIGHTS",
        str(path),
        "OUTPUT_DIR",
        str(tmp_path / "out"),
        "TEST.SAMPLE_IMAGES",
        "0",
    )
    ignore = ("MODEL.WEIGHTS_IGNORE_CLASSIFIER", "True")
    six = ("MODEL.SEM_SEG_HEAD.NUM_CLASSES", "6")
    trainer = ParsingTrainer(tiny_cfg((*opts, *start, *ignore, *six)))
    trainer.resume_or_load(resume=False)
    assert torch.equal(trainer.model.backbone.ftm.tokens, model.backbone.ftm.tokens)
    with pytest.raises(InputError, match="was trained for 4 classes"):
        ParsingTrainer(tiny_cfg((*opts, *start, *six))).resume_or_load(resume=False)
    # What it has trained is evaluated by the same config, with its classifier.
    assert _same(build_trained_model(tiny_cfg((*opts, *start, *ignore))), model)
    with pytest.raises(InputError, match=r"IGNORE_CLASSIFIER is True and MODEL.WEIGHTS is empty"):
        load_config([], ignore)


def test_a_run_resumes_from_the_checkpoint_before_a_damaged_one(
    tiny_cfg: Config, opts: tuple[str, ...], tmp_path: Path
) -> None:
    cfg = tiny_cfg((*opts, "OUTPUT_DIR", str(tmp_path), "TEST.SAMPLE_IMAGES", "0"))
    trainer = ParsingTrainer(cfg)
    trainer.storage = EventStorage(0)
    for iteration in (3, 7):
        trainer.checkpointer.save(f"model_{iteration:07d}", iteration=iteration)
    (tmp_path / "model_0000007.pth").write_bytes(b"half")
    resumed = ParsingTrainer(cfg)
    resumed.resume_or_load(resume=True)
    assert resumed.start_iter == 4
