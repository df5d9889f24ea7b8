from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from segmentor_fakes import ConvSegmentor, entry_of, photo
from torch import nn

from schnet.errors import InputError
from schnet.evaluation.tta import SegmentorWithTTA, mirrored_channels

SWAPPED = (0, 1, 3, 2)
SIZES = [(13, 9), (1, 1), (7, 30)]


def parse(model: nn.Module, *entries: dict[str, object]) -> list[torch.Tensor]:
    with torch.no_grad():
        return [result["sem_seg"] for result in model(list(entries))]


def reference(model: ConvSegmentor, entry: dict[str, object], flip: bool) -> torch.Tensor:
    """The mean over all views, each computed alone, all kept."""
    everything = []
    for view in entry["views"]:
        plain = {**view, "height": entry["height"], "width": entry["width"]}
        everything.append(parse(model, plain)[0].double().softmax(0))
        if flip:
            mirror = {**plain, "image": torch.flip(view["image"], (2,))}
            seen = parse(model, mirror)[0].double().softmax(0).numpy()[:, :, ::-1]
            everything.append(torch.from_numpy(np.ascontiguousarray(seen[list(SWAPPED)])))
    return torch.stack(everything).mean(0)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_mean_over_scales_and_mirror_images(size: tuple[int, int], flip: bool) -> None:
    model = ConvSegmentor(kernel_size=3)
    views = [photo(9, 7, 1), photo(12, 9, 2), photo(15, 11, 3)]
    entries = [
        entry_of(views[1], *size, *views),
        entry_of(views[2], 5, 6, *reversed(views)),
    ]
    found = parse(SegmentorWithTTA(model, SWAPPED if flip else None), *entries)
    for entry, mean in zip(entries, found, strict=True):
        assert mean.shape == (4, entry["height"], entry["width"]) and mean.dtype == torch.float32
        assert torch.allclose(mean.double(), reference(model, entry, flip), atol=1e-6)
        assert torch.allclose(mean.sum(0), torch.ones(()), atol=1e-5)


def test_one_view_without_flip_is_the_plain_model() -> None:
    model = ConvSegmentor(kernel_size=3)
    image = photo(10, 12)
    (plain,) = parse(model, entry_of(image, 21, 17))
    (found,) = parse(SegmentorWithTTA(model, None), entry_of(image, 21, 17, image))
    assert torch.equal(found, plain)


@pytest.mark.parametrize("size", [*SIZES, (1, 2), (40, 41)])
def test_flip_is_equivariant_to_the_bit(size: tuple[int, int]) -> None:
    """Parsing the mirrored image gives the mirrored parsing with left and right swapped."""
    model = ConvSegmentor(kernel_size=3)
    image = photo(*size)
    straight = SegmentorWithTTA(model, SWAPPED)
    (found,) = parse(straight, entry_of(image, *size, image))
    (mirrored,) = parse(straight, entry_of(image.flip(-1), *size, image.flip(-1)))
    assert torch.equal(mirrored, found[list(SWAPPED)].flip(-1))
    (alone,) = parse(model, entry_of(image, *size))
    assert not torch.equal(found, alone.softmax(0)) or size[1] == 1


def test_two_classes_that_change_places() -> None:
    model = ConvSegmentor(num_classes=2)
    image = photo(4, 4)
    (found,) = parse(SegmentorWithTTA(model, (1, 0)), entry_of(image, 4, 4, image))
    # A pixel alone says the same mirrored or not, so that left and right cancel out.
    assert torch.allclose(found, torch.full_like(found, 0.5))


def test_views_not_the_image_are_parsed_and_one_at_a_time() -> None:
    model = ConvSegmentor()
    small, large = photo(6, 6), photo(12, 12)
    parse(
        SegmentorWithTTA(model, SWAPPED),
        entry_of(photo(8, 8), 5, 5, small, large),
        entry_of(photo(8, 8), 5, 5, small, large),
    )
    assert model.sizes() == [[(6, 6)] * 2, [(6, 6)] * 2, [(12, 12)] * 2, [(12, 12)] * 2]
    assert torch.equal(model.seen[1][0]["image"], small.flip(-1))
    assert model.seen[0][0]["height"] == 5


def test_missing_size_is_that_of_the_image() -> None:
    entry = entry_of(photo(8, 9), 1, 1, photo(6, 6))
    del entry["height"], entry["width"]
    (found,) = parse(SegmentorWithTTA(ConvSegmentor(), SWAPPED), entry)
    assert found.shape == (4, 8, 9)


def test_half_precision_logits_are_averaged_in_single() -> None:
    class Half(ConvSegmentor):
        def forward(self, batch: list[dict[str, object]]) -> list[dict[str, torch.Tensor]]:
            return [{"sem_seg": r["sem_seg"].bfloat16()} for r in super().forward(batch)]

    image = photo(9, 9)
    model = Half(kernel_size=3)
    entry = entry_of(image, 9, 9, image, image)
    (found,) = parse(SegmentorWithTTA(model, SWAPPED), entry)
    assert found.dtype == torch.float32
    assert torch.allclose(found.double(), reference(model, entry, True), atol=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        (found,) = parse(SegmentorWithTTA(ConvSegmentor(kernel_size=3), SWAPPED), entry)
    assert found.dtype == torch.float32
    assert torch.allclose(found.sum(0), torch.ones(()), atol=1e-5)


def test_empty_batch() -> None:
    assert parse(SegmentorWithTTA(ConvSegmentor(), SWAPPED)) == []


def test_mode_reaches_the_model_and_is_taken_from_it() -> None:
    model = ConvSegmentor().eval()
    wrapper = SegmentorWithTTA(model, None)
    assert not wrapper.training
    wrapper.train()
    assert model.conv.training
    assert SegmentorWithTTA(model, None).training
    wrapper.eval()
    assert not model.training and not model.conv.training


def test_mirrored_channels() -> None:
    assert mirrored_channels([(14, 15), (16, 17), (18, 19)], 20)[13:] == (
        13,
        15,
        14,
        17,
        16,
        19,
        18,
    )
    assert mirrored_channels([], 3) == (0, 1, 2)
    assert mirrored_channels([(1, 0)], 2) == (1, 0)
    assert mirrored_channels([[0, 3]], 5) == (3, 1, 2, 0, 4)


@pytest.mark.parametrize("pairs", [[(1, 2), (2, 3)], [(1, 1)], [(3, 4)], [(-1, 2)]])
def test_mirror_pairs_that_are_none_are_refused(pairs: list[tuple[int, int]]) -> None:
    with pytest.raises(InputError, match=r"mirror pairs .* do not fit 4 labels"):
        mirrored_channels(pairs, 4)


def test_reference_differs_from_the_mean_of_logits() -> None:
    """Probabilities are averaged, not logits: the tests above would see the difference."""
    model = ConvSegmentor(kernel_size=3)
    views = [photo(9, 7, 1), photo(12, 9, 2)]
    entry = entry_of(views[0], 10, 10, *views)
    logits = [parse(model, {**v, "height": 10, "width": 10})[0] for v in entry["views"]]
    averaged = F.softmax(torch.stack(logits).mean(0), dim=0)
    assert (averaged - reference(model, entry, False)).abs().max() > 1e-2
