"""Two processes: gradients and averages as in one, frozen towers untouched, bad steps agreed on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import CONFIGS, randomise, relative_error
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.utils import comm
from pixel_parser import pixel_parser_registered
from spawned import TWO, prepare_spawning
from step_fakes import ValueModel, item, run_steps, step_trainer
from tiny_lip import OPTS, make_lip

from schnet.config import load_config
from schnet.data.catalog import register_datasets
from schnet.engine.launch import launch
from schnet.engine.trainer import ParsingTrainer, _distribute
from schnet.errors import InputError

IGNORED = 255
FROZEN = ("backbone.encoder.", "clip.")
# Labelled share of each image of a batch: uneven halves; and a process without any label.
BATCHES = {"uneven": (1.0, 0.3, 0.02, 0.0), "one half ignored": (1.0, 0.0)}
# As the trainer's numbers of parts and MODEL.SAM.ACTIVATION_CHECKPOINTING.
WAYS = {"whole": (1, False), "in parts": (2, False), "in parts, recomputed": (2, True)}

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Found:
    """What the two processes found, by rank, and the config that they had."""

    cfg: CfgNode
    gradients: list[dict[str, dict[str, Tensors]]]
    runs: list[dict[str, Tensors]]
    averages: list[dict[str, Any]]
    bad: list[dict[str, Any]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Found]:
    """Start the two processes once, which takes longer than what they do."""
    folder = tmp_path_factory.mktemp("distributed")
    with pytest.MonkeyPatch.context() as patch:
        prepare_spawning(patch, folder / "data")
        make_lip(folder / "data")
        register_datasets()
        own = ("SOLVER.MAX_ITER", "2", "TEST.EVAL_PERIOD", "0", "SOLVER.BASE_LR", "0.01")
        cfg = load_config([], [*OPTS, *own, "OUTPUT_DIR", str(folder / "out")])
        (folder / "config.yaml").write_text(cfg.dump(), encoding="utf-8")
        launch(write_findings, TWO, (str(folder),))
        names = ("gradients", "run", "average", "bad")
        yield Found(
            cfg, *([torch.load(folder / f"{name}{rank}.pth") for rank in (0, 1)] for name in names)
        )


def write_findings(folder: str) -> None:
    """Body of a process: what it finds goes to files."""
    register_datasets()
    cfg = load_config([Path(folder) / "config.yaml"])

    def write(name: str, findings: Any) -> None:
        torch.save(findings, Path(folder) / f"{name}{comm.get_rank()}.pth")

    write("gradients", {way: _gradients(cfg, folder, *WAYS[way]) for way in WAYS})
    torch.manual_seed(comm.get_rank())  # the processes need not start from a common seed
    trainer = ParsingTrainer(cfg)
    before = _everything(trainer)
    trainer.train()
    write("run", {"before": before, "after": _everything(trainer)})
    write("average", _averaged(cfg, f"{folder}/halves", parts=2))
    write("bad", _bad_steps(Path(folder) / "bad"))


def _averaged(cfg: CfgNode, output: str, parts: int) -> dict[str, Any]:
    """The average of a run of the least model, in parts."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.OUTPUT_DIR, cfg.MODEL.META_ARCHITECTURE = output, "PixelParser"
    cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.ACCUMULATE_STEPS = 4, parts
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.EMA.ENABLED = 5, True
    torch.manual_seed(comm.get_rank())
    with pixel_parser_registered():
        trainer = ParsingTrainer(cfg)
        trainer.train()
    return trainer._ema.state_dict()


def _bad_steps(folder: Path) -> dict[str, Any]:
    """Steps in two parts; bad in the first part of process 1, then in the second of process 0."""
    rank = comm.get_rank()

    def part(name: str, bad_on: int = -1) -> list[dict[str, Any]]:
        return [item(math.nan if rank == bad_on else 1.0, rank, name=f"{name}{rank}.jpg")]

    bad = [part("a"), part("b"), part("c", 1), part("d"), part("e"), part("f")]
    model = ValueModel()
    trainer = step_trainer(
        _distribute(model), [*bad, part("g"), part("h", 0)], folder, accumulate_steps=2, allowed=1
    )
    weights, told = [], ""
    try:
        for _ in range(4):
            run_steps(trainer)
            weights.append(model.weight.tolist())
    except InputError as error:
        told = str(error)
    return {"weights": weights, "told": told}


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


