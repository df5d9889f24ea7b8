"""The losses against brute force, and what ignored pixels and half batches do."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from conftest import relative_error

from schnet.modeling.losses import SegmentationLoss, lovasz_softmax, sqrt_inverse_weights


def _loss(stride: int = 1, weights: list[float] | None = None) -> SegmentationLoss:
    return SegmentationLoss(
        ce_weight=1.0,
        lovasz_weight=1.0,
        ignore_label=255,
        class_weights=weights,
        ce_stride=stride,
        lovasz_stride=stride,
    )


def _batch(ignored: float = 0.2) -> tuple[torch.Tensor, torch.Tensor]:
    logits = torch.randn(4, 5, 6, 7, requires_grad=True)
    labels = torch.randint(0, 4, (4, 6, 7))
    labels[torch.rand(4, 6, 7) < ignored] = 255
    return logits, labels


def _lovasz_by_hand(probabilities: torch.Tensor, labels: torch.Tensor) -> float:
    """The Lovasz extension of the Jaccard loss as its definition reads, class by class."""

    def jaccard_loss(wrong: set[int], truth: set[int]) -> float:
        return len(wrong) / len(truth | wrong) if truth | wrong else 0.0

    values = []
    for c in sorted(set(labels.tolist())):
        truth = {i for i, y in enumerate(labels.tolist()) if y == c}
        errors = [1 - float(p) if i in truth else float(p) for i, p in enumerate(probabilities[c])]
        order = sorted(range(len(errors)), key=lambda i: -errors[i])
        value, wrong, before = 0.0, set(), 0.0
        for i in order:
            wrong.add(i)
            now = jaccard_loss(wrong, truth)
            value, before = value + errors[i] * (now - before), now
        values.append(value)
    return sum(values) / len(values)


def test_lovasz_equals_its_definition() -> None:
    for seed in range(5):
        torch.manual_seed(seed)
        probabilities = torch.randn(4, 12, dtype=torch.float64).softmax(0)
        labels = torch.randint(0, 3, (12,))
        expected = _lovasz_by_hand(probabilities, labels)
        assert lovasz_softmax(probabilities, labels).item() == pytest.approx(expected, abs=1e-12)


def test_cross_entropy_is_averaged_per_image_then_over_images() -> None:
    logits, labels = _batch()
    labels[0, 1:] = 255
    expected = torch.stack(
        [
            F.cross_entropy(x[None], y[None], ignore_index=255)
            for x, y in zip(logits, labels, strict=True)
        ]
    ).mean()
    assert torch.allclose(_loss()(logits, labels)["loss_ce"], expected)


def test_ignored_pixels_have_no_gradient() -> None:
    logits, labels = _batch()
    sum(_loss()(logits, labels).values()).backward()
    gradient = logits.grad.abs().sum(1)
    assert (gradient[labels == 255] == 0).all()
    assert (gradient[labels != 255] > 0).all()


def test_an_image_without_labels_adds_zero_and_keeps_the_graph() -> None:
    logits, labels = _batch()
    labels[:] = 255
    losses = _loss()(logits, labels)
    sum(losses.values()).backward()
    assert all(value.item() == 0 for value in losses.values())
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_half_batches_give_the_gradient_of_the_whole() -> None:
    logits, labels = _batch(0.5)
    labels[3] = 255
    sum(_loss()(logits, labels).values()).backward()
    halves = []
    for part in (slice(0, 2), slice(2, 4)):
        half = logits.detach()[part].requires_grad_()
        sum(_loss()(half, labels[part]).values()).backward()
        halves.append(half.grad / 2)
    assert torch.allclose(torch.cat(halves), logits.grad, atol=1e-7)


def test_losses_are_fp32_under_autocast() -> None:
    logits, labels = _batch()
    with torch.autocast("cpu", torch.bfloat16):
        losses = _loss()(logits.bfloat16(), labels)
    assert {value.dtype for value in losses.values()} == {torch.float32}


def test_class_weights_scale_their_pixels() -> None:
    logits, labels = _batch(0)
    labels[:] = 1
    plain = _loss()(logits, labels)["loss_ce"]
    weighted = _loss(weights=[1.0, 3.0, 1.0, 1.0, 1.0])(logits, labels)["loss_ce"]
    assert torch.allclose(weighted, 3 * plain)


def test_stride_looks_at_every_nth_row_and_column() -> None:
    logits, labels = _batch()
    strided = _loss(stride=2)(logits, labels)
    expected = _loss()(logits[:, :, ::2, ::2], labels[:, ::2, ::2])
    assert all(torch.equal(strided[name], expected[name]) for name in expected)


@pytest.mark.parametrize("autocast", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(("ce_stride", "lovasz_stride"), [(1, 1), (1, 4), (2, 3), (2, 2)])
def test_coarse_logits_are_those_of_the_whole_map_thinned(
    ce_stride: int, lovasz_stride: int, batch: int, autocast: bool
) -> None:
    loss = SegmentationLoss(
        ce_weight=1.0,
        lovasz_weight=0.5,
        ignore_label=255,
        class_weights=None,
        ce_stride=ce_stride,
        lovasz_stride=lovasz_stride,
    )
    labels = torch.randint(0, 5, (batch, 19, 45))
    labels[torch.rand(labels.shape) < 0.2] = 255
    logits = torch.randn(batch, 5, 8, 12).to(torch.bfloat16 if autocast else torch.float32)
    logits.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        ours = loss(logits, labels, (32, 48))
    whole = F.interpolate(logits.float(), size=(32, 48), mode="bilinear")[..., :19, :45]
    expected = loss(whole, labels)
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        assert ours[name].dtype == torch.float32
        assert torch.allclose(ours[name], value, rtol=1e-6)
        gradients = [
            torch.autograd.grad(v, logits, retain_graph=True)[0] for v in (ours[name], value)
        ]
        limit = 1e-2 if autocast else 1e-6
        assert relative_error(gradients[0].float(), gradients[1].float()) < limit


def test_a_factor_of_zero_leaves_its_loss_out() -> None:
    loss = SegmentationLoss(
        ce_weight=2.0,
        lovasz_weight=0.0,
        ignore_label=255,
        class_weights=None,
        ce_stride=1,
        lovasz_stride=1,
    )
    logits, labels = _batch()
    losses = loss(logits, labels)
    assert set(losses) == {"loss_ce"}
    assert torch.allclose(losses["loss_ce"], 2 * _loss()(logits, labels)["loss_ce"])


def test_sqrt_inverse_weights() -> None:
    weights = sqrt_inverse_weights([0.64, 0.36, 0.0])
    assert math.isclose(0.64 * weights[0] + 0.36 * weights[1], 1.0)
    assert math.isclose(weights[1] / weights[0], (0.64 / 0.36) ** 0.5)
    assert weights[2] == weights[1]
    assert max(sqrt_inverse_weights([1 - 1e-9, 1e-9])) == 10.0
