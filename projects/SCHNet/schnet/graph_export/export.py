"""From trained weights to an exported file that is known to agree with the model."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from detectron2.config import CfgNode
from tqdm import tqdm

from schnet.data.files import atomic_path
from schnet.data.view_sizes import testing_box
from schnet.errors import InputError
from schnet.exported import build_trained_model
from schnet.fingerprints import fingerprint
from schnet.graph_export.formats import (
    DEFAULT_OPSET,
    ENDINGS,
    LOWEST_OPSET,
    ONNX,
    TORCHSCRIPT,
    highest_opset,
    open_graph,
    require_onnx,
    require_torch,
    write_graph,
)
from schnet.graph_export.graph import record
from schnet.graph_export.metadata import GraphMetadata, Size
from schnet.graph_export.parity import (
    LEAST_AGREEMENT,
    Comparison,
    ParityReport,
    ParityRow,
    Pictures,
    load_pictures,
)
from schnet.graph_export.quantisation import quantise_weights
from schnet.modeling.meta_arch import LOGIT_STRIDE, SIDE_MULTIPLE, SCHNet
from schnet.trained import label_list, trained_config
from schnet.versions import version_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class GraphJob:
    """What is asked for.

    Attributes:
        weights: see `schnet.inference.Parser.load`.
        output: the file to write; it must not exist.
        kind: a key of `schnet.graph_export.formats.ENDINGS`.
        size: height and width that photos are fitted into, and of the graph's input; None takes
            the test box.
        dynamic: leave the input's size open; None does where that is what parsing in torch does,
            and the format can.
        opset: of ONNX.
        int8: store weights in eight bits, in ONNX.
        photos: folder of the photos to compare on; None makes pictures up.
    """

    weights: str
    output: Path
    kind: str
    size: Size | None = None
    dynamic: bool | None = None
    opset: int = DEFAULT_OPSET
    int8: bool = False
    photos: Path | None = None


def export_graph(
    job: GraphJob, config_files: Sequence[str] = (), opts: Sequence[str] = ()
) -> ParityReport:
    """Export a model as one graph, compare the file with the model, and keep it if they agree.

    Args:
        job: what is asked for.
        config_files: of a checkpoint, in place of the one beside it.
        opts: config overrides, alternating keys and values.

    Returns:
        What was measured.

    Raises:
        InputError: the job or a file cannot be used, or fewer than 99.9 % of the labels agree in
            fp32; no file is left then. In eight bits that is a warning.
    """
    _check_job(job)
    pictures = load_pictures(job.photos)
    for told in pictures.unreadable:
        logger.warning("left out of the comparison: %s", told)
    cfg = _config(job, config_files, opts)
    model = build_trained_model(cfg).eval()
    if not isinstance(model, SCHNet):
        raise InputError(
            f"MODEL.META_ARCHITECTURE is {cfg.MODEL.META_ARCHITECTURE}: only SCHNet is exported"
        )
    fixed = _graph_size(job, cfg)
    metadata = _metadata(job, cfg, model, fixed)
    with tqdm(total=3 + job.int8, desc="export", unit="step") as steps:
        steps.set_postfix_str("record")
        # A trace keeps every size as a number, the batch's too.
        program = record(model, fixed, one_image=job.kind == TORCHSCRIPT)
        steps.update()
        with ExitStack() as files:
            target = files.enter_context(atomic_path(job.output))
            steps.set_postfix_str("write")
            write_graph(program, target, job.kind, metadata, job.opset)
            del program
            steps.update()
            steps.set_postfix_str("compare")
            rows = _compare(job, model, pictures, metadata, target)
            steps.update(1 + job.int8)
    return ParityReport(
        job.output.name,
        replace(metadata, precision="int8") if job.int8 else metadata,
        pictures.source,
        len(pictures.photos),
        torch.get_num_threads(),
        tuple(rows),
        _versions(job.kind),
    )


def _check_job(job: GraphJob) -> None:
    ending = ENDINGS[job.kind]
    if job.output.suffix != ending:
        raise InputError(f"the output is {job.output}: end its name in {ending}")
    if job.output.exists():
        raise InputError(f"{job.output} exists: give another name, or move it away")
    if job.dynamic and job.size:
        raise InputError(
            "--size fixes the size of the input and --dynamic leaves it open: give one"
        )
    if job.dynamic and job.kind == TORCHSCRIPT:
        raise InputError(
            "torchscript records sizes as numbers, so that its graphs have one size: give --size "
            "H W, or take onnx or torch_export for --dynamic"
        )
    if job.kind != ONNX and (job.int8 or job.opset != DEFAULT_OPSET):
        raise InputError(f"--int8 and --opset are of onnx, and the format is {job.kind}")
    if job.size and any(side < SIDE_MULTIPLE or side % SIDE_MULTIPLE for side in job.size):
        raise InputError(
            f"--size is {job.size[0]} {job.size[1]}: give multiples of {SIDE_MULTIPLE}"
        )
    require_torch(job.kind)
    if job.kind == ONNX:
        require_onnx()
        highest = highest_opset()
        if not LOWEST_OPSET <= job.opset <= highest:
            raise InputError(f"--opset is {job.opset}: give {LOWEST_OPSET} to {highest}")


def _config(job: GraphJob, config_files: Sequence[str], opts: Sequence[str]) -> CfgNode:
    own = ["TEST.DTYPE", "float32"]
    if job.size:
        own += ["INPUT.SIZE_TEST", str(list(job.size))]
    cfg = trained_config(job.weights, "cpu", config_files=config_files, opts=[*opts, *own])
    for key, on in (
        ("TEST.AUG.ENABLED", cfg.TEST.AUG.ENABLED),
        ("TEST.SLIDING_WINDOW.ENABLED", cfg.TEST.SLIDING_WINDOW.ENABLED),
    ):
        if on:
            raise InputError(
                f"{key} is True, and an exported graph sees a photo once, whole: add --opts {key} "
                "False to export the model alone"
            )
    return cfg


def _graph_size(job: GraphJob, cfg: CfgNode) -> Size | None:
    """Height and width of the graph's input; None where they stay open."""
    warps = cfg.TEST.PROTOCOL == "warp_labels"
    wants = job.dynamic
    if wants is None:
        wants = not warps and job.size is None and job.kind != TORCHSCRIPT
    if wants:
        return None
    height, width = (-(-side // SIDE_MULTIPLE) * SIDE_MULTIPLE for side in testing_box(cfg))
    if not warps:
        logger.warning(
            "photos will be padded to %d x %d, where parsing in torch pads to the next multiples "
            "of %d: labels of photos of other shapes may differ a little",
            height,
            width,
            SIDE_MULTIPLE,
        )
    return height, width


def _metadata(job: GraphJob, cfg: CfgNode, model: SCHNet, fixed: Size | None) -> GraphMetadata:
    classes, palette = label_list(cfg)
    red, green, blue = (float(value) for value in cfg.MODEL.PIXEL_MEAN)
    named = {name: tensor for name, tensor in model.named_buffers() if "." in name}
    return GraphMetadata(
        classes=classes,
        palette=palette,
        box=testing_box(cfg),
        protocol=cfg.TEST.PROTOCOL,
        pixel_mean=(red, green, blue),
        size=fixed,
        multiple=SIDE_MULTIPLE,
        stride=LOGIT_STRIDE,
        precision="float32",
        weights=os.path.basename(str(cfg.MODEL.WEIGHTS)),
        digest=fingerprint({**named, **model.state_dict()}),
        schnet_version=version_of("schnet"),
    )


def _compare(
    job: GraphJob, model: SCHNet, pictures: Pictures, metadata: GraphMetadata, file: Path
) -> list[ParityRow]:
    """Rows of the model and of what was written; in int8 that takes the file's place."""
    threads = torch.get_num_threads()
    weights = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    comparison = Comparison(model.predict, pictures, metadata, weights)
    plain = comparison.row(
        f"{job.kind} float32", open_graph(file, job.kind, threads), file.stat().st_size
    )
    if plain.agreement < LEAST_AGREEMENT:
        raise InputError(
            f"the export agrees with the model on {plain.agreement:.3f} % of the labels, and "
            f"{LEAST_AGREEMENT} % are asked for (largest difference of a logit "
            f"{plain.max_difference:.3g}): {job.output} is not written; try another --opset or "
            "format"
        )
    rows = [comparison.own, plain]
    if job.int8:
        smaller = file.with_name(f"{file.stem}.int8{file.suffix}")
        try:
            quantise_weights(file, smaller, replace(metadata, precision="int8"))
            os.replace(smaller, file)
        finally:
            smaller.unlink(missing_ok=True)
        graph = open_graph(file, job.kind, threads)
        rows.append(comparison.row(f"{job.kind} int8", graph, file.stat().st_size))
        if rows[-1].agreement < LEAST_AGREEMENT:
            logger.warning(
                "in eight bits the export agrees with the model on %.3f %% of the labels, less "
                "than %s %%: look at its results before you use it, or export without --int8",
                rows[-1].agreement,
                LEAST_AGREEMENT,
            )
    return rows


def _versions(kind: str) -> dict[str, str]:
    names = ["schnet", "torch", *(("onnx", "onnxruntime") if kind == ONNX else ())]
    return {name: version_of(name) for name in names}
