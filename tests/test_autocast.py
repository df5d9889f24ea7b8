"""TEST.DTYPE: which type it means, and that the model, and only the model, computes in it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from segmentor_fakes import ConvSegmentor, entry_of, photo

from schnet.evaluation import autocast
from schnet.evaluation.autocast import Autocast, inference_dtype
from schnet.evaluation.test_time import build_label_model, build_test_model, describe_protocol
from schnet.native_types import computes_in_bfloat16

Config = Callable[..., CfgNode]
BFLOAT16 = ("TEST.DTYPE", "bfloat16")
AUTO = ("TEST.DTYPE", "auto")


def test_devices_with_units_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for capability, wanted in (((7, 5), False), ((8, 0), True)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda d, found=capability: found)
        assert computes_in_bfloat16(torch.device("cuda")) is wanted
    cpu = torch.device("cpu")
    for units, wanted in (({}, False), ({"avx512_bf16": False}, False), ({"amx_bf16": True}, True)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=units: found)
        assert computes_in_bfloat16(cpu) is wanted
    assert not computes_in_bfloat16(torch.device("meta"))
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert not computes_in_bfloat16(cpu)


def test_which_type_is_meant(tiny_cfg: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    assert inference_dtype(tiny_cfg()) is None
    for has_units in (True, False):
        monkeypatch.setattr(autocast, "computes_in_bfloat16", lambda device, found=has_units: found)
        assert inference_dtype(tiny_cfg(AUTO)) is (torch.bfloat16 if has_units else None)
        assert inference_dtype(tiny_cfg(BFLOAT16)) is torch.bfloat16
        assert inference_dtype(tiny_cfg(["TEST.DTYPE", "float32"])) is None
    monkeypatch.setattr(autocast, "computes_in_bfloat16", lambda device: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert inference_dtype(tiny_cfg([*AUTO, "MODEL.DEVICE", "cuda"])) is None


@pytest.mark.parametrize("opts", [(), ("TEST.AUG.ENABLED", "True")])
def test_the_model_and_only_it_computes_in_the_type(
    tiny_cfg: Config, opts: tuple[str, ...]
) -> None:
    seen = []
    model = ConvSegmentor(kernel_size=3)
    model.conv.register_forward_hook(lambda module, args, out: seen.append(out.dtype))
    entry = entry_of(photo(20, 24), 20, 24, photo(20, 24))
    for dtype in (None, torch.bfloat16):
        test = () if dtype is None else BFLOAT16
        with torch.no_grad():
            (result,) = build_test_model(tiny_cfg([*opts, *test]), model)([entry])
        assert result["sem_seg"].dtype == torch.float32
        assert set(seen) == {dtype or torch.float32}
        seen.clear()
    assert not torch.is_autocast_enabled("cpu")


def test_schnets_labels_in_bfloat16(tiny_cfg: Config) -> None:
    model = build_model(tiny_cfg()).eval()
    seen = []
    model.sem_seg_head.classifier.register_forward_hook(
        lambda module, args, out: seen.append(out.dtype)
    )
    wrapped = build_label_model(tiny_cfg(BFLOAT16), model)
    assert isinstance(wrapped.model, Autocast)
    entry = entry_of(photo(40, 33), 50, 60)
    with torch.no_grad():
        (found,) = wrapped([entry])
        (plain,) = build_label_model(tiny_cfg(), model)([entry])
        assert seen == [torch.bfloat16, torch.float32]
        assert wrapped.model([entry])[0]["sem_seg"].dtype == torch.float32
    assert found["labels"].shape == (50, 60)
    assert (found["labels"] == plain["labels"]).float().mean() > 0.9


def test_the_printed_conditions_name_the_type(
    tiny_cfg: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "bfloat16" not in describe_protocol(tiny_cfg())
    assert describe_protocol(tiny_cfg(BFLOAT16)).endswith("; computed in bfloat16")
    for has_units in (True, False):
        monkeypatch.setattr(autocast, "computes_in_bfloat16", lambda device, found=has_units: found)
        assert ("bfloat16" in describe_protocol(tiny_cfg(AUTO))) is has_units
