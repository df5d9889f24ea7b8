"""CLIP's ResNet tower by derived weights against the `clip` package's layers."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterator

import pytest
import torch
from clip.model import ModifiedResNet
from conftest import PROMPTS, randomise, relative_error
from detectron2.config import CfgNode
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from schnet.modeling import clip_fast
from schnet.modeling.clip import ClipBackbone, ClipVariant, build_clip_encoder, build_tower
from schnet.modeling.clip_fast import REPEATS_TO_PACK, FastResNetTower, FoldedResNet
from schnet.modeling.clip_vision import ResNetTower

# Two blocks in a stage, so that a block without a shortcut convolution is among them.
RESNET = ClipVariant(24, 224, (2, 1, 2, 1), 16, 32, 64, transformer_layers=1)
SIZES = [(1, 32, 32), (3, 64, 96), (1, 224, 224), (3, 160, 32)]
Output = tuple[torch.Tensor, ...]


@pytest.fixture
def visual() -> ModifiedResNet:
    """A small tower whose batch norms have statistics of their own; its attention is not sharp."""
    return randomise(RESNET.build(), scale=0.1).eval().requires_grad_(False).visual


@pytest.fixture
def folds(monkeypatch: pytest.MonkeyPatch) -> list[torch.dtype]:
    """The types of the networks that are folded, in order."""
    seen: list[torch.dtype] = []

    class Counted(FoldedResNet):
        def __init__(self, visual: ModifiedResNet, dtype: torch.dtype) -> None:
            seen.append(dtype)
            super().__init__(visual, dtype)

    monkeypatch.setattr(clip_fast, "FoldedResNet", Counted)
    return seen


@pytest.fixture(params=["oneDNN", "public operations"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Both ways of convolving."""
    if request.param == "public operations":
        monkeypatch.setattr(clip_fast, "_has_fused_convolution", lambda like: False)
    yield


@torch.no_grad()
def _run(tower: nn.Module, images: torch.Tensor, dtype: torch.dtype | None = None) -> Output:
    with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
        maps, cls = tower(images)
    return (*maps, cls)


def _assert_close(ours: Output, theirs: Output, tolerance: float) -> None:
    assert len(ours) == len(theirs) == 5
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        assert relative_error(a.float(), b.float()) < tolerance


@torch.no_grad()
def _package(visual: ModifiedResNet, images: torch.Tensor) -> list[torch.Tensor]:
    """The outputs of the package's four groups, by its own forward."""
    seen: list[torch.Tensor] = []
    groups = (visual.layer1, visual.layer2, visual.layer3, visual.layer4)
    hooks = [g.register_forward_hook(lambda m, i, out: seen.append(out.clone())) for g in groups]
    # Its attention pool takes its own size only.
    pool, visual.attnpool = visual.attnpool, nn.Identity()
    visual(images)
    visual.attnpool = pool
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.usefixtures("kernels")
def test_fp32_equals_the_package(
    visual: ModifiedResNet, folds: list[torch.dtype], size: tuple[int, int, int]
) -> None:
    images = torch.randn(size[0], 3, *size[1:])
    fast, plain = FastResNetTower(visual), ResNetTower(visual)
    expected = _run(plain, images)
    for ours, theirs in zip(expected[:4], _package(visual, images), strict=True):
        assert torch.equal(ours, theirs)
    before = images.clone()
    for _ in range(REPEATS_TO_PACK + 1):
        _assert_close(_run(fast, images), expected, 1e-5)
    assert torch.equal(images, before)
    assert folds == [torch.float32]


@torch.no_grad()
def test_fp32_equals_encode_image(visual: ModifiedResNet, folds: list[torch.dtype]) -> None:
    images = torch.randn(2, 3, 224, 224)
    assert relative_error(FastResNetTower(visual)(images)[1], visual(images)) < 1e-5
    assert folds


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.usefixtures("kernels")
def test_bf16_is_near_fp32_and_of_autocasts_type(
    visual: ModifiedResNet, folds: list[torch.dtype], size: tuple[int, int, int]
) -> None:
    images = torch.randn(size[0], 3, *size[1:])
    fast, plain = FastResNetTower(visual), ResNetTower(visual)
    expected, today = _run(plain, images), _run(plain, images, torch.bfloat16)
    for _ in range(REPEATS_TO_PACK + 1):
        ours = _run(fast, images, torch.bfloat16)
        assert [t.dtype for t in ours] == [t.dtype for t in today] == [torch.bfloat16] * 5
        _assert_close(ours, expected, 2e-2)
    assert folds == [torch.bfloat16]


