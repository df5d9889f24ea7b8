from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from schnet.evaluation import argmax
from schnet.evaluation.argmax import NaNScoreError, argmax_labels, predicted_labels


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(20, 33, 21), (1, 4, 3), (255, 5, 4), (3, 1, 1), (3, 0, 4)])
def test_equals_torch(
    shape: tuple[int, int, int], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(argmax, "_BLOCK", 100)  # several blocks, the last not full
    # Few values, so that many are tied; torch takes the first of them.
    scores = torch.randint(-3, 3, shape).to(dtype)
    labels = argmax_labels(scores)
    assert labels.dtype == np.uint8
    assert np.array_equal(labels, scores.argmax(dim=0).numpy())


def test_infinite_scores_and_any_memory_layout() -> None:
    scores = torch.randn(4, 6, 5)
    scores[2, 0] = math.inf
    scores[:, 1] = -math.inf
    expected = scores.argmax(dim=0).numpy()
    last = scores.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    assert not last.is_contiguous()
    for version in (scores, last, torch.cat([scores, scores], dim=1)[:, :6]):
        before = version.clone()
        assert np.array_equal(argmax_labels(version), expected)
        assert torch.equal(version, before)


@pytest.mark.parametrize("plane", [0, 1, 3])
def test_a_single_nan_is_told(plane: int) -> None:
    scores = torch.randn(4, 6, 5)
    scores[plane, 5, 4] = math.nan
    with pytest.raises(NaNScoreError, match="NaN"):
        argmax_labels(scores)


def test_trainable_scores_are_taken() -> None:
    scores = torch.randn(4, 6, 5, requires_grad=True)
    assert np.array_equal(argmax_labels(scores), scores.argmax(dim=0).numpy())


@pytest.mark.parametrize("shape", [(4, 5), (0, 4, 5), (256, 1, 1)])
def test_impossible_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="scores must be"):
        argmax_labels(torch.zeros(shape))


def test_labels_are_taken_as_they_are() -> None:
    labels = torch.tensor([[3, 0], [1, 2]], dtype=torch.uint8)
    output = {"labels": labels, "sem_seg": torch.zeros(4, 2, 2)}
    assert predicted_labels(output).tolist() == labels.tolist()
    assert predicted_labels({"sem_seg": output["sem_seg"]}).tolist() == [[0, 0], [0, 0]]
    for wrong in (labels.long(), labels[None]):
        with pytest.raises(ValueError, match="labels must be"):
            predicted_labels({"labels": wrong})
