from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from data_helpers import COLOR_STEP, color_of, data_config, patchwork, save_image
from mapper_helpers import PAD_COLOR, as_label, exif_of_orientation, make_dict, make_mapper
from PIL import Image

from schnet.data.catalog import register_datasets
from schnet.data.color import ColorJitter
from schnet.data.mapper import DatasetDict, TestMapper, TrainMapper
from schnet.data.reading import EncodedImage, UInt8Array
from schnet.errors import InputError


def turned_pair(folder: Path, image_size: tuple[int, int]) -> tuple[DatasetDict, UInt8Array]:
    """A JPEG whose EXIF turns it onto its label map, which is (60, 40)."""
    labels = patchwork((60, 40))
    stored = np.rot90(color_of(labels), 1)
    assert stored.shape[:2] == (40, 60)
    entry, pixels = make_dict(folder, labels), stored[: image_size[0], : image_size[1]]
    path = save_image(folder / "a.jpg", pixels, exif=exif_of_orientation(6))
    return {**entry, "file_name": str(path)}, labels


@pytest.mark.parametrize("recorded", [{}, {"height": 60, "width": 40}])
def test_image_is_turned_where_only_that_fits_its_labels(
    tmp_path: Path, recorded: dict[str, int]
) -> None:
    entry, labels = turned_pair(tmp_path, (40, 60))
    entry.update(recorded)
    mapped = make_mapper((60, 40))(entry, np.random.default_rng(0))
    assert (mapped["sem_seg"].numpy() == labels).all()
    assert (as_label(mapped["image"]) == labels).mean() > 0.95
    tested = TestMapper(box=(60, 40))(entry)
    assert (tested["height"], tested["width"]) == (60, 40)
    assert tested["image"].shape[1:] == (60, 40)
    assert (as_label(tested["image"]) == labels).mean() > 0.95


def test_image_that_fits_neither_way_is_named(tmp_path: Path) -> None:
    entry, _ = turned_pair(tmp_path, (40, 50))
    with pytest.raises(InputError, match=r"a\.jpg is 50x40 .*labels\.png is 40x60"):
        make_mapper((60, 40))(entry, np.random.default_rng(0))


def test_from_config(tmp_path: Path) -> None:
    register_datasets(str(tmp_path))
    mapper = TrainMapper(data_config("INPUT.SIZE", [48, 32], "INPUT.FLIP_PROB", 1.0))
    assert mapper.crop.size == (48, 32) and mapper.crop.mirror_prob == 1.0
    assert mapper.pad_color == PAD_COLOR and mapper.num_classes == 20
    assert mapper.mirror_table[[14, 15]].tolist() == [15, 14]
    assert mapper.jitter.ranges.tolist() == [0.3, 0.3, 0.3, 0.05]
    rotation = mapper.crop.rotation
    assert (rotation.prob, rotation.sigma, mapper.crop.letterbox) == (0.6, 30.0, False)
    assert TrainMapper(data_config("INPUT.CROP", "letterbox")).crop.letterbox
    with pytest.raises(InputError, match="no data set 'nothing'"):
        TrainMapper(data_config("DATASETS.TRAIN", ("nothing",)))


def test_training_item(tmp_path: Path) -> None:
    entry = make_dict(tmp_path, patchwork((60, 40)), ending=".jpg")
    mapped = make_mapper((48, 64))(entry, np.random.default_rng(0))
    assert mapped["image"].shape == (3, 48, 64) and mapped["image"].dtype == torch.uint8
    assert mapped["sem_seg"].shape == (48, 64) and mapped["sem_seg"].dtype == torch.uint8
    assert (mapped["height"], mapped["width"]) == (60, 40)
    assert mapped["file_name"] == entry["file_name"] and mapped["image_id"] == "photo"


