"""A plan as a table with its assumptions, and as JSON."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Sequence
from typing import Any

from tabulate import tabulate

from schnet.planning.memory import FRAGMENTATION, OVERHEAD_BYTES
from schnet.planning.plan import PlanJob, PlanRow

HEADERS = (
    "SAM",
    "Crop",
    "Ckpt",
    "Trained M",
    "Frozen M",
    "Fwd TFLOP/image",
    "Step TFLOP/image",
    "Step PFLOP",
    "Act. GB/image",
    "Peak GB/GPU",
    "Fits",
    "Max images/GPU",
    "Hours",
    "File MB",
)


def plan_table(rows: Sequence[PlanRow], job: PlanJob) -> str:
    """The rows as a table, what was planned above it and the assumptions below.

    Args:
        rows: of one run.
        job: any of the run's jobs.
    """
    run = job.run
    title = (
        f"{run.iterations} iterations of {run.gpus * run.images_per_gpu} images on {run.gpus} x "
        f"{job.gpu.title} with {job.capacity / 1e9:g} GB: {run.images_per_gpu} images per GPU, "
        f"{run.images_at_once} at once"
    )
    table = tabulate([_cells(row, job) for row in rows], HEADERS, disable_numparse=True)
    # An address stays in one piece.
    wrapper = textwrap.TextWrapper(
        100, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False
    )
    notes = [wrapper.fill(f"- {note}") for note in assumptions(job)]
    return "\n".join([title, "", table, "", "Assumptions", *notes])


def _cells(row: PlanRow, job: PlanJob) -> list[str]:
    images = job.run.gpus * job.run.images_per_gpu
    return [
        row.variant,
        f"{row.crop[0]}x{row.crop[1]}",
        row.checkpointing,
        f"{row.trained / 1e6:.2f}",
        f"{row.frozen / 1e6:.1f}",
        f"{row.forward_flops / 1e12:.3f}",
        f"{row.step_flops / 1e12:.3f}",
        f"{row.step_flops * images / 1e15:.4f}",
        f"{row.activation_bytes / 1e9:.2f}",
        f"{row.peak_bytes / 1e9:.1f}",
        "yes" if row.fits else "NO",
        str(row.largest_batch),
        "-" if row.hours is None else f"{row.hours:.2g}",
        f"{row.checkpoint_bytes / 1e6:.0f}",
    ]


def assumptions(job: PlanJob) -> list[str]:
    """What the numbers rest on, a paragraph of one or more sentences each."""
    amp = job.run.amp_dtype
    return [
        "GB = 10^9 bytes, MB = 10^6, of the GPU's memory as well; computed in fp32"
        + (f" and {amp} (autocast)." if amp else "."),
        "Parameters: CLIP's text tower is dropped after the prompts are encoded and not counted.",
        "FLOPs: matrix products, convolutions and attention, a multiplication and an addition as "
        "two; elementwise work, norms, softmax and resizing are not counted. The backward pass "
        "goes through frozen SAM but makes no weight gradients there; CLIP has none. With "
        "checkpointing (Ckpt) every layer of SAM is computed once more (layer), or its MLP alone "
        "(mlp), and counted. A step is one iteration on all GPUs.",
        "Activations: what one more image adds to the peak, traced operation by operation on "
        "tensors without values. Attention is CUDA's memory-efficient kernel: no scores are kept, "
        "but the position bias (N x N a head, of N tokens) is. Every pixel is labelled and every "
        "image shows all classes: an upper bound of the Lovasz term. The trace is tested against "
        "real steps on a CPU; what is CUDA's own in it has not been measured.",
        "Peak: fp32 weights, AdamW's moments, the moving average where it is on, DDP's buckets "
        "with several GPUs, gradients, activations, autocast's copies of the weights. Assumed on "
        f"top: {OVERHEAD_BYTES / 1e9:g} GB for CUDA, cuBLAS, cuDNN and NCCL, and "
        f"{FRAGMENTATION - 1:.0%} of a step's tensors for the allocator. What kernels allocate "
        "inside is not seen. Evaluation between the steps is not planned.",
        "Max images/GPU: at once; more of them by SOLVER.ACCUMULATE_STEPS. From a line through "
        "two traced batches.",
        _hours_assumption(job),
        "File MB: a checkpoint to resume from: trained weights, AdamW's moments, moving average.",
    ]


def _hours_assumption(job: PlanJob) -> str:
    if job.run.amp_dtype is None:
        return "Hours: none, since the table of GPUs has no rate of training without autocast."
    return (
        "Hours: an estimate, not a measurement: step FLOPs over the GPU's "
        f"{job.gpu.teraflops:g} TFLOP/s (dense 16-bit rate, {job.gpu.source}) times an assumed "
        f"efficiency of {job.efficiency:g}; a few images per GPU reach less. Loading of images, "
        "exchange of gradients, evaluation and checkpoints are not in it."
    )


def plan_json(rows: Sequence[PlanRow], job: PlanJob) -> dict[str, Any]:
    """The plan as plain types: `run`, `gpu`, `assumptions` and `rows`, bytes and FLOPs as such."""
    return {
        "run": dataclasses.asdict(job.run),
        "gpu": {**dataclasses.asdict(job.gpu), "memory_bytes": job.capacity},
        "efficiency": job.efficiency,
        "assumptions": assumptions(job),
        "rows": [dataclasses.asdict(row) for row in rows],
    }
