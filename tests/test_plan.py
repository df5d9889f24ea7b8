"""tools/plan.py: the table, its file, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from conftest import CONFIGS
from parsing_fakes import load_script

from schnet.config import load_config
from schnet.errors import InputError
from schnet.planning.model import PlannedModel
from schnet.planning.plan import CHECKPOINTING, Run, Size
from schnet.planning.step import StepTrace

LIP = str(CONFIGS / "lip.yaml")
TINY = ("MODEL.SAM.VARIANT", "tiny", "MODEL.CLIP.VARIANT", "tiny")
IMAGE_BYTES = 10**9


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    return load_script("tools/plan.py")


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Instead of traces: one gigabyte and one TFLOP an image; what was asked for."""
    asked: list[dict[str, Any]] = []

    def trace(planned: PlannedModel, size: Size, batch: int, **options: Any) -> StepTrace:
        asked.append({"size": size, "batch": batch, **options})
        return StepTrace(batch, 10**12 * batch, 0, 0, IMAGE_BYTES * batch)

    monkeypatch.setattr("schnet.planning.plan.trace_step", trace)
    return asked


def arguments(*more: str, variant: str = "tiny") -> list[str]:
    return ["--config-file", LIP, "--jobs", "1", "--variant", variant, *more]


def figures(tool: ModuleType, folder: Path, *more: str) -> dict[str, Any]:
    """The JSON of a plan of the tiny model at one small crop."""
    path = folder / "plan.json"
    options = ("--crop", "96", "64", "--json", str(path))
    tool.main(arguments(*options, *more))
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def test_table_and_file(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "new" / "plan.json"
    crops = ("--crop", "64", "48", "--crop", "64", "64")
    gpus = ("--gpus", "8", "--gpu", "h100-sxm", "--gpu-memory", "40", "--efficiency", "0.2")
    tool.main(arguments(*crops, *gpus, "--json", str(path), *TINY))
    out = capsys.readouterr().out
    assert out.startswith(
        "40000 iterations of 16 images on 8 x NVIDIA H100 SXM with 40 GB: 2 images per GPU, 2 at"
    )
    rows = [line.split() for line in out.splitlines() if line.startswith("tiny")]
    assert [row[1:3] for row in rows] == [
        [crop, switch] for crop in ("64x48", "64x64") for switch in CHECKPOINTING
    ]
    assert "assumed efficiency of 0.2" in " ".join(out.split())
    assert "989.5 TFLOP/s" in out and "https://www.nvidia.com" in out

    content = json.loads(path.read_text(encoding="utf-8"))
    assert [(row["crop"], row["checkpointing"]) for row in content["rows"]] == [
        (crop, way) for crop in ([64, 48], [64, 64]) for way in CHECKPOINTING
    ]
    off, mlp, layer = content["rows"][:3]
    assert off["trained"] == mlp["trained"] == layer["trained"] > 0 and off["frozen"] > 0
    assert off["forward_flops"] == mlp["forward_flops"] == layer["forward_flops"]
    assert off["forward_flops"] < off["step_flops"] < mlp["step_flops"] < layer["step_flops"]
    assert off["activation_bytes"] > mlp["activation_bytes"] > layer["activation_bytes"]
    assert off["checkpoint_bytes"] == 3 * 4 * off["trained"]
    assert off["hours"] == pytest.approx(40000 * 2 * off["step_flops"] / (989.5e12 * 0.2) / 3600)
    assert content["efficiency"] == 0.2 and content["gpu"]["memory_bytes"] == 40e9
    assert f"{off['peak_bytes'] / 1e9:.1f}" in rows[0]


def test_what_does_not_fit_is_marked(
    tool: ModuleType, tmp_path: Path, steps: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    row = figures(tool, tmp_path, "--gpu-memory", "1.5", *TINY)["rows"][0]
    assert (row["fits"], row["largest_batch"]) == (False, 0)
    assert " NO " in capsys.readouterr().out
    row = figures(tool, tmp_path, "--gpu-memory", "80", *TINY)["rows"][0]
    assert row["fits"] and row["largest_batch"] == 74  # of 1.05 GB each, beside 1.5 and some
    assert row["activation_bytes"] == IMAGE_BYTES
    assert row["peak_bytes"] == pytest.approx(1.05 * 16 * IMAGE_BYTES + 1.5e9, rel=0.01)
    assert " NO " not in capsys.readouterr().out


def test_switches_of_the_run_count(
    tool: ModuleType, tmp_path: Path, steps: list[dict[str, Any]]
) -> None:
    plain = figures(tool, tmp_path, *TINY)["rows"][0]
    assert plain["held"]["average"] == plain["held"]["buckets"] == plain["held"]["gradients"] == 0
    assert [step["batch"] for step in steps[:2]] == [16, 64]
    assert steps[0]["autocast_dtype"] is torch.bfloat16 and not steps[0]["gradients_exist"]
    trained = 4 * plain["trained"]

    ema = figures(tool, tmp_path, *TINY, "SOLVER.EMA.ENABLED", "True")["rows"][0]
    assert ema["held"]["average"] == trained
    assert ema["peak_bytes"] - plain["peak_bytes"] == pytest.approx(trained)
    assert ema["checkpoint_bytes"] - plain["checkpoint_bytes"] == trained

    steps.clear()
    parts = figures(tool, tmp_path, "--gpus", "2", *TINY, "SOLVER.ACCUMULATE_STEPS", "4")
    held = parts["rows"][0]["held"]
    assert held["buckets"] == held["gradients"] == trained
    assert (parts["run"]["images_per_gpu"], parts["run"]["images_at_once"]) == (8, 2)
    assert steps[0]["batch"] == 2 and steps[0]["gradients_exist"]
    # Eight images a GPU count for the hours, two for the memory.
    assert parts["rows"][0]["hours"] == pytest.approx(plain["hours"] / 2)
    assert parts["rows"][0]["peak_bytes"] < plain["peak_bytes"] - 13 * IMAGE_BYTES

    steps.clear()
    full = figures(tool, tmp_path, *TINY, "SOLVER.AMP.ENABLED", "False")
    assert full["rows"][0]["hours"] is None and steps[0]["autocast_dtype"] is None
    assert any("no rate" in line for line in full["assumptions"])


def test_defaults_are_the_configs_and_the_usual(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []
    monkeypatch.setattr(tool, "plan_model", lambda job: asked.append(job) or [])
    size = ("INPUT.SIZE", "[576, 384]")
    tool.main(["--config-file", LIP, "--jobs", "1", *TINY, *size])
    sams = [job.cfg.MODEL.SAM for job in asked]
    planned = {(s.VARIANT, s.ACTIVATION_CHECKPOINTING and s.RECOMPUTED) for s in sams}
    names = ("tiny", "vit_b", "vit_l", "vit_h")
    assert planned == {(name, switch) for name in names for switch in (False, "mlp", "layer")}
    assert asked[0].cfg.MODEL.SAM.VARIANT == "vit_h", "the largest first"
    assert {job.crops for job in asked} == {((576, 384), (512, 512), (1024, 1024))}
    assert len(asked) == 12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--gpu", "abacus"], "--gpu is 'abacus': give one of a100-40gb"),
        (["--gpus", "0"], "--gpus is 0"),
        (["--gpus", "3"], "IMS_PER_BATCH gives 16 images.*multiple of 3"),
        (["--gpus", "32"], "IMS_PER_BATCH gives 16 images.*multiple of 32"),
        (["--gpu-memory", "-1"], "--gpu-memory is -1"),
        (["--gpu-memory", "nan"], "--gpu-memory is nan"),
        (["--efficiency", "0"], "--efficiency is 0"),
        (["--efficiency", "35"], "--efficiency is 35"),
        (["--jobs", "0"], "--jobs is 0"),
        (["--crop", "500", "512"], "INPUT.SIZE is"),
        (["--crop", "0", "512"], "INPUT.SIZE is"),
        (["--variant", "vit_g"], "--variant is 'vit_g': give some of vit_b"),
        (["--json", "."], "--json . is a folder"),
        (["SOLVER.ACCUMULATE_STEPS", "3"], "multiple of 3 .*ACCUMULATE_STEPS"),
        (["SOLVER.REFERENCE_WORLD_SIZE", "3"], "multiple of 3 .*REFERENCE_WORLD_SIZE"),
        (["MODEL.SEM_SEG_HEAD.NUM_CLASSES", "7"], "has 20 classes"),
        (["NO.KEY", "1"], "NO"),
    ],
)
def test_bad_input_is_told_before_anything_is_planned(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str
) -> None:
    monkeypatch.setattr(tool, "plan_model", lambda job: pytest.fail("planned"))
    with pytest.raises(InputError, match=message):
        tool.main(arguments(*options))


def test_bfloat16_on_a_gpu_without_it_is_refused(tool: ModuleType, steps: list[Any]) -> None:
    with pytest.raises(InputError, match="SOLVER.AMP.DTYPE is bfloat16"):
        tool.main(
            arguments(
                "--crop", "64", "64", "--gpu", "v100-sxm", *TINY, "SOLVER.AMP.DTYPE", "bfloat16"
            )
        )


def test_a_run_is_scaled_to_the_gpus() -> None:
    cfg = load_config([LIP], ["SOLVER.REFERENCE_WORLD_SIZE", "8"])
    run = Run.from_config(cfg, 4)
    assert (run.images_per_gpu, run.images_at_once, run.iterations) == (2, 2, 80000)
    plain = Run.from_config(load_config([LIP]), 4)
    assert (plain.images_per_gpu, plain.iterations) == (4, 40000)
    assert plain.amp_dtype == "auto" and not plain.has_ema


def test_help_tells_the_assumptions(tool: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        tool.main(["--help"])
    assert ended.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "efficiency is an assumption" in text and "h100-pcie" in text


@pytest.mark.slow
def test_lip_with_all_variants(tool: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    tool.main(["--config-file", LIP, "--gpus", "8", "--gpu", "h100-sxm", "--json", str(path)])
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    at_512 = [row for row in rows if row["crop"] == [512, 512] and row["checkpointing"] == "off"]
    frozen = {row["variant"]: row["frozen"] for row in at_512}
    assert 300e6 < frozen["vit_l"] - 56.3e6 < 310e6  # as tests/test_full_size.py finds them
    assert frozen["vit_b"] < frozen["vit_l"] < frozen["vit_h"]
    assert all(row["trained"] < 0.15 * row["frozen"] for row in rows)
    for off, mlp, layer in zip(rows[::3], rows[1::3], rows[2::3], strict=True):
        assert layer["peak_bytes"] < mlp["peak_bytes"] < off["peak_bytes"]
        assert layer["step_flops"] > mlp["step_flops"] > off["step_flops"]
