from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from parsing_fakes import write_tiny_model

from schnet.config import load_config
from schnet.errors import InputError
from schnet.exported import build_trained_model
from schnet.graph_export.metadata import KEY, GraphMetadata
from schnet.inference import Parser
from schnet.modeling import resample as r
from schnet.onnx_parser import OnnxParser

KINDS = {
    r.LINEAR: ("bilinear", False),
    r.SMOOTH_LINEAR: ("bilinear", True),
    r.CUBIC: ("bicubic", False),
    r.SMOOTH_CUBIC: ("bicubic", True),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(16, 24), (7, 50), (40, 9), (1, 1)])
def test_matrices_resize_as_torch_does(kind: str, size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, 16, 24)
    mode, antialias = KINDS[kind]
    expected = F.interpolate(x, size=size, mode=mode, align_corners=False, antialias=antialias)
    assert torch.allclose(r.resample(x, size, kind), expected, atol=2e-5)


@pytest.mark.parametrize("protocol", ["upsample_logits", "warp_labels"])
def test_labels_agree_with_the_parser(tmp_path: Path, protocol: str) -> None:
    config, weights = write_tiny_model(tmp_path)
    opts = ("TEST.PROTOCOL", protocol, "INPUT.SIZE_TEST", "[60, 90]", "TEST.DTYPE", "float32")
    cfg = load_config([config], ["MODEL.WEIGHTS", str(weights), *opts])
    parser, model = Parser.from_config(cfg), build_trained_model(cfg).eval()
    red, green, blue = cfg.MODEL.PIXEL_MEAN
    metadata = GraphMetadata(
        classes=parser.classes,
        palette=parser.palette,
        box=(60, 90),
        protocol=protocol,
        pixel_mean=(red, green, blue),
        size=(64, 96) if protocol == "warp_labels" else None,
        multiple=16,
        stride=4,
        precision="float32",
        weights="tiny.pth",
        digest="0",
        schnet_version="0",
    )
    metadata = GraphMetadata.from_json(metadata.as_json())

    def run(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return model.predict(torch.from_numpy(images)).numpy()

    own = OnnxParser(run, metadata)
    generator = np.random.default_rng(0)
    for size in [(70, 1), (1, 33), (61, 47), (60, 90), (1500, 2000), (30, 45)]:
        photo = generator.integers(0, 256, (*size, 3)).astype(np.uint8)
        expected, found = parser(photo), own(photo)
        assert found.labels.shape == size
        assert (found.labels == expected.labels).mean() >= 0.999
        if size[0] < 100:
            assert np.abs(found.probabilities - expected.probabilities).max() < 1e-3


def test_neither_torch_nor_detectron2_is_imported() -> None:
    code = "import schnet.onnx_parser, sys; assert not {'torch', 'detectron2'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_onnxruntime_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.onnx").write_bytes(b"a model")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"onnxruntime is not installed.*schnet\[onnx\]"):
        OnnxParser.load(tmp_path / "a.onnx")


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        (None, "none that tools/export.py wrote"),
        ("no JSON", "export the weights again"),
        ('{"format": "schnet-graph/0"}', "the format is not schnet-graph/1"),
        ('{"format": "schnet-graph/1", "box": [1, 2]}', "KeyError: 'size'"),
    ],
)
def test_a_foreign_model_is_refused(tmp_path: Path, entry: str | None, told: str) -> None:
    onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    numbers = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1])
        for name in ("image", "logits")
    ]
    node = onnx.helper.make_node("Identity", ["image"], ["logits"])
    graph = onnx.helper.make_graph([node], "other", numbers[:1], numbers[1:])
    opsets = [onnx.helper.make_opsetid("", 18)]
    model = onnx.helper.make_model(graph, ir_version=9, opset_imports=opsets)
    if entry is not None:
        onnx.helper.set_model_props(model, {KEY: entry})
    onnx.save_model(model, str(tmp_path / "other.onnx"))
    with pytest.raises(InputError, match=told):
        OnnxParser.load(tmp_path / "other.onnx")


def test_what_is_no_export_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file"):
        OnnxParser.load(tmp_path / "a.onnx")
    (tmp_path / "b.onnx").write_bytes(b"no model")
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    with pytest.raises(InputError, match="no model that onnxruntime can open"):
        OnnxParser.load(tmp_path / "b.onnx")
