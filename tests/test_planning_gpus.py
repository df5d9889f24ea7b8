"""The table of GPUs and the hours that follow from it."""

from __future__ import annotations

import pytest

from schnet.errors import InputError
from schnet.planning.gpus import GPUS, find_gpu, training_hours


def test_rates_are_dense_and_have_sources() -> None:
    rates = {name: gpu.teraflops for name, gpu in GPUS.items()}
    # Datasheets of these state twice as much, with sparsity: 624, 1979, 1513, 733.
    assert rates["a100-40gb"] == rates["a100-80gb"] == 312
    assert rates["h100-sxm"] == rates["h200"] == pytest.approx(1979 / 2, abs=0.5)
    assert rates["h100-pcie"] == pytest.approx(1513 / 2, abs=0.5)
    assert rates["l40s"] == 362
    for name, gpu in GPUS.items():
        assert gpu.source.startswith("https://"), name
        assert name == name.lower()


def test_a_gpu_is_found_by_its_name_in_any_case() -> None:
    assert find_gpu("H100-SXM") is GPUS["h100-sxm"]
    with pytest.raises(InputError, match="--gpu is 'h100': give one of .*h100-sxm.*v100-sxm"):
        find_gpu("h100")


def test_hours() -> None:
    gpu = GPUS["a100-80gb"]
    # One second of the full rate in each of 7200 iterations, at half the rate: four hours.
    assert training_hours(312e12, 7200, gpu, 0.5, "bfloat16") == pytest.approx(4.0)
    assert training_hours(312e12, 7200, gpu, 1.0, "auto") == pytest.approx(2.0)
    assert training_hours(312e12, 7200, gpu, 0.5, None) is None


def test_bfloat16_needs_units_for_it() -> None:
    gpu = GPUS["v100-sxm"]
    assert training_hours(125e12, 3600, gpu, 1.0, "float16") == pytest.approx(1.0)
    assert training_hours(125e12, 3600, gpu, 1.0, "auto") == pytest.approx(1.0)
    with pytest.raises(InputError, match="SOLVER.AMP.DTYPE is bfloat16.*V100"):
        training_hours(125e12, 3600, gpu, 1.0, "bfloat16")
