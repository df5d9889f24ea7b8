"""Which number types a device computes in with units of its own, rather than by emulation."""

from __future__ import annotations

import torch

FIRST_CAPABILITY_WITH_BFLOAT16 = (8, 0)
"""Compute capability (Ampere) from which on NVIDIA's GPUs compute in bfloat16 themselves."""
# Of x86 and ARM; a matrix product with either is faster than in fp32.
_CPU_UNITS = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")


def computes_in_bfloat16(device: torch.device) -> bool:
    """Whether a CPU or an NVIDIA GPU has units for bfloat16.

    Args:
        device: one that this machine has.

    Returns:
        False for other kinds of devices, too, and where torch cannot tell.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= FIRST_CAPABILITY_WITH_BFLOAT16
    if device.type != "cpu":
        return False
    if not hasattr(torch.cpu, "get_capabilities"):
        return False
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in _CPU_UNITS)
