"""What runs a model: torch, or onnxruntime for an exported graph. Each is imported when chosen."""

from __future__ import annotations

from typing import Any

from schnet.photo_parser import PhotoParser

TORCH, ONNX = "torch", "onnx"
ONNX_ENDING = ".onnx"


def engine_of(weights: str) -> str:
    """The engine of a model, by the ending of its file: `ONNX` or `TORCH`."""
    return ONNX if weights.lower().endswith(ONNX_ENDING) else TORCH


def pin_weights(weights: str, engine: str) -> str:
    """Settle which file of weights is meant, so that all who load the model take the same one.

    Raises:
        InputError: there is none, see `schnet.trained.find_weights`.
    """
    if engine == ONNX:
        return weights
    from schnet.trained import find_weights

    return find_weights(weights)


def load_photo_parser(
    weights: str, engine: str, *, threads: int | None = None, **options: Any
) -> PhotoParser:
    """Load a model.

    Args:
        weights: what the engine loads.
        engine: `TORCH` or `ONNX`.
        threads: of onnxruntime; None takes all cores.
        options: of `schnet.inference.Parser.load`; onnxruntime has none of them.

    Raises:
        InputError: a file is missing or cannot be used, or the device is not there.
    """
    if engine == ONNX:
        from schnet.onnx_parser import OnnxParser

        return OnnxParser.load(weights, threads=threads)
    from schnet.inference import Parser

    return Parser.load(weights, **options)
