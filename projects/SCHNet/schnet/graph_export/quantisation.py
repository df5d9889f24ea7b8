"""Weights in eight bits: a quarter of an ONNX file, and integer products where a CPU has them."""

from __future__ import annotations

from pathlib import Path

from schnet.graph_export.formats import add_metadata
from schnet.graph_export.metadata import GraphMetadata


def quantise_weights(source: Path, target: Path, metadata: GraphMetadata) -> None:
    """Store the weights of an ONNX file's matrix products as int8, one scale an output channel.

    Activations are quantised as they come, a scale a tensor, by onnxruntime's dynamic
    quantisation. Convolutions stay in fp32: onnxruntime's integer ones are slower on CPUs.

    Args:
        source: an ONNX file in fp32.
        target: the file to write, which is overwritten.
        metadata: what the new file says of itself.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    folded = target.with_name(f"{target.stem}.folded{target.suffix}")
    try:
        # It folds the transposition of each weight, without which none would be found.
        quant_pre_process(str(source), str(folded), skip_symbolic_shape=True)
        quantize_dynamic(
            str(folded),
            str(target),
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QInt8,
        )
    finally:
        folded.unlink(missing_ok=True)
    model = onnx.load_model(str(target))
    add_metadata(model, metadata)
    onnx.checker.check_model(model)
    onnx.save_model(model, str(target))
