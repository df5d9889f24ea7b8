"""Writing a recorded graph in each format, and running the file that was written."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.torch_version import TorchVersion

from schnet.errors import InputError
from schnet.graph_export.metadata import EXTRA_FILE, KEY, GraphMetadata
from schnet.onnx_parser import INPUT_NAME, OUTPUT_NAME, open_session, run_session

ONNX, TORCHSCRIPT, TORCH_EXPORT = "onnx", "torchscript", "torch_export"
ENDINGS = {ONNX: ".onnx", TORCHSCRIPT: ".ts", TORCH_EXPORT: ".pt2"}
"""Formats, and how their files' names end."""
DEFAULT_OPSET = 18
LOWEST_OPSET = 18
_HIGHEST_OPSET = 23
LEAST_TORCH = "2.9"
"""What records a model. Up to 2.7 the recorder refuses the model, measured with 2.6.0
and 2.7.1."""
LARGEST_ONNX_BYTES = 2_000_000_000
"""A little less than Protocol Buffers hold in one file."""

RunGraph = Callable[[torch.Tensor], torch.Tensor]
"""Images (B, 3, H, W) fp32 to logits (B, K, h, w)."""


def write_graph(
    program: ExportedProgram,
    path: Path,
    kind: str,
    metadata: GraphMetadata,
    opset: int = DEFAULT_OPSET,
) -> None:
    """Write a graph and what is to be known of it.

    Args:
        program: the graph.
        path: the file, which is overwritten.
        kind: a key of `ENDINGS`.
        metadata: goes into the file.
        opset: of ONNX.

    Raises:
        InputError: ONNX is not installed, or cannot hold the model in one file.
    """
    if kind == ONNX:
        _write_onnx(program, path, metadata, opset)
    elif kind == TORCHSCRIPT:
        _write_torchscript(program, path, metadata)
    else:
        _write_torch_export(program, path, metadata)


def open_graph(path: Path, kind: str, threads: int) -> RunGraph:
    """Read a written file, as its users will.

    Args:
        path: the file.
        kind: a key of `ENDINGS`.
        threads: of onnxruntime; torch has its own setting.
    """
    if kind == ONNX:
        session = open_session(path, threads)
        return lambda images: torch.from_numpy(run_session(session, images.numpy()))
    if kind == TORCH_EXPORT:
        return torch.export.load(path).module()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # TorchScript is no longer developed
        return torch.jit.load(path, map_location="cpu").eval()


def read_metadata(path: Path, kind: str) -> GraphMetadata:
    """What a written file says of itself."""
    if kind == ONNX:
        entries = open_session(path).get_modelmeta().custom_metadata_map
        return GraphMetadata.from_json(entries[KEY])
    found: dict[str, Any] = {EXTRA_FILE: ""}
    if kind == TORCH_EXPORT:
        torch.export.load(path, extra_files=found)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            torch.jit.load(path, _extra_files=found)
    return GraphMetadata.from_json(found[EXTRA_FILE])


def require_torch(kind: str) -> None:
    """Refuse a format that the installed torch is too old for.

    Raises:
        InputError: it names the version that is needed.
    """
    if TorchVersion(torch.__version__) < LEAST_TORCH:
        raise InputError(
            f"--format {kind} needs torch {LEAST_TORCH} or newer, and {torch.__version__} is "
            "installed: install a newer one with the torchvision that goes with it"
        )


def require_onnx() -> None:
    """Refuse where the packages that write ONNX are not there.

    Raises:
        InputError: it names them, and what to install.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"the package {error.name} is not installed, which an export to ONNX needs: "
            "pip install 'schnet[onnx]'"
        ) from None


def highest_opset() -> int:
    """The highest opset that torch says it writes and the installed onnx knows."""
    import onnx

    try:
        from torch.onnx._constants import ONNX_MAX_OPSET as written
    except ImportError:  # torch has no public name for it
        written = _HIGHEST_OPSET
    return min(written, onnx.defs.onnx_opset_version())


def add_metadata(model: Any, metadata: GraphMetadata) -> None:
    """Put metadata into an ONNX model, in the place of what it has."""
    import onnx

    onnx.helper.set_model_props(model, {KEY: metadata.as_json()})


def _write_onnx(program: ExportedProgram, path: Path, metadata: GraphMetadata, opset: int) -> None:
    import onnx

    size = sum(t.numel() * t.element_size() for t in program.state_dict.values())
    if size > LARGEST_ONNX_BYTES:
        raise InputError(
            f"the model has {size / 1e9:.1f} GB of weights, and an ONNX file holds 2: export it as "
            f"{TORCH_EXPORT}"
        )
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the exporter about itself
        logging.getLogger("onnxscript").setLevel(logging.ERROR)
        done = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=opset,
            external_data=False,
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            verbose=False,
        )
    assert done is not None
    model = done.model_proto
    add_metadata(model, metadata)
    onnx.checker.check_model(model, full_check=True)
    onnx.save_model(model, str(path))


def _write_torch_export(program: ExportedProgram, path: Path, metadata: GraphMetadata) -> None:
    # torch 2.9 and later write down all that the recorder took for granted of open sizes, such as
    # that a photo has several windows, and the file would refuse most photos with it. The operators
    # are right without: they are compared at other sizes. What is left is what sizes must be;
    # torch looks for the range by itself.
    if hasattr(program, "_guards_code"):
        multiples = [
            f"L['{INPUT_NAME}'].size()[{axis}] % {metadata.multiple} == 0" for axis in (2, 3)
        ]
        program._guards_code = multiples if metadata.size is None else []
    torch.export.save(program, path, extra_files={EXTRA_FILE: metadata.as_json()})


def _write_torchscript(program: ExportedProgram, path: Path, metadata: GraphMetadata) -> None:
    # Of old: there are no guards then.
    has_guards = "check_guards" in inspect.signature(program.module).parameters
    module = program.module(check_guards=False) if has_guards else program.module()
    # Without its hooks, which compare sizes in Python: a trace does not bear that.
    plain = torch.fx.GraphModule(module, module.graph)
    (example,), _ = program.example_inputs
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # TorchScript is no longer developed
        traced = torch.jit.trace(plain, (example,), check_trace=False)
        torch.jit.save(traced, path, _extra_files={EXTRA_FILE: metadata.as_json()})
