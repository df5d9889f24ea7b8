from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from parsing_fakes import load_script, write_tiny_model
from torch import nn
from word_models import TEXT, noise, write_run

from schnet.errors import InputError
from schnet.exported import build_trained_model
from schnet.graph_export import export
from schnet.graph_export.formats import (
    ENDINGS,
    LEAST_TORCH,
    ONNX,
    TORCH_EXPORT,
    TORCHSCRIPT,
    open_graph,
    read_metadata,
    write_graph,
)
from schnet.graph_export.metadata import GraphMetadata
from schnet.graph_export.parity import generated_pictures
from schnet.inference import Parser
from schnet.onnx_parser import OnnxParser
from schnet.trained import trained_config


def _model(folder: Path) -> Path:
    config, weights = write_tiny_model(folder)
    config.rename(folder / "config.yaml")
    return weights


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--format", "onnx", "--output", "a.pt2"), "end its name in .onnx"),
        (("--format", "torchscript", "--output", "a.ts", "--dynamic"), "one size"),
        (("--format", "torchscript", "--output", "a.ts", "--int8"), "of onnx"),
        (("--format", "torch_export", "--output", "a.pt2", "--size", "60", "64"), "multiples"),
    ],
)
def test_what_cannot_be_is_refused(options: tuple[str, ...], told: str) -> None:
    with pytest.raises(InputError, match=told):
        load_script("tools/export.py").main(["weights.pth", *options])


@pytest.mark.parametrize("key", ["TEST.AUG.ENABLED", "TEST.SLIDING_WINDOW.ENABLED"])
def test_more_than_one_look_at_a_photo_is_refused(tmp_path: Path, key: str) -> None:
    weights, output = _model(tmp_path), tmp_path / "out.pt2"
    given = [str(weights), "--format", "torch_export", "--output", str(output)]
    with pytest.raises(InputError, match=f"--opts {key} False"):
        load_script("tools/export.py").main([*given, "--opts", key, "True"])


@pytest.mark.parametrize(
    ("opts", "told"),
    [
        (("--report", "report.txt"), "end its name in .md"),
        (("--photos", "nowhere"), "there is no folder nowhere"),
        (("--opset", "11"), "--opset is 11: give 18 to 2[0-9]$"),
        (("--opset", "99"), "--opset is 99: give 18 to 2[0-9]$"),
        (("--size", "64", "64", "--dynamic"), "give one"),
    ],
)
def test_impossible_options(tmp_path: Path, opts: tuple[str, ...], told: str) -> None:
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    given = ["weights.pth", "--format", "onnx", "--output", str(tmp_path / "out.onnx")]
    with pytest.raises(InputError, match=told):
        load_script("tools/export.py").main([*given, *opts])


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript"])
def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    given = ["weights.pth", "--format", "onnx", "--output", "out.onnx"]
    with pytest.raises(InputError, match=rf"{package} is not installed.*schnet\[onnx\]"):
        load_script("tools/export.py").main(given)


def test_what_no_onnx_file_can_hold_is_told(tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="the extra onnx is not installed")
    large: Any = SimpleNamespace(state_dict={"w": torch.empty(2**31, 1, device="meta")})
    metadata: Any = None
    with pytest.raises(InputError, match="8.6 GB of weights.*torch_export"):
        write_graph(large, tmp_path / "out.onnx", ONNX, metadata)


