"""What a benchmark ran on: processor, threads, versions, and the switches of the environment."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Any

import torch

_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
_SWITCHES = re.compile(r"MALLOC_\w+|GLIBC_TUNABLES|LD_PRELOAD|(OMP|KMP|GOMP|MKL|ONEDNN|DNNL)_\w+")
_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def describe_machine() -> dict[str, Any]:
    """Describe machine, versions and process; torch's threads are those of now."""
    model, flags = _processor()
    built = torch.__config__.show()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "processor": model,
        "flags": flags,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": load,
        "system": f"{platform.system()} {platform.release()}",
        "libc": " ".join(platform.libc_ver()),
        "huge_pages": _chosen(_HUGE_PAGES),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "mkl": _version(built, r"oneAPI Math Kernel Library Version ([\w.]+)"),
        "onednn": _version(built, r"MKL-DNN v([\d.]+)"),
        "environment": {k: v for k, v in sorted(os.environ.items()) if _SWITCHES.fullmatch(k)},
    }


def summarise_machine(machine: dict[str, Any]) -> str:
    """Say in one sentence what `describe_machine` found."""
    flags = f" ({', '.join(machine['flags'])})" if machine["flags"] else ""
    threads = machine["threads"]
    libraries = [
        f"torch {machine['torch']}",
        *(f"{title} {machine[key]}" for key, title in (("onednn", "oneDNN"), ("mkl", "MKL"))),
    ]
    text = (
        f"{machine['processor']}{flags}, {machine['cores']} cores, {threads} "
        f"thread{'' if threads == 1 else 's'}; {', '.join(libraries)}"
    )
    switches = [f"{name}={value}" for name, value in machine["environment"].items()]
    return f"{text}; {' '.join(switches)}" if switches else text


def _processor() -> tuple[str, list[str]]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine(), []
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    flags = re.search(r"^flags\s*:\s*(.+)$", text, re.MULTILINE)
    known = flags[1].split() if flags else []
    return model[1] if model else platform.machine(), [f for f in _FLAGS if f in known]


def _version(text: str, pattern: str) -> str:
    found = re.search(pattern, text)
    return found[1] if found else "?"


def _chosen(path: Path) -> str | None:
    """The word in brackets, as the kernel's files mark a choice."""
    try:
        found = re.search(r"\[(\w+)\]", path.read_text(encoding="utf-8"))
    except OSError:
        return None
    return found[1] if found else None