def test_sizes_may_alternate(visual: ModifiedResNet) -> None:
    fast, plain = FastResNetTower(visual), ResNetTower(visual)
    small, large = torch.randn(1, 3, 32, 64), torch.randn(2, 3, 128, 96)
    runs = [small] * (REPEATS_TO_PACK + 1) + [large, small] + [large] * REPEATS_TO_PACK + [small]
    expected = {id(images): _run(plain, images) for images in (small, large)}
    for images in runs:
        _assert_close(_run(fast, images), expected[id(images)], 1e-5)


def test_outputs_are_not_overwritten_by_the_next_call(visual: ModifiedResNet) -> None:
    fast = FastResNetTower(visual)
    first = _run(fast, torch.randn(1, 3, 64, 64))
    copies = [t.clone() for t in first]
    _run(fast, torch.randn(1, 3, 64, 64))
    assert all(torch.equal(a, b) for a, b in zip(first, copies, strict=True))


def test_changed_weights_are_noticed(visual: ModifiedResNet, folds: list[torch.dtype]) -> None:
    fast, plain = FastResNetTower(visual), ResNetTower(visual)
    images = torch.randn(1, 3, 64, 32)
    _run(fast, images)
    state = randomise(RESNET.build(), seed=1, scale=0.1).eval().visual.state_dict()

    def load() -> None:
        visual.load_state_dict(state)

    @torch.inference_mode()
    def shift_a_statistic() -> None:
        visual.layer3[1].bn2.running_mean += 1

    def replace_a_parameter() -> None:
        pool = visual.attnpool
        pool.k_proj.weight = nn.Parameter(2 * pool.k_proj.weight, requires_grad=False)

    def replace_storage() -> None:
        visual.layer1[0].conv1.weight.data = 2 * visual.layer1[0].conv1.weight.data

    for change in (load, shift_a_statistic, replace_a_parameter, replace_storage):
        before = _run(plain, images)
        change()
        expected = _run(plain, images)
        assert relative_error(expected[4], before[4]) > 1e-4
        _assert_close(_run(fast, images), expected, 1e-5)
        _run(fast, images)
    assert len(folds) == 5


def test_both_types_are_kept(visual: ModifiedResNet, folds: list[torch.dtype]) -> None:
    fast, images = FastResNetTower(visual), torch.randn(1, 3, 32, 32)
    for _ in range(2):
        _run(fast, images)
        _run(fast, images, torch.bfloat16)
    assert folds == [torch.float32, torch.bfloat16]
    fast.to("cpu")
    _run(fast, images)
    assert len(folds) == 3


def test_what_inference_mode_derived_serves_outside(visual: ModifiedResNet) -> None:
    fast, images = FastResNetTower(visual), torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        inside = _run(fast, images)
    outside = _run(fast, images)
    assert all(torch.equal(a, b) for a, b in zip(inside, outside, strict=True))
    assert not any(t.is_inference() for t in outside)


def test_derived_weights_are_in_no_state_copy_or_pickle(visual: ModifiedResNet) -> None:
    def pickled(module: nn.Module) -> bytes:
        buffer = io.BytesIO()
        torch.save(module, buffer)
        return buffer.getvalue()

    fast, images = FastResNetTower(visual), torch.randn(1, 3, 32, 64)
    size, names = len(pickled(fast)), list(fast.state_dict())
    expected = _run(fast, images)
    _run(fast, images, torch.bfloat16)
    assert list(fast.state_dict()) == names == list(ResNetTower(visual).state_dict())
    assert len(list(fast.modules())) == len(list(ResNetTower(visual).modules()))
    assert len(pickled(fast)) == size
    loaded = torch.load(io.BytesIO(pickled(fast)), weights_only=False)
    twin = copy.deepcopy(fast)
    for other in (loaded, twin):
        assert all(torch.equal(a, b) for a, b in zip(_run(other, images), expected, strict=True))
    twin.visual.layer1[0].conv1.weight.mul_(2)
    assert not torch.equal(_run(twin, images)[0], expected[0])
    assert torch.equal(_run(fast, images)[0], expected[0])