def test_an_export_that_disagrees_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, output = _model(tmp_path), tmp_path / "out.pt2"
    monkeypatch.setattr(export, "record", lambda *args, **options: None)
    monkeypatch.setattr(export, "write_graph", lambda program, path, *rest: path.write_text("x"))

    def all_of_one_label(image: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(1, 20, image.shape[2] // 4, image.shape[3] // 4)
        logits[:, 3] = 1.0
        return logits

    monkeypatch.setattr(export, "open_graph", lambda *args: all_of_one_label)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=r"on \d+\.\d+ % of the labels.*is not written"):
        load_script("tools/export.py").main(
            [str(weights), "--format", "torch_export", "--output", str(output)]
        )
    assert sorted(tmp_path.iterdir()) == before


def test_what_a_runtime_says_of_its_graph_is_told_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, output = _model(tmp_path), tmp_path / "out.pt2"
    monkeypatch.setattr(export, "record", lambda *args, **options: None)
    monkeypatch.setattr(export, "write_graph", lambda program, path, *rest: path.write_text("x"))

    def failing(image: torch.Tensor) -> torch.Tensor:
        raise AssertionError("Guard failed:\n" + 200 * "size != 1 ")

    monkeypatch.setattr(export, "open_graph", lambda *args: failing)
    before = sorted(tmp_path.iterdir())
    told = (
        r"torch_export float32 cannot be run .*\(AssertionError: Guard failed: size.{1,200}\): it"
    )
    with pytest.raises(InputError, match=told):
        load_script("tools/export.py").main(
            [str(weights), "--format", "torch_export", "--output", str(output)]
        )
    assert sorted(tmp_path.iterdir()) == before


def test_eight_bits_that_disagree_are_written_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    weights, output = _model(tmp_path), tmp_path / "out.onnx"
    graphs: list[Any] = [lambda image: torch.zeros(1, 20, *(s // 4 for s in image.shape[2:]))]
    monkeypatch.setattr(
        export, "record", lambda model, *args, **options: graphs.append(model.predict)
    )
    monkeypatch.setattr(export, "require_onnx", lambda: None)
    monkeypatch.setattr(export, "highest_opset", lambda: 18)
    monkeypatch.setattr(export, "write_graph", lambda program, path, *rest: path.write_text("x"))
    monkeypatch.setattr(export, "open_graph", lambda *args: graphs.pop())
    monkeypatch.setattr(export, "quantise_weights", lambda old, new, data: new.write_text("8"))
    job = export.GraphJob(str(weights), output, ONNX, size=(64, 64), int8=True)
    report = export.export_graph(job)
    assert output.read_text() == "8" and report.rows[2].agreement < 99.9
    assert f"on {report.rows[2].agreement:.3f} % of the labels, less than 99.9 %" in caplog.text


@pytest.mark.parametrize("kind", ENDINGS)
def test_a_torch_that_is_too_old_is_named(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(torch, "__version__", "2.4.1+cpu")
    given = ["weights.pth", "--format", kind, "--output", f"out{ENDINGS[kind]}"]
    least = re.escape(LEAST_TORCH)
    with pytest.raises(
        InputError, match=rf"{kind} needs torch {least} .*2\.4\.1\+cpu is installed"
    ):
        load_script("tools/export.py").main(given)


def test_a_torch_without_guards_writes_torchscript(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Doubled(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return 2 * image

    program = torch.export.export(Doubled(), (torch.ones(1, 3, 16, 16),))
    new = type(program).module
    monkeypatch.setattr(type(program), "module", lambda self: new(self, check_guards=False))
    write_graph(program, tmp_path / "out.ts", TORCHSCRIPT, _metadata((16, 16)))
    assert open_graph(tmp_path / "out.ts", TORCHSCRIPT, 1)(torch.ones(1, 3, 16, 16)).max() == 2


def _metadata(size: tuple[int, int] | None) -> GraphMetadata:
    return GraphMetadata(
        classes=("a",),
        palette=((0, 0, 0),),
        box=(64, 64),
        protocol="upsample_logits",
        pixel_mean=(0.0, 0.0, 0.0),
        size=size,
        multiple=16,
        stride=4,
        precision="float32",
        weights="tiny.pth",
        digest="0",
        schnet_version="0",
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ENDINGS)
def test_each_format_agrees_and_carries_its_metadata(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    weights, output = _model(tmp_path), tmp_path / f"out{ENDINGS[kind]}"
    given = ["--format", kind, "--output", str(output), "--size", "64", "64"]
    load_script("tools/export.py").main([str(weights), *given])
    metadata = read_metadata(output, kind)
    assert metadata.size == metadata.box == (64, 64)
    with pytest.raises(InputError, match="exists"):
        load_script("tools/export.py").main([str(weights), *given])
    if kind == TORCHSCRIPT:
        return
    graph, images = open_graph(output, kind, threads=1), 255 * torch.rand(3, 3, 64, 64)
    single = torch.cat([graph(image[None]) for image in images])
    assert torch.allclose(graph(images), single, rtol=1e-4, atol=1e-4)
    assert (single[0] - single[1]).abs().max() > 1e-2  # not the first one's result for all


@pytest.mark.slow
def test_int8_stores_weights_in_eight_bits_and_is_measured(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
    weights, output = _model(tmp_path), tmp_path / "out.onnx"
    given = [str(weights), "--format", "onnx", "--output", str(output), "--size", "64", "64"]
    load_script("tools/export.py").main([*given, "--int8"])
    assert read_metadata(output, ONNX).precision == "int8"
    graph = onnx.load(str(output)).graph
    stored = [entry for entry in graph.initializer if entry.data_type == onnx.TensorProto.INT8]
    model = build_trained_model(trained_config(weights, "cpu"))
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    assert len(stored) >= len(linear) // 2
    rows = json.loads(Path(f"{output}.parity.json").read_text())["rows"]
    assert [row["name"] for row in rows] == ["torch float32", "onnx float32", "onnx int8"]
    assert rows[2]["bytes"] == output.stat().st_size < rows[1]["bytes"]
    assert rows[1]["max_difference"] < rows[2]["max_difference"]
    assert rows[2]["agreement"] > 95
    assert {path.name for path in tmp_path.iterdir()} == {
        *("config.yaml", weights.name, output.name),
        *(f"{output.name}.parity.md", f"{output.name}.parity.json"),
    }


@pytest.mark.slow
def test_an_open_size_is_parsed_as_in_torch(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    weights, output = _model(tmp_path), tmp_path / "out.onnx"
    load_script("tools/export.py").main([str(weights), "--format", "onnx", "--output", str(output)])
    parser, own = Parser.load(weights, device="cpu", dtype="float32"), OnnxParser.load(output)
    for photo in [*generated_pictures(), np.full((90, 1, 3), 7, np.uint8)]:
        assert (own(photo).labels == parser(photo).labels).mean() >= 0.999


@pytest.mark.slow
def test_a_torch_export_takes_any_size_as_it_is_loaded(tmp_path: Path) -> None:
    weights, output = _model(tmp_path), tmp_path / "out.pt2"
    load_script("tools/export.py").main(
        [str(weights), "--format", "torch_export", "--output", str(output)]
    )
    assert read_metadata(output, TORCH_EXPORT).size is None
    graph = torch.export.load(output).module()
    model = build_trained_model(trained_config(weights, "cpu", "float32")).eval()
    # Smaller than a window of SAM, whole windows, parts of them, and the example's own size.
    for size in [(16, 16), (48, 64), (128, 128), (160, 112), (144, 208), (672, 448)]:
        for batch in (1, 3):
            images = 255 * torch.rand(batch, 3, *size)
            with torch.no_grad():
                assert torch.allclose(graph(images), model.predict(images), rtol=1e-4, atol=1e-4)
    for size in [(40, 64), (64, 40), (4112, 16)]:
        with pytest.raises(AssertionError, match="Guard failed"):
            graph(torch.zeros(1, 3, *size))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("opts", "opset"), [(TEXT, "20"), (("MODEL.CLIP.VARIANT", "ViT-B/32"), "18")]
)
def test_text_classifiers_and_vit_towers_agree(
    tmp_path: Path, opts: tuple[str, ...], opset: str
) -> None:
    onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
    run, output = write_run(tmp_path, *opts, bases=False), tmp_path / "out.onnx"
    given = ["--format", "onnx", "--output", str(output), "--size", "64", "48", "--opset", opset]
    load_script("tools/export.py").main([str(run), *given])
    versions = {entry.domain: entry.version for entry in onnx.load(str(output)).opset_import}
    assert versions[""] == int(opset)
    fitted = ("INPUT.SIZE_TEST", "[64, 48]")
    parser = Parser.load(run, device="cpu", dtype="float32", opts=fitted)
    own = OnnxParser.load(output)
    assert len(np.unique(own(noise(64, 48)).labels)) > 1
    assert (own(noise(64, 48)).labels == parser(noise(64, 48)).labels).mean() >= 0.999