def _gradients(
    cfg: CfgNode, folder: str, parts: int = 1, recomputed: bool = False
) -> dict[str, Tensors]:
    """The trained parameters' gradients of each batch, from this process's share of it."""
    rank, world_size = comm.get_rank(), comm.get_world_size()
    gradients = {}
    for name, shares in BATCHES.items():
        torch.manual_seed(0)
        model = build_model(cfg)
        model.backbone.activation_checkpointing = recomputed
        for part in (model.backbone.ftm, model.sem_seg_head):
            randomise(part)  # at its start most of the strengthening has no gradient
        size = len(shares) // world_size
        own = _batch(shares)[rank * size : (rank + 1) * size]
        # A share of one image has one part.
        count = min(parts, size)
        batches = [own[i : i + size // count] for i in range(0, size, size // count)]
        wrapped = _distribute(model)
        run_steps(step_trainer(wrapped, batches, Path(folder), accumulate_steps=count))
        gradients[name] = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    return gradients


def _everything(trainer: ParsingTrainer) -> Tensors:
    """Copies of all parameters and buffers, of those that no checkpoint holds as well."""
    model = trainer.checkpointer.model
    named = [*model.named_parameters(), *model.named_buffers()]
    return {name: value.detach().clone() for name, value in named}


@pytest.mark.parametrize("way", WAYS)
def test_two_halves_have_the_gradients_of_the_whole_batch(
    found: Found, tmp_path: Path, way: str
) -> None:
    first, second = (gradients[way] for gradients in found.gradients)
    for batch, gradients in _gradients(found.cfg, str(tmp_path)).items():
        for name, gradient in gradients.items():
            assert gradient.dtype == torch.float32 and gradient.any(), name
            assert torch.equal(first[batch][name], second[batch][name]), name
            assert relative_error(first[batch][name], gradient) < 1e-5, name


def test_recomputed_layers_change_no_bit(found: Found) -> None:
    for gradients in found.gradients:
        for batch, plain in gradients["in parts"].items():
            for name, gradient in plain.items():
                recomputed = gradients["in parts, recomputed"][batch][name]
                assert torch.equal(recomputed, gradient), name


def test_average_is_that_of_one_process_with_the_whole_batch(found: Found, tmp_path: Path) -> None:
    first, second = found.averages
    whole = _averaged(found.cfg, str(tmp_path), parts=1)
    assert first["updates"] == second["updates"] == whole["updates"] == 5
    for name, value in whole["model"].items():
        assert torch.equal(first["model"][name], second["model"][name]), name
        assert torch.allclose(first["model"][name], value, rtol=1e-3, atol=1e-5), name


def test_processes_agree_on_bad_steps_and_none_waits(found: Found) -> None:
    first, second = found.bad
    assert first == second
    assert first["weights"] == [[-1.0, -0.5], [-1.0, -0.5], [-2.0, -1.0]]
    assert "iteration 3" in first["told"] and "rank0.pth" in first["told"]
    assert "h0.jpg" in first["told"] and "h1.jpg" not in first["told"]
    folder = Path(found.cfg.OUTPUT_DIR).parent / "bad" / "bad_batches"
    assert {path.stem for path in folder.iterdir()} == {
        "iteration_0000001_rank1",
        "iteration_0000003_rank0",
    }


ABLATIONS = sorted((CONFIGS / "ablations").glob("*.yaml"))


@pytest.mark.parametrize(
    "files",
    [[], *([file] for file in ABLATIONS)],
    ids=["whole", *(file.stem for file in ABLATIONS)],
)
@pytest.mark.parametrize("classifier", ["linear", "text"])
@pytest.mark.parametrize("base", ["lip.yaml", "quickstart.yaml"])
def test_every_trained_parameter_takes_part_in_every_step(
    tiny_cfg: Callable[..., CfgNode], base: str, files: list[Path], classifier: str
) -> None:
    """So that DDP need not look for unused ones; also where no pixel has a label."""
    opts = ["MODEL.SEM_SEG_HEAD.CLASSIFIER", classifier]
    model = build_model(tiny_cfg(opts, [CONFIGS / base, *files])).train()
    batch = _batch((0.0,))
    torch.stack(list(model(batch).values())).sum().backward()
    trained = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert trained and not [name for name, gradient in trained.items() if gradient is None]


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