def test_the_layers_run_where_more_than_the_result_is_wanted(
    visual: ModifiedResNet, folds: list[torch.dtype]
) -> None:
    fast, plain = FastResNetTower(visual), ResNetTower(visual)
    images = torch.randn(1, 3, 32, 64, requires_grad=True)
    fast(images)[1].sum().backward()
    assert images.grad is not None
    images = images.detach()
    with FlopCounterMode(display=False) as ours:
        _run(fast, images)
    with FlopCounterMode(display=False) as theirs:
        _run(plain, images)
    assert ours.get_total_flops() == theirs.get_total_flops() > 0
    with torch.no_grad():
        # The layers' own resizing of positions does not bear jit.trace, but the choice is theirs.
        with pytest.raises(TypeError, match="__round__"):
            torch.jit.trace(lambda x: fast(x)[1], images)
        exported = torch.export.export(fast, (images,)).module()(images)
        compiled = torch.compile(fast, backend="eager")(images)
    for seen in (exported, compiled, _run(fast, nn.Parameter(images, requires_grad=False))[3:]):
        assert relative_error(seen[1], _run(plain, images)[4]) < 1e-5
    fast.train()
    _run(fast, images)
    assert not folds
    fast.eval()
    _run(fast, images)
    assert folds == [torch.float32]


def test_fake_tensors_take_the_layers(folds: list[torch.dtype]) -> None:
    with FakeTensorMode():
        tower = build_tower(RESNET.build().eval().visual, fast=True)
        maps = _run(tower, torch.empty(2, 3, 64, 96))
    assert [m.shape[2:] for m in maps[:4]] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    assert not folds


def test_the_key_chooses_the_tower(
    tiny_cfg: Callable[..., CfgNode], folds: list[torch.dtype]
) -> None:
    images = torch.rand(1, 3, 100, 70) * 255
    off = ["MODEL.CLIP.FAST", "False"]
    fast = build_clip_encoder(tiny_cfg(), PROMPTS)
    plain = build_clip_encoder(tiny_cfg(off), PROMPTS)
    expected = ResNetTower(plain.tower.visual)
    before = copy.deepcopy(expected.state_dict())
    seen = plain(images)
    assert not folds
    assert type(plain.tower) is ResNetTower and type(fast.tower) is FastResNetTower
    ours = fast(images)
    assert folds == [torch.float32]
    _assert_close((*ours.maps, ours.cls), (*seen.maps, seen.cls), 1e-5)
    assert all(torch.equal(before[k], v) for k, v in fast.tower.state_dict().items())
    assert list(fast.state_dict()) == list(plain.state_dict())
    assert type(ClipBackbone(tiny_cfg(), None).clip.tower) is FastResNetTower
    assert type(ClipBackbone(tiny_cfg(off), None).clip.tower) is ResNetTower


def test_a_transformer_is_what_it_was(tiny_cfg: Callable[..., CfgNode]) -> None:
    variant = ClipVariant(24, 224, 4, 64, 32, 64, transformer_layers=1)
    visual = randomise(variant.build()).eval().visual
    images = torch.randn(1, 3, 64, 96)
    for dtype in (None, torch.bfloat16):
        ours = _run(build_tower(visual, fast=True), images, dtype)
        theirs = _run(build_tower(visual), images, dtype)
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_towers_of_other_kinds_of_tensors_take_the_layers(folds: list[torch.dtype]) -> None:
    with torch.inference_mode():
        tower = FastResNetTower(randomise(RESNET.build()).eval().visual)
        images = torch.randn(1, 3, 32, 64)
        seen, expected = tower(images), ResNetTower(tower.visual)(images)
    assert torch.equal(seen[1], expected[1])
    tower = FastResNetTower(randomise(RESNET.build()).double().eval().visual)
    seen = _run(tower, torch.randn(1, 3, 32, 64).double())
    assert {t.dtype for t in seen} == {torch.float64}
    assert not folds
