from __future__ import annotations

import multiprocessing
import os
import signal
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from data_helpers import FLAT_LIP, data_config, make_pairs, patchwork, save_image
from detectron2.utils import comm
from parsing_fakes import write_split

from schnet.data.broken import BrokenImages
from schnet.data.catalog import register_datasets
from schnet.data.draws import DrawSampler
from schnet.data.index import DatasetIndex, IndexRecord, write_index
from schnet.data.labels import LIP_CLASSES
from schnet.data.loader import (
    Batch,
    DatasetDict,
    MappedDraws,
    _init_worker,
    build_test_loader,
    build_train_loader,
    equal_size_batches,
)
from schnet.errors import InputError

IDS = ["a", "b", "c", "d", "e"]


@pytest.fixture
def lip(tmp_path: Path) -> Path:
    """A registered LIP with five training images and no validation images."""
    make_pairs(tmp_path / "lip", IDS, **FLAT_LIP)
    register_datasets(str(tmp_path))
    return tmp_path / "lip"


def be_rank(monkeypatch: pytest.MonkeyPatch, rank: int, world_size: int) -> None:
    monkeypatch.setattr(comm, "get_rank", lambda: rank)
    monkeypatch.setattr(comm, "get_world_size", lambda: world_size)


def take(count: int, *opts: object, start_draw: int = 0) -> list[Batch]:
    return list(islice(build_train_loader(data_config(*opts), start_draw=start_draw), count))


def same(first: Batch, second: Batch) -> bool:
    return len(first) == len(second) and all(
        a["image_id"] == b["image_id"]
        and torch.equal(a["image"], b["image"])
        and torch.equal(a["sem_seg"], b["sem_seg"])
        for a, b in zip(first, second, strict=True)
    )