@pytest.mark.parametrize("sigma", [0.0, 30.0])
@pytest.mark.parametrize("stored", [(1, 1), (1, 7), (5, 1), (33, 47)])
def test_smallest_and_odd_images_become_whole_items(
    tmp_path: Path, stored: tuple[int, int], sigma: float
) -> None:
    entry = make_dict(tmp_path, np.full(stored, 7, np.uint8), ending=".jpg")
    mapper = make_mapper((48, 32), (0.5, 1.5), 0.5, sigma=sigma)
    for seed in range(12):
        mapped = mapper(entry, np.random.default_rng(seed))
        assert mapped["image"].shape == (3, 48, 32) and mapped["sem_seg"].shape == (48, 32)
        shown = mapped["sem_seg"] == 7
        assert (mapped["sem_seg"][~shown] == 255).all()
        assert (as_label(mapped["image"])[shown.numpy()] == 7).all()
        padding = torch.tensor(PAD_COLOR, dtype=torch.uint8)
        assert (mapped["image"][:, ~shown].T == padding).all()


def test_unscaled_crop_is_exact(tmp_path: Path) -> None:
    entry = make_dict(tmp_path, patchwork((64, 64)))
    mapped = make_mapper((64, 64))(entry, np.random.default_rng(0))
    assert np.array_equal(as_label(mapped["image"]), mapped["sem_seg"].numpy())
    assert np.array_equal(mapped["sem_seg"].numpy(), patchwork((64, 64)))


@pytest.mark.parametrize("sigma", [0.0, 30.0])
def test_padding(tmp_path: Path, sigma: float) -> None:
    entry = make_dict(tmp_path, np.full((64, 32), 5, np.uint8))
    mapper = make_mapper((64, 64), sigma=sigma)
    mapper.jitter = ColorJitter(brightness=0.9, contrast=0, saturation=0, hue=0)
    mapped = mapper(entry, np.random.default_rng(0))
    padded = mapped["sem_seg"] == 255
    assert (int(padded.sum()) == 64 * 32) is (sigma == 0)
    assert (mapped["sem_seg"][~padded] == 5).all()
    assert len(mapped["image"][:, ~padded].unique()) == 1
    assert (mapped["image"][:, ~padded] != 5 * COLOR_STEP).all()
    colors = mapped["image"][:, padded].T
    assert (colors == torch.tensor(PAD_COLOR, dtype=torch.uint8)).all()


def test_padding_does_not_count_for_the_contrast(tmp_path: Path) -> None:
    # Dark in the middle: what lies beyond the rim would make the picture brighter.
    image = np.full((64, 32, 3), 180, np.uint8)
    image[8:56, 4:28] = 100
    entry = make_dict(tmp_path, patchwork((64, 32)), image)
    mapper = make_mapper((64, 64), (0.7, 0.7), sigma=30.0)
    for seed in range(4):
        means = []
        for contrast in (0.0, 0.8):
            mapper.jitter = ColorJitter(brightness=0, contrast=contrast, saturation=0, hue=0)
            mapped = mapper(entry, np.random.default_rng(seed))
            means.append(mapped["image"][0][mapped["sem_seg"] != 255].float().mean().item())
        assert means[0] == pytest.approx(means[1], abs=0.6)


def test_large_jpegs_are_decoded_at_a_reduced_scale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = make_dict(tmp_path, patchwork((400, 300)), ending=".jpg")
    decode, asked = EncodedImage.decode, []

    def record(encoded: EncodedImage, reduction: int = 1) -> UInt8Array:
        asked.append(reduction)
        return decode(encoded, reduction)

    monkeypatch.setattr(EncodedImage, "decode", record)
    for sigma in (0.0, 30.0):
        make_mapper((64, 64), sigma=sigma)(entry, np.random.default_rng(0))
    assert asked == [4, 4]


def test_turned_and_mirrored_is_the_mirrored_turn(tmp_path: Path) -> None:
    labels = np.tile(np.array([14, 15, 3], np.uint8), (60, 20))
    entry = make_dict(tmp_path, labels)
    plain, mirrored = (
        make_mapper((64, 48), (0.8, 0.8), prob, ((14, 15),), sigma=30.0) for prob in (0.0, 1.0)
    )
    for seed in range(5):
        first, second = (m(entry, np.random.default_rng(seed)) for m in (plain, mirrored))
        swapped = np.arange(256)
        swapped[[14, 15]] = 15, 14
        assert np.array_equal(second["sem_seg"].numpy()[:, ::-1], swapped[first["sem_seg"]])
        assert torch.equal(second["image"].flip(2), first["image"])


