"""GPUs with their makers' rates for dense half-precision matrix products."""

from __future__ import annotations

from dataclasses import dataclass

from schnet.errors import InputError

_NVIDIA = "https://www.nvidia.com/"
_IMAGES = "https://images.nvidia.com/"
_A100 = (
    _NVIDIA + "content/dam/en-zz/Solutions/Data-Center/a100/pdf/"
    "nvidia-a100-datasheet-us-nvidia-1758950-r4-web.pdf"
)
_GA102 = _NVIDIA + "content/PDF/nvidia-ampere-ga-102-gpu-architecture-whitepaper-v2.pdf"


@dataclass(frozen=True)
class Gpu:
    """One kind of GPU.

    Attributes:
        title: the maker's name of it.
        teraflops: dense rate (without sparsity) of 16-bit matrix products with fp32 accumulation,
            in 10^12 operations a second, a multiplication and an addition as two.
        source: the maker's document that states the rate, or twice the rate "with sparsity".
        has_bfloat16: whether the rate holds for bfloat16 too; float16 only otherwise.
    """

    title: str
    teraflops: float
    source: str
    has_bfloat16: bool = True


GPUS: dict[str, Gpu] = {
    "a100-40gb": Gpu("NVIDIA A100 40 GB (SXM or PCIe)", 312.0, _A100),
    "a100-80gb": Gpu("NVIDIA A100 80 GB (SXM or PCIe)", 312.0, _A100),
    "a40": Gpu(
        "NVIDIA A40",
        149.7,
        _IMAGES + "content/Solutions/data-center/a40/nvidia-a40-datasheet.pdf",
    ),
    "a6000": Gpu("NVIDIA RTX A6000", 154.8, _GA102 + " (appendix C)"),
    "b200": Gpu(
        "NVIDIA B200", 2250.0, "https://nvdam.widen.net/s/wwnsxrhm2w/blackwell-datasheet-3384703"
    ),
    "h100-nvl": Gpu("NVIDIA H100 NVL", 835.0, _NVIDIA + "en-us/data-center/h100/"),
    "h100-pcie": Gpu("NVIDIA H100 PCIe", 756.5, _NVIDIA + "en-us/data-center/h100/"),
    "h100-sxm": Gpu("NVIDIA H100 SXM", 989.5, _NVIDIA + "en-us/data-center/h100/"),
    "h200": Gpu("NVIDIA H200 SXM", 989.5, _NVIDIA + "en-us/data-center/h200/"),
    "l40s": Gpu(
        "NVIDIA L40S", 362.0, "https://resources.nvidia.com/en-us-l40s/l40s-datasheet-28413"
    ),
    "rtx-3090": Gpu("NVIDIA GeForce RTX 3090", 71.0, _GA102 + " (appendix A)"),
    "rtx-4090": Gpu(
        "NVIDIA GeForce RTX 4090",
        165.2,
        _IMAGES + "aem-dam/Solutions/Data-Center/l4/"
        "nvidia-ada-gpu-architecture-whitepaper-v2.1.pdf (appendix A)",
    ),
    "v100-sxm": Gpu(
        "NVIDIA V100 SXM2",
        125.0,
        _IMAGES + "content/technologies/volta/pdf/volta-v100-datasheet-update-us-1165301-r5.pdf",
        has_bfloat16=False,
    ),
}
"""The GPUs by the names that `tools/plan.py --gpu` takes."""


def find_gpu(name: str) -> Gpu:
    """Look a GPU up.

    Args:
        name: a key of `GPUS`, in any case.

    Raises:
        InputError: the table does not have it.
    """
    gpu = GPUS.get(name.lower())
    if gpu is None:
        raise InputError(f"--gpu is {name!r}: give one of {', '.join(sorted(GPUS))}")
    return gpu


def training_hours(
    flops: float, iterations: int, gpu: Gpu, efficiency: float, amp_dtype: str | None
) -> float | None:
    """Estimate how long the arithmetic of a run takes.

    Args:
        flops: floating-point operations of one GPU in one iteration.
        iterations: iterations of the run.
        gpu: the GPU; its datasheet's rate counts.
        efficiency: the share of that rate that training reaches, in (0, 1]; an assumption, which
            must be told with the result.
        amp_dtype: SOLVER.AMP.DTYPE, or None where training is not autocast.

    Returns:
        Hours; None without autocast, since the table has no rate of fp32.

    Raises:
        InputError: the type is bfloat16 and the GPU has no rate for it.
    """
    if amp_dtype is None:
        return None
    if amp_dtype == "bfloat16" and not gpu.has_bfloat16:
        raise InputError(
            f"config key SOLVER.AMP.DTYPE is bfloat16, which {gpu.title} has no units for: set it "
            "to float16 or auto, or give another --gpu"
        )
    return iterations * flops / (gpu.teraflops * 1e12 * efficiency) / 3600