def test_every_image_once_an_epoch_in_new_order() -> None:
    pairs = list(islice(DrawSampler(7, seed=3), 28))
    assert [draw for draw, _ in pairs] == list(range(28))
    epochs = [[index for _, index in pairs[i : i + 7]] for i in range(0, 28, 7)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    other = [index for _, index in islice(DrawSampler(7, seed=4), 28)]
    assert other != [index for _, index in pairs]


def test_ranks_share_the_draws() -> None:
    whole = list(islice(DrawSampler(5, seed=0), 24))
    shares = [list(islice(DrawSampler(5, seed=0, rank=rank, world_size=3), 8)) for rank in range(3)]
    assert sorted(pair for share in shares for pair in share) == whole
    assert [draw for draw, _ in shares[1][:3]] == [1, 4, 7]


def test_sampler_starts_anywhere() -> None:
    whole = list(islice(DrawSampler(5, seed=0), 30))
    assert list(islice(DrawSampler(5, seed=0, start_draw=13), 17)) == whole[13:]


def test_batches_are_lists_of_the_batch_size(lip: Path) -> None:
    batches = take(4, "SOLVER.IMS_PER_BATCH", 3)
    assert all(isinstance(batch, list) and len(batch) == 3 for batch in batches)
    assert sorted(item["image_id"] for item in sum(batches, [])[:5]) == IDS


TURNING = ("INPUT.CROP", "letterbox", "INPUT.ROTATION_PROB", 0.7, "INPUT.ROTATION_SIGMA", 30.0)
UPRIGHT = ("INPUT.ROTATION_PROB", 0.0)


@pytest.mark.parametrize("opts", [UPRIGHT, TURNING])
def test_workers_change_nothing(lip: Path, opts: tuple[object, ...]) -> None:
    alone, helped = take(5, *opts), take(5, *opts, "DATALOADER.NUM_WORKERS", 2)
    assert all(same(a, b) for a, b in zip(alone, helped, strict=True))
    other = take(5, *opts, "SEED", 1)
    assert not all(same(a, b) for a, b in zip(alone, other, strict=True))


def test_turned_items_are_the_same_for_all_ranks_and_after_resumption(
    lip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, upright = take(6, *TURNING), take(6, *UPRIGHT)
    assert not any(same(a, b) for a, b in zip(whole, upright, strict=True))
    resumed = take(4, *TURNING, start_draw=4)
    assert all(same(a, b) for a, b in zip(resumed, whole[2:], strict=True))
    for rank in range(2):
        be_rank(monkeypatch, rank, 2)
        share = take(6, *TURNING)
        assert all(same(a, b[rank : rank + 1]) for a, b in zip(share, whole, strict=True))


def test_epochs_augment_anew(lip: Path) -> None:
    items = sum(take(5), [])
    crops = [item["image"] for item in items if item["image_id"] == "a"]
    assert len(crops) == 2 and not torch.equal(crops[0], crops[1])


def test_two_ranks_give_the_batches_of_one(lip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = take(3, "SOLVER.IMS_PER_BATCH", 4)
    shares = []
    for rank in range(2):
        be_rank(monkeypatch, rank, 2)
        shares.append(take(3, "SOLVER.IMS_PER_BATCH", 4))
    for batch, first, second in zip(whole, *shares, strict=True):
        assert len(first) == len(second) == 2
        assert same(batch, [first[0], second[0], first[1], second[1]])


def test_resuming_goes_on_where_it_was(lip: Path) -> None:
    whole = take(5)
    resumed = take(2, "DATALOADER.NUM_WORKERS", 1, start_draw=3 * 2)
    assert all(same(a, b) for a, b in zip(whole[3:], resumed, strict=True))


def test_batch_must_divide_among_processes(lip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    be_rank(monkeypatch, 0, 3)
    with pytest.raises(InputError, match=r"IMS_PER_BATCH is 4: .* multiple of the 3 processes"):
        build_train_loader(data_config("SOLVER.IMS_PER_BATCH", 4))


def test_negative_seed_draws_one(lip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comm, "shared_random_seed", lambda: 5)
    assert same(take(1, "SEED", -1)[0], take(1, "SEED", 5)[0])


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_input_keeps_its_one_sentence(lip: Path, workers: int) -> None:
    save_image(lip / "train_segmentations" / "c.png", np.full((48, 32), 77, np.uint8))
    # An earlier test's endless loader may not have been collected yet.
    earlier = set(multiprocessing.active_children())
    with pytest.raises(InputError) as caught:
        take(3, "DATALOADER.NUM_WORKERS", workers)
    message = str(caught.value)
    assert message.startswith("the label map ") and "c.png holds the value 77" in message
    assert "\n" not in message and "Traceback" not in message
    # While the error is still held; workers that wait for its end hold up the exit.
    assert set(multiprocessing.active_children()) <= earlier


def _break(lip: Path, *names: str) -> None:
    for name in names:
        (lip / "train_images" / f"{name}.jpg").write_bytes(b"no image")


def test_broken_image_is_replaced_and_the_rest_stays(lip: Path) -> None:
    whole = take(10)
    _break(lip, "c")
    runs: list[list[Batch]] = []
    for workers in (0, 2):
        broken = BrokenImages(1)
        cfg = data_config("DATALOADER.MAX_BAD_IMAGES", 1, "DATALOADER.NUM_WORKERS", workers)
        found = list(islice(build_train_loader(cfg, broken=broken), 10))
        (name,) = broken.reasons
        assert name.endswith("c.jpg") and "c.jpg cannot be read" in broken.reasons[name]
        replaced = 0
        for was, now in zip(sum(whole, []), sum(found, []), strict=True):
            assert now["image_id"] != "c"
            assert was["image_id"] == "c" or same([was], [now])
            replaced += was["image_id"] == "c"
        assert replaced == 4
        runs.append(found)
    alone, helped = runs
    assert all(same(a, b) for a, b in zip(alone, helped, strict=True))
    resumed = take(4, "DATALOADER.MAX_BAD_IMAGES", 1, start_draw=12)
    assert all(same(a, b) for a, b in zip(resumed, alone[6:], strict=True))


def test_replacement_has_the_random_numbers_of_the_draw(lip: Path) -> None:
    _break(lip, "a", "b", "c", "d")
    # One image is left: it takes every draw, cut as the draw says.
    items = sum(take(5, "DATALOADER.MAX_BAD_IMAGES", 4), [])
    assert {item["image_id"] for item in items} == {"e"}
    mapped = MappedDraws(
        [{"file_name": "x"}], lambda entry, rng: {"drawn": rng.integers(1000)}, seed=0
    )
    assert mapped[7, 0] == mapped[7, 0] != mapped[8, 0]


def test_one_broken_image_more_than_the_limit_is_refused(lip: Path) -> None:
    _break(lip, "a", "c")
    with pytest.raises(InputError, match="2 training images are broken.*MAX_BAD_IMAGES.* is 1"):
        take(5, "DATALOADER.MAX_BAD_IMAGES", 1)
    take(5, "DATALOADER.MAX_BAD_IMAGES", 2)
    _break(lip, *IDS)
    with pytest.raises(InputError, match="no image is left to train on"):
        take(5, "DATALOADER.MAX_BAD_IMAGES", 9)


def test_a_draw_reads_no_more_broken_images_than_end_the_run() -> None:
    """A disk that is gone must not be asked for a whole data set first."""

    def refuse(entry: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        raise InputError(f"{entry['file_name']} is empty")

    dicts = [{"file_name": f"{name}.jpg"} for name in IDS]
    for limit in (0, 1, 3):
        assert len(MappedDraws(dicts, refuse, 0, limit)[0, 0].found) == limit + 1


@pytest.mark.parametrize("workers", [0, 1])
def test_loaders_leave_the_random_numbers_of_the_run_alone(lip: Path, workers: int) -> None:
    before = torch.get_rng_state()
    take(2, "DATALOADER.NUM_WORKERS", workers)
    list(build_test_loader(data_config("DATALOADER.NUM_WORKERS", workers), "lip_train"))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_workers_go_on_when_a_scheduler_signals_every_process(
    lip: Path, number: signal.Signals
) -> None:
    earlier = set(multiprocessing.active_children())
    batches = iter(build_train_loader(data_config("DATALOADER.NUM_WORKERS", 2)))
    next(batches)
    workers = set(multiprocessing.active_children()) - earlier
    assert len(workers) == 2
    for worker in workers:
        assert worker.pid is not None
        os.kill(worker.pid, number)
    for _ in range(6):
        next(batches)
    assert all(worker.is_alive() for worker in workers)
    batches.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_test_image_keeps_its_one_sentence(lip: Path, workers: int) -> None:
    (lip / "train_images" / "d.jpg").write_bytes(b"no image")
    loader = build_test_loader(data_config("DATALOADER.NUM_WORKERS", workers), "lip_train")
    with pytest.raises(InputError, match=r"^the image .*d\.jpg cannot be read"):
        list(loader)


def test_defects_of_ours_stay_defects(lip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: str) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("schnet.data.mapper.open_image", fail)
    with pytest.raises(ZeroDivisionError):
        take(1)


def test_unlabelled_images_cannot_train(tmp_path: Path) -> None:
    save_image(tmp_path / "lip" / "x.jpg", patchwork((8, 8)), subsampling=-1)
    records = (IndexRecord("x.jpg", "", 8, 8),)
    index = DatasetIndex(LIP_CLASSES, ".", ".", (0,) * 20, records)
    write_index(tmp_path / "lip" / "train.json", index)
    register_datasets(str(tmp_path))
    with pytest.raises(InputError, match=r"1 images of lip_train have no label map.*x\.jpg"):
        build_train_loader(data_config())
    assert len(list(build_test_loader(data_config(), "lip_train"))) == 1


def test_test_loader_gives_every_image_once(lip: Path) -> None:
    loader = build_test_loader(data_config("TEST.BATCH_SIZE", 2), "lip_train")
    batches = list(loader)
    assert [len(batch) for batch in batches] == [2, 2, 1] and len(loader) == 3
    assert [item["image_id"] for batch in batches for item in batch] == IDS
    assert list(map(len, loader)) == [2, 2, 1]


def test_batches_of_equal_size_hold_every_image_once() -> None:
    sizes = [(2, 2), (3, 3), None, (2, 2), (2, 2), (3, 3), None, (4, 4)]
    indices = range(10, 18)
    assert equal_size_batches(indices, sizes, 2) == [[10, 13], [14], [11, 15], [12, 16], [17]]
    assert equal_size_batches(indices, sizes, 1) == [[i] for i in (10, 13, 14, 11, 15, 12, 16, 17)]
    assert equal_size_batches(indices, [None] * 8, 3) == [[10, 11, 12], [13, 14, 15], [16, 17]]
    assert equal_size_batches([], [], 3) == []


MIXED = [(48, 32), (24, 32), (96, 64), (10, 7), (12, 16), (48, 32), (24, 32)]


@pytest.fixture
def mixed(tmp_path: Path) -> None:
    """A registered LIP whose validation images have sizes that the index knows."""
    write_split(tmp_path, "lip", "val", [np.zeros(size, np.uint8) for size in MIXED])
    register_datasets(str(tmp_path))


def mixed_batches(*opts: object) -> list[list[int]]:
    """The batches that the loader makes, by the images' numbers."""
    cfg = data_config("INPUT.SIZE", [48, 48], "TEST.BATCH_SIZE", 3, *opts)
    loader = build_test_loader(cfg, "lip_val")
    batches = list(loader)
    assert len(loader) == len(batches)
    for batch in batches:
        for item in batch:
            assert (item["height"], item["width"]) == MIXED[number(item)]
        whole = not cfg.TEST.SLIDING_WINDOW.ENABLED and cfg.TEST.PROTOCOL == "upsample_logits"
        assert not whole or len({item["image"].shape for item in batch}) == 1
    return [[number(item) for item in batch] for batch in batches]


def number(item: DatasetDict) -> int:
    return int(item["image_id"].removeprefix("val_"))


def test_images_of_one_fitted_size_make_a_batch(mixed: None) -> None:
    # (48, 32) and (96, 64) are fitted alike; so are (24, 32) and (12, 16).
    assert mixed_batches() == [[0, 2, 5], [1, 4, 6], [3]]
    assert mixed_batches("TEST.BATCH_SIZE", 2) == [[0, 2], [5], [1, 4], [6], [3]]


def test_letterboxed_images_are_all_of_one_size(mixed: None) -> None:
    assert mixed_batches("TEST.PROTOCOL", "warp_labels") == [[0, 1, 2], [3, 4, 5], [6]]


def test_photos_for_windows_come_alone(mixed: None) -> None:
    batches = mixed_batches("TEST.SLIDING_WINDOW.ENABLED", True)
    assert sorted(batches) == [[i] for i in range(7)]


@pytest.mark.parametrize("world_size", [2, 3, 9])
def test_shares_of_mixed_sizes_are_complete(
    mixed: None, monkeypatch: pytest.MonkeyPatch, world_size: int
) -> None:
    shares = []
    for rank in range(world_size):
        be_rank(monkeypatch, rank, world_size)
        shares.append(sum(mixed_batches(), []))
    assert sorted(sum(shares, [])) == list(range(7))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("world_size", [2, 3, 7])
def test_test_shares_are_contiguous_and_complete(
    lip: Path, monkeypatch: pytest.MonkeyPatch, world_size: int
) -> None:
    shares = []
    for rank in range(world_size):
        be_rank(monkeypatch, rank, world_size)
        loader = build_test_loader(data_config("TEST.BATCH_SIZE", 2), "lip_train")
        share = [item["image_id"] for batch in loader for item in batch]
        assert len(loader) == (len(share) + 1) // 2
        shares.append(share)
    assert sum(shares, []) == IDS
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_missing_data_set_is_refused(lip: Path) -> None:
    with pytest.raises(InputError, match="neither an index .*val"):
        build_test_loader(data_config(), "lip_val")


def test_workers_keep_to_one_core() -> None:
    before = cv2.getNumThreads(), torch.get_num_threads()
    try:
        _init_worker(0)
        assert cv2.getNumThreads() == 1 and torch.get_num_threads() == 1
    finally:
        cv2.setNumThreads(before[0])
        torch.set_num_threads(before[1])


def in_parts(count: int, parts: int, *opts: object, start_draw: int = 0) -> list[Batch]:
    """The batches of steps that are taken in parts, the parts of a step put together."""
    batches = take(count * parts, "SOLVER.ACCUMULATE_STEPS", parts, *opts, start_draw=start_draw)
    return [sum(batches[i : i + parts], []) for i in range(0, count * parts, parts)]


@pytest.mark.parametrize(("world_size", "parts"), [(1, 2), (1, 8), (2, 2), (2, 4), (4, 2)])
@pytest.mark.parametrize("start_step", [0, 3])
def test_parts_of_a_step_hold_the_draws_of_the_whole(
    lip: Path, monkeypatch: pytest.MonkeyPatch, world_size: int, parts: int, start_step: int
) -> None:
    batch = ("SOLVER.IMS_PER_BATCH", 8)
    whole = take(5, *batch)[start_step:]
    shares = []
    for rank in range(world_size):
        be_rank(monkeypatch, rank, world_size)
        first = take(1, *batch, "SOLVER.ACCUMULATE_STEPS", parts)[0]
        assert len(first) * parts * world_size == 8
        shares.append(in_parts(len(whole), parts, *batch, start_draw=8 * start_step))
    for step, wanted in enumerate(whole):
        ours = [item for share in zip(*(s[step] for s in shares), strict=True) for item in share]
        assert same(ours, wanted)


def test_batch_must_divide_among_processes_and_parts(
    lip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    be_rank(monkeypatch, 0, 2)
    told = r"IMS_PER_BATCH is 6: .* multiple of the 2 processes times the 2 parts .*ACCUMULATE"
    with pytest.raises(InputError, match=told):
        take(1, "SOLVER.IMS_PER_BATCH", 6, "SOLVER.ACCUMULATE_STEPS", 2)
