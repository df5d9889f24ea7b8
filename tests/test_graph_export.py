from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from parsing_fakes import load_script, write_tiny_model

from schnet.errors import InputError
from schnet.graph_export.formats import ENDINGS, read_metadata
from schnet.graph_export.parity import generated_pictures
from schnet.inference import Parser
from schnet.onnx_parser import OnnxParser


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


@pytest.mark.slow
def test_an_open_size_is_parsed_as_in_torch(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    weights, output = _model(tmp_path), tmp_path / "out.onnx"
    load_script("tools/export.py").main([str(weights), "--format", "onnx", "--output", str(output)])
    parser, own = Parser.load(weights, device="cpu", dtype="float32"), OnnxParser.load(output)
    for photo in [*generated_pictures(), np.full((90, 1, 3), 7, np.uint8)]:
        assert (own(photo).labels == parser(photo).labels).mean() >= 0.999
