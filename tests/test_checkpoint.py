"""A run's checkpoints: written whole or not at all, loaded strictly, found again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from schnet import checkpoint as checkpoints
from schnet.checkpoint import (
    ParsingCheckpointer,
    checkpoint_name,
    find_checkpoints,
    latest_checkpoint,
    load_model_weights,
    periodic_checkpoints,
)
from schnet.errors import InputError


class _Head(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.classifier = nn.Conv2d(4, num_classes, 1)


class _Model(nn.Module):
    def __init__(self, num_classes: int = 20, width: int = 4) -> None:
        super().__init__()
        self.body = nn.Linear(3, width)
        self.neck = nn.Linear(width, 4)
        self.sem_seg_head = _Head(num_classes)
        self.register_buffer("text", torch.ones(2), persistent=False)


def _trained() -> tuple[_Model, torch.optim.Optimizer]:
    """A model and its optimizer after one step, so that both have a state."""
    model = _Model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model.body(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return model, optimizer


def test_everything_comes_back(tmp_path: Path) -> None:
    model, optimizer = _trained()
    ParsingCheckpointer(model, str(tmp_path), optimizer=optimizer).save(
        "model_0000009", iteration=9
    )
    other = _Model()
    other_optimizer = torch.optim.AdamW(other.parameters(), lr=7.0)
    checkpointer = ParsingCheckpointer(other, str(tmp_path), optimizer=other_optimizer)
    latest = latest_checkpoint(tmp_path)
    assert latest == tmp_path / "model_0000009.pth"
    assert checkpointer.load(str(latest))["iteration"] == 9
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])
    assert other_optimizer.param_groups[0]["lr"] == 0.1
    assert len(other_optimizer.state) == len(optimizer.state) > 0


def test_file_holds_plain_types_only(tmp_path: Path) -> None:
    model, optimizer = _trained()
    ParsingCheckpointer(model, str(tmp_path), optimizer=optimizer).save("model_init", iteration=-1)
    content = torch.load(tmp_path / "model_init.pth", weights_only=True)
    assert content["format"] == "schnet-checkpoint/2"
    assert set(content) == {"format", "model", "bases", "optimizer", "iteration"}


def test_weights_alone_are_not_what_a_run_resumes_from(tmp_path: Path) -> None:
    model, optimizer = _trained()
    checkpointer = ParsingCheckpointer(model, str(tmp_path), optimizer=optimizer)
    checkpointer.save("model_init", iteration=-1)
    checkpointer.save_weights("model_best", iteration=4)
    assert latest_checkpoint(tmp_path) == tmp_path / "model_init.pth"
    with pytest.raises(InputError, match=r"model_best.pth lacks optimizer.*MODEL.WEIGHTS"):
        checkpointer.load(str(tmp_path / "model_best.pth"))
    load_model_weights(_Model(), str(tmp_path / "model_best.pth"))


def test_state_of_other_trained_parameters_is_refused_and_no_weight_changes(tmp_path: Path) -> None:
    model, optimizer = _trained()
    ParsingCheckpointer(model, str(tmp_path), optimizer=optimizer).save("model_init", iteration=-1)
    other = _Model()
    before = {name: value.clone() for name, value in other.state_dict().items()}
    checkpointer = ParsingCheckpointer(
        other, str(tmp_path), optimizer=torch.optim.AdamW(other.neck.parameters())
    )
    path = tmp_path / "model_init.pth"
    with pytest.raises(InputError) as caught:
        checkpointer.load(str(path))
    told = str(caught.value)
    assert told.startswith(f"the run's trained parameters or settings differ from those of {path} ")
    assert told.endswith(": resume with the run's config.yaml or start a new OUTPUT_DIR")
    assert "optimizer" in told and "\n" not in told
    assert all(torch.equal(before[name], value) for name, value in other.state_dict().items())


def test_state_that_lacks_an_entry_is_refused(tmp_path: Path) -> None:
    model, optimizer = _trained()
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    checkpointer = ParsingCheckpointer(model, str(tmp_path), scheduler=scheduler)
    checkpointer.save("model_init", iteration=-1)
    path = tmp_path / "model_init.pth"
    content = torch.load(path, weights_only=True)
    del content["scheduler"]["lr_lambdas"]
    torch.save(content, path)
    with pytest.raises(InputError, match="settings differ from .*scheduler: 'lr_lambdas'"):
        checkpointer.load(str(path))


@pytest.mark.parametrize("lost", ["iteration", "model"])
def test_checkpoint_without_what_every_run_needs_is_refused(tmp_path: Path, lost: str) -> None:
    ParsingCheckpointer(_Model(), str(tmp_path)).save("model_init", iteration=-1)
    path = tmp_path / "model_init.pth"
    content = torch.load(path, weights_only=True)
    del content[lost]
    torch.save(content, path)
    with pytest.raises(InputError, match=f"model_init.pth lacks {lost}, without which"):
        ParsingCheckpointer(_Model(), str(tmp_path)).load(str(path))


def test_failed_write_keeps_the_earlier_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpointer = ParsingCheckpointer(_Model(), str(tmp_path))
    checkpointer.save("model_final", iteration=1)
    before = (tmp_path / "model_final.pth").read_bytes()

    def fill_disk(content: Any, file: Any) -> None:
        file.write(b"half a file")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints.torch, "save", fill_disk)
    with pytest.raises(InputError, match=r"model_final.pth cannot be written.*No space left"):
        checkpointer.save("model_final", iteration=2)
    assert (tmp_path / "model_final.pth").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "last_checkpoint",
        "model_final.pth",
    ]


def test_other_class_count_is_told_in_classes(tmp_path: Path) -> None:
    torch.save(_Model(18).state_dict(), tmp_path / "w.pth")
    with pytest.raises(InputError, match="trained for 18 classes and .*NUM_CLASSES is 20"):
        load_model_weights(_Model(20), str(tmp_path / "w.pth"))


def test_other_shape_names_key_and_both_shapes(tmp_path: Path) -> None:
    torch.save(_Model(width=5).state_dict(), tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"body.weight has shape \(5, 3\) there and \(4, 3\) here"):
        load_model_weights(_Model(), str(tmp_path / "w.pth"))


def test_missing_and_unknown_keys_are_named_and_nothing_changes(tmp_path: Path) -> None:
    state = {name: value + 1 for name, value in _Model().state_dict().items()}
    state["body.gain"] = state.pop("body.bias")
    torch.save(state, tmp_path / "w.pth")
    model = _Model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(InputError, match=r"lacks body.bias and it has body.gain"):
        load_model_weights(model, str(tmp_path / "w.pth"))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_non_persistent_buffers_are_not_asked_for(tmp_path: Path) -> None:
    torch.save(_Model().state_dict(), tmp_path / "w.pth")
    load_model_weights(_Model(), str(tmp_path / "w.pth"))


def test_foreign_file_is_no_checkpoint(tmp_path: Path) -> None:
    torch.save({"model": _Model().state_dict()}, tmp_path / "w.pth")
    with pytest.raises(InputError, match="no checkpoint of format"):
        ParsingCheckpointer(_Model(), str(tmp_path)).load(str(tmp_path / "w.pth"))


def test_checkpoints_of_a_folder(tmp_path: Path) -> None:
    assert find_checkpoints(tmp_path / "nowhere") == []
    assert latest_checkpoint(tmp_path / "nowhere") is None
    for name in ("model_0000099", "model_init", "model_10000000", "model_best", "other"):
        (tmp_path / f"{name}.pth").touch()
    assert [path.stem for path in periodic_checkpoints(tmp_path)] == [
        *("model_init", "model_0000099", "model_10000000"),
    ]
    assert latest_checkpoint(tmp_path) == tmp_path / "model_10000000.pth"
    (tmp_path / "last_checkpoint").write_text("model_0000099.pth\n")
    assert latest_checkpoint(tmp_path) == tmp_path / "model_0000099.pth"
    (tmp_path / "last_checkpoint").write_text("gone.pth")
    assert latest_checkpoint(tmp_path) == tmp_path / "model_10000000.pth"


def test_names_sort_by_iteration() -> None:
    assert checkpoint_name(-1) == "model_init"
    assert checkpoint_name(99) == "model_0000099"
