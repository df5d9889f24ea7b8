"""A run's checkpoints: written whole or not at all, loaded strictly, found again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from detectron2.utils import comm
from torch import nn

from schnet.checkpoint import (
    DamagedFileError,
    ParsingCheckpointer,
    checkpoint_name,
    latest_checkpoint,
    load_model_weights,
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
    with pytest.raises(InputError, match=r"lacks body.bias and it has the unknown body.gain"):
        load_model_weights(model, str(tmp_path / "w.pth"))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_non_persistent_buffers_are_not_asked_for(tmp_path: Path) -> None:
    torch.save(_Model().state_dict(), tmp_path / "w.pth")
    load_model_weights(_Model(), str(tmp_path / "w.pth"))


def test_foreign_file_is_no_checkpoint(tmp_path: Path) -> None:
    torch.save({"model": _Model().state_dict()}, tmp_path / "w.pth")
    with pytest.raises(InputError, match="no checkpoint of format"):
        ParsingCheckpointer(_Model(), str(tmp_path)).load(str(tmp_path / "w.pth"))


def _run_of(folder: Path, *iterations: int) -> ParsingCheckpointer:
    """A run's folder with a checkpoint after each iteration; each is told by a weight."""
    model = _Model()
    checkpointer = ParsingCheckpointer(model, str(folder))
    for iteration in iterations:
        model.body.bias.data.fill_(iteration)
        checkpointer.save(checkpoint_name(iteration), iteration=iteration)
    return checkpointer


def _resume(folder: Path) -> tuple[int, float]:
    """The iteration that a new process resumes from, and the weight that tells it."""
    model = _Model()
    content = ParsingCheckpointer(model, str(folder)).resume(folder)
    return content["iteration"], float(model.body.bias.data[0])


def test_resuming_takes_the_newest(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _run_of(tmp_path, -1, 3, 7)
    assert _resume(tmp_path) == (7, 7.0)
    assert not _warnings(caplog)


def _warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    # Other tests may have switched on what is told in less earnest.
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def _flip_a_bit_of_a_weight(path: Path) -> None:
    content = bytearray(path.read_bytes())
    weight = torch.load(path, weights_only=True)["model"]["body.weight"].numpy().tobytes()
    content[content.index(weight) + 2] ^= 1
    path.write_bytes(bytes(content))
    # PyTorch itself would not mind.
    torch.load(path, weights_only=True)


DAMAGES = [_truncate, _empty, _zero, _flip_a_bit_of_a_weight]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_falls_back_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    _run_of(tmp_path, -1, 3, 7)
    newest = tmp_path / "model_0000007.pth"
    damage(newest)
    before = newest.read_bytes()
    with caplog.at_level(logging.WARNING):
        assert _resume(tmp_path) == (3, 3.0)
    (told,) = _warnings(caplog)
    assert told.startswith(f"--resume names {newest}, which is damaged (")
    assert told.endswith(f"the run continues from {tmp_path / 'model_0000003.pth'}")
    assert newest.read_bytes() == before  # left for whoever wants to look at it
    with pytest.raises(DamagedFileError, match="--resume names .*model_0000007.pth.*damaged"):
        ParsingCheckpointer(_Model(), str(tmp_path)).load(str(newest))
    # The run goes on and writes it again.
    _run_of(tmp_path, 7)
    assert _resume(tmp_path) == (7, 7.0)


def test_all_damaged_is_refused(tmp_path: Path) -> None:
    _run_of(tmp_path, -1, 3)
    for path in tmp_path.glob("*.pth"):
        _truncate(path)
    with pytest.raises(InputError) as caught:
        _resume(tmp_path)
    told = str(caught.value)
    assert told.startswith(f"OUTPUT_DIR {tmp_path} holds no checkpoint that is not damaged (")
    assert "model_0000003.pth, model_init.pth" in told
    with pytest.raises(InputError, match="holds no checkpoint to resume from: start without"):
        _resume(tmp_path / "nowhere")


def test_only_damage_falls_back(tmp_path: Path) -> None:
    """What is whole and of another model, or foreign, is refused: older ones would be as well."""
    _run_of(tmp_path, -1, 3)
    newest = tmp_path / "model_0000003.pth"
    other = ParsingCheckpointer(_Model(width=5), str(tmp_path))
    other.save("model_0000003", iteration=3)
    with pytest.raises(InputError, match=f"--resume takes {newest}, which does not fit"):
        _resume(tmp_path)
    torch.save({"format": "schnet-checkpoint/3"}, newest)
    with pytest.raises(InputError, match="newer version"):
        _resume(tmp_path)
    torch.save({"model": Path("x")}, newest)
    with pytest.raises(InputError, match="Python objects other than tensors"):
        _resume(tmp_path)


def test_every_process_resumes_from_what_the_main_one_chose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system may show a process what it does not show another yet."""
    _run_of(tmp_path, -1, 3, 7)
    chosen = (str(tmp_path / "model_0000003.pth"), "")
    given = []

    def all_gather(own: tuple[str, str]) -> list[tuple[str, str]]:
        given.append(own)
        return [chosen, own]

    monkeypatch.setattr(comm, "is_main_process", lambda: False)
    monkeypatch.setattr(comm, "all_gather", all_gather)
    assert _resume(tmp_path) == (3, 3.0)
    assert given == [("", "")]  # it has not looked for itself
    chosen = ("", "all are damaged: restore one")
    with pytest.raises(InputError, match="^all are damaged: restore one$"):
        _resume(tmp_path)


def test_the_main_process_shares_its_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Raised before it is shared, it would leave the others waiting."""
    given = []

    def all_gather(own: tuple[str, str]) -> list[tuple[str, str]]:
        given.append(own)
        return [own]

    monkeypatch.setattr(comm, "all_gather", all_gather)
    with pytest.raises(InputError, match="no checkpoint to resume from"):
        _resume(tmp_path)
    assert given[0][0] == "" and "no checkpoint to resume from" in given[0][1]