def test_mirroring_swaps_sides(tmp_path: Path) -> None:
    labels = np.zeros((64, 64), np.uint8)
    labels[:, :20], labels[:, 50:] = 14, 15
    labels[:5] = 18
    entry = make_dict(tmp_path, labels)
    mapper = make_mapper((64, 64), mirror_prob=1.0, mirror_pairs=((14, 15), (16, 17)))
    mapped = mapper(entry, np.random.default_rng(0))
    assert np.array_equal(as_label(mapped["image"]), labels[:, ::-1])
    swapped = mapped["sem_seg"].numpy()
    assert (swapped[5:, :14] == 14).all() and (swapped[5:, 44:] == 15).all()
    assert (swapped[:5] == 18).all()


def test_same_draw_same_item(tmp_path: Path) -> None:
    register_datasets(str(tmp_path))
    entry = make_dict(tmp_path, patchwork((90, 70)))
    mapper = TrainMapper(data_config())
    first, again, other = (mapper(entry, np.random.default_rng([0, d])) for d in (7, 7, 8))
    assert torch.equal(first["image"], again["image"])
    assert torch.equal(first["sem_seg"], again["sem_seg"])
    assert not torch.equal(first["image"], other["image"])


def test_bad_training_input(tmp_path: Path) -> None:
    good = make_dict(tmp_path, patchwork((20, 30)))
    mapper, rng = make_mapper((32, 32)), np.random.default_rng(0)
    with pytest.raises(InputError, match=r"photo\.png is 30x20 .* index says 31x20"):
        mapper({**good, "height": 20, "width": 31}, rng)
    with pytest.raises(InputError, match=r"photo\.png has no label map"):
        mapper({name: good[name] for name in ("file_name", "image_id")}, rng)
    with pytest.raises(InputError, match=r"nothing\.png cannot be read"):
        mapper({**good, "file_name": str(tmp_path / "nothing.png")}, rng)
    save_image(tmp_path / "labels.png", patchwork((20, 29)))
    with pytest.raises(InputError, match=r"photo\.png is 30x20 .*labels\.png is 29x20"):
        mapper(good, rng)
    save_image(tmp_path / "labels.png", np.full((20, 30), 20, np.uint8))
    with pytest.raises(InputError, match=r"labels\.png holds the value 20"):
        mapper(good, rng)


def test_test_item(tmp_path: Path) -> None:
    entry = make_dict(tmp_path, patchwork((100, 50)))
    mapped = TestMapper(box=(40, 40))(entry)
    assert mapped["image"].shape == (3, 40, 20) and mapped["image"].dtype == torch.uint8
    assert (mapped["height"], mapped["width"]) == (100, 50)
    assert mapped["sem_seg_file_name"] == entry["sem_seg_file_name"]
    del entry["sem_seg_file_name"]
    assert "sem_seg_file_name" not in TestMapper(box=(40, 40))(entry)
    with pytest.raises(InputError, match=r"is 50x100 .* index says 50x99"):
        TestMapper(box=(40, 40))({**entry, "height": 99, "width": 50})


def test_test_images_are_antialiased_and_in_rgb_order() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)
    noise[..., 2] = 7
    image = TestMapper(box=(20, 20)).from_array(noise)["image"].permute(1, 2, 0).numpy()
    assert np.abs(image - noise.reshape(20, 3, 20, 3, 3).mean((1, 3))).max() <= 1


def test_array_and_file_give_the_same(tmp_path: Path) -> None:
    entry = make_dict(tmp_path, patchwork((100, 60)), ending=".jpg")
    with Image.open(entry["file_name"]) as image:
        pixels = np.array(image)
    mapper = TestMapper(box=(32, 32))
    from_file, from_array = mapper(entry), mapper.from_array(pixels)
    difference = from_file["image"].int() - from_array["image"].int()
    assert difference.abs().max() <= 1
    assert (from_array["height"], from_array["width"]) == (100, 60)


def test_box_comes_from_size_test_else_size() -> None:
    assert TestMapper(data_config("INPUT.SIZE", [48, 32])).sizes.box == (48, 32)
    assert TestMapper(data_config("INPUT.SIZE_TEST", [64, 96])).sizes.box == (64, 96)
    with pytest.raises(InputError, match=r"INPUT\.SIZE_TEST is \[0, 96\]"):
        TestMapper(data_config("INPUT.SIZE_TEST", [0, 96]))
