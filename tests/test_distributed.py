"""SCHNet in two processes: gradients as in one, frozen towers untouched, weights the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import randomise, relative_error
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.utils import comm
from tiny_lip import OPTS, make_lip

from schnet.config import load_config
from schnet.data.catalog import register_datasets
from schnet.engine.launch import TORCHRUN_VARIABLES, ProcessLayout, launch
from schnet.engine.trainer import ParsingTrainer, _distribute

TWO = ProcessLayout(2, 1, 0, "gloo", "auto")
IGNORED = 255
FROZEN = ("backbone.encoder.", "clip.")
# Labelled share of each image of a batch: uneven halves; and a process without any label.
BATCHES = {"uneven": (1.0, 0.3, 0.02, 0.0), "one half ignored": (1.0, 0.0)}

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Found:
    """What the two processes found, by rank, and the config that they had."""

    cfg: CfgNode
    gradients: list[dict[str, Tensors]]
    runs: list[dict[str, Tensors]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Found]:
    """Start the two processes once, which takes longer than what they do."""
    folder = tmp_path_factory.mktemp("distributed")
    with pytest.MonkeyPatch.context() as patch:
        for name in TORCHRUN_VARIABLES:
            patch.delenv(name, raising=False)
        # The spawned processes find this file and the data.
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        patch.setenv("DETECTRON2_DATASETS", str(folder / "data"))
        make_lip(folder / "data")
        register_datasets()
        own = ("SOLVER.MAX_ITER", "2", "TEST.EVAL_PERIOD", "0", "SOLVER.BASE_LR", "0.01")
        cfg = load_config([], [*OPTS, *own, "OUTPUT_DIR", str(folder / "out")])
        (folder / "config.yaml").write_text(cfg.dump(), encoding="utf-8")
        launch(write_findings, TWO, (str(folder),))
        yield Found(
            cfg,
            [torch.load(folder / f"gradients{rank}.pth") for rank in range(2)],
            [torch.load(folder / f"run{rank}.pth") for rank in range(2)],
        )


def write_findings(folder: str) -> None:
    """Body of a process: its gradients, and its model before and after a run, go to files."""
    register_datasets()
    cfg = load_config([Path(folder) / "config.yaml"])
    torch.save(_gradients(cfg), Path(folder) / f"gradients{comm.get_rank()}.pth")
    torch.manual_seed(comm.get_rank())  # the processes need not start from a common seed
    trainer = ParsingTrainer(cfg)
    before = _everything(trainer)
    trainer.train()
    run = {"before": before, "after": _everything(trainer)}
    torch.save(run, Path(folder) / f"run{comm.get_rank()}.pth")


def _batch(shares: tuple[float, ...]) -> list[dict[str, Any]]:
    """Images of two sizes with these shares of labelled pixels."""
    generator = torch.Generator().manual_seed(5)
    batch = []
    for number, share in enumerate(shares):
        size = (32, 48) if number % 2 else (32, 32)
        image = torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator)
        labels = torch.randint(0, 20, size, generator=generator)
        hidden = torch.rand(size, generator=generator) >= share
        batch.append({"image": image, "sem_seg": labels.masked_fill(hidden, IGNORED)})
    return batch


def _gradients(cfg: CfgNode) -> dict[str, Tensors]:
    """The trained parameters' gradients of each batch, from this process's share of it."""
    rank, world_size = comm.get_rank(), comm.get_world_size()
    gradients = {}
    for name, shares in BATCHES.items():
        torch.manual_seed(0)
        model = build_model(cfg)
        for part in (model.backbone.ftm, model.sem_seg_head):
            randomise(part)  # at its start most of the strengthening has no gradient
        wrapped = _distribute(model.train())
        half = len(shares) // world_size
        losses = wrapped(_batch(shares)[rank * half : (rank + 1) * half])
        torch.stack(list(losses.values())).sum().backward()
        gradients[name] = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    return gradients


def _everything(trainer: ParsingTrainer) -> Tensors:
    """Copies of all parameters and buffers, of those that no checkpoint holds as well."""
    model = trainer.checkpointer.model
    named = [*model.named_parameters(), *model.named_buffers()]
    return {name: value.detach().clone() for name, value in named}


def test_two_halves_have_the_gradients_of_the_whole_batch(found: Found) -> None:
    first, second = found.gradients
    for batch, gradients in _gradients(found.cfg).items():
        for name, gradient in gradients.items():
            assert gradient.dtype == torch.float32 and gradient.any(), name
            assert torch.equal(first[batch][name], second[batch][name]), name
            assert relative_error(first[batch][name], gradient) < 1e-5, name


def test_a_run_leaves_the_frozen_towers_as_they_were_built(found: Found) -> None:
    # Random towers are drawn from a fixed seed: this process's are the same.
    built = build_model(found.cfg)
    frozen = {
        name: value
        for name, value in [*built.named_parameters(), *built.named_buffers()]
        if name.startswith(FROZEN)
    }
    assert "clip.text_features" in frozen
    assert any(name.startswith("backbone.encoder.") for name in frozen)
    assert any(name.endswith("running_mean") for name in frozen)
    for run in found.runs:
        for name, value in frozen.items():
            assert torch.equal(run["before"][name], value), name
            assert torch.equal(run["after"][name], value), name


def test_a_run_trains_the_same_weights_on_both_processes(found: Found) -> None:
    first, second = found.runs
    for name, value in first["after"].items():
        assert torch.equal(value, second["after"][name]), name
    trained = {n for n in first["before"] if n.startswith(("backbone.ftm.", "sem_seg_head."))}
    changed = {n for n in trained if not torch.equal(first["before"][n], first["after"][n])}
    assert len(changed) > 0.9 * len(trained)
