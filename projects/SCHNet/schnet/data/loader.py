"""Batches for training and testing, reproducible whatever the number of workers and processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler

from schnet.data.catalog import load_registered
from schnet.data.mapper import TestMapper, TrainMapper
from schnet.data.view_sizes import Size
from schnet.errors import InputError

DatasetDict = dict[str, Any]
Batch = list[DatasetDict]
Draw = tuple[int, int]


@dataclass(frozen=True)
class _BadInput:
    """What a worker sends in place of an item, since torch would wrap the error's one sentence."""

    message: str


class DrawSampler(Sampler[Draw]):
    """Endless (draw index, image index) pairs; every image once an epoch, in a new order."""

    def __init__(
        self, size: int, seed: int, *, rank: int = 0, world_size: int = 1, start_draw: int = 0
    ) -> None:
        """Keep what the draws depend on.

        Args:
            size: number of images, >= 1.
            seed: of the order; >= 0.
            rank: this process; it takes the draws `start_draw + rank`, then every
                `world_size`-th.
            world_size: number of processes.
            start_draw: number of draws that all processes together have taken before (iteration
                times SOLVER.IMS_PER_BATCH).
        """
        self.size = size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.start_draw = start_draw

    def __iter__(self) -> Iterator[Draw]:
        """Yield pairs without end, from the same start each time."""
        draw = self.start_draw + self.rank
        epoch, order = -1, np.empty(0, np.int64)
        while True:
            if draw // self.size != epoch:
                epoch = draw // self.size
                # The third number keeps this stream apart from the augmentation of draw `epoch`.
                order = np.random.default_rng([self.seed, epoch, 1]).permutation(self.size)
            yield draw, int(order[draw % self.size])
            draw += self.world_size


class MappedDraws(Dataset[DatasetDict | _BadInput]):
    """Images mapped with the random numbers of their draw: `self[draw index, image index]`."""

    def __init__(
        self,
        dicts: Sequence[DatasetDict],
        mapper: Callable[[DatasetDict, np.random.Generator], DatasetDict],
        seed: int,
    ) -> None:
        """Keep the data set, its mapper, and the seed (>= 0) of all augmentation."""
        self.dicts = dicts
        self.mapper = mapper
        self.seed = seed

    def __getitem__(self, draw: Draw) -> DatasetDict | _BadInput:
        """Map one image; its random numbers come from (seed, draw index) alone."""
        draw_index, image_index = draw
        rng = np.random.default_rng([self.seed, draw_index])
        try:
            return self.mapper(self.dicts[image_index], rng)
        except InputError as error:
            return _BadInput(str(error))


class MappedImages(Dataset[DatasetDict | _BadInput]):
    """Images mapped without randomness, by position."""

    def __init__(
        self, dicts: Sequence[DatasetDict], mapper: Callable[[DatasetDict], DatasetDict]
    ) -> None:
        """Keep the data set and its mapper."""
        self.dicts = dicts
        self.mapper = mapper

    def __len__(self) -> int:
        """Give the number of images."""
        return len(self.dicts)

    def __getitem__(self, index: int) -> DatasetDict | _BadInput:
        """Map one image."""
        try:
            return self.mapper(self.dicts[index])
        except InputError as error:
            return _BadInput(str(error))


class CheckedLoader:
    """The batches of a DataLoader; bad input met by a worker is raised here, as it was worded."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        """Keep the loader."""
        self.loader = loader

    def __len__(self) -> int:
        """Give the number of batches of this process; a training loader has none."""
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        """Yield lists of mapped dicts.

        Raises:
            InputError: a file of the batch is missing, damaged or does not fit its data set.
        """
        batches = iter(self.loader)
        try:
            for batch in batches:
                for item in batch:
                    if isinstance(item, _BadInput):
                        raise InputError(item.message)
                yield batch
        finally:
            # The last reference: the workers end here. Left to the garbage collector (an error's
            # traceback would hold it), torch waits five seconds for each of them.
            del batches


def build_train_loader(cfg: CfgNode, start_draw: int = 0) -> CheckedLoader:
    """Build the endless loader of this process's share of the training batches.

    The batches of all processes together hold the same items for any number of processes and
    workers, and go on where they were when `start_draw` says how far the run had come.

    Args:
        cfg: DATASETS.TRAIN, SOLVER.IMS_PER_BATCH and ACCUMULATE_STEPS, DATALOADER.NUM_WORKERS,
            SEED and INPUT count. A negative SEED draws one, the same for all processes.
        start_draw: images that the run has taken before: iteration times IMS_PER_BATCH.

    Returns:
        Lists of IMS_PER_BATCH / (processes * ACCUMULATE_STEPS) dicts, as `TrainMapper` makes
        them: a step takes ACCUMULATE_STEPS lists, which hold what one list would without them.

    Raises:
        InputError: a data set is unknown, missing or empty, an image has no label map, or the
            batch cannot be divided among the processes and the parts of a step.
    """
    world_size = comm.get_world_size()
    batch_size = _share_of_batch(cfg.SOLVER, world_size)
    dicts = load_registered(cfg.DATASETS.TRAIN)
    unlabelled = [entry["file_name"] for entry in dicts if "sem_seg_file_name" not in entry]
    if unlabelled:
        raise InputError(
            f"{len(unlabelled)} images of {', '.join(cfg.DATASETS.TRAIN)} have no label map, the "
            f"first is {unlabelled[0]}: training needs one for every image"
        )
    seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
    sampler = DrawSampler(
        len(dicts), seed, rank=comm.get_rank(), world_size=world_size, start_draw=start_draw
    )
    return _build(
        MappedDraws(dicts, TrainMapper(cfg), seed),
        # torch's annotation knows integers only; any index that the data set takes will do.
        BatchSampler(sampler, batch_size, drop_last=True),  # type: ignore[arg-type]
        cfg.DATALOADER.NUM_WORKERS,
    )


def _share_of_batch(solver: CfgNode, world_size: int) -> int:
    """Images of a step's part on one process."""
    images, parts = solver.IMS_PER_BATCH, solver.ACCUMULATE_STEPS
    if images % (world_size * parts):
        among = f"the {world_size} processes"
        if parts > 1:
            among += f" times the {parts} parts of SOLVER.ACCUMULATE_STEPS"
        raise InputError(
            f"config key SOLVER.IMS_PER_BATCH is {images}: it must be a multiple of {among}"
        )
    return int(images // (world_size * parts))


def build_test_loader(cfg: CfgNode, name: str) -> CheckedLoader:
    """Build the loader of this process's share of a test set; every image comes once.

    Args:
        cfg: TEST, DATALOADER.NUM_WORKERS and INPUT count.
        name: a registered data set.

    Returns:
        Lists of dicts, as `TestMapper` makes them. A list holds at most TEST.BATCH_SIZE images of
        one size, as the model sees them, where the index has the sizes; the last list of a size
        is shorter. With sliding windows it holds one image, whose windows make up the model's
        batches. The processes' shares follow each other and differ by at most one image.

    Raises:
        InputError: the data set is unknown, missing or empty.
    """
    dicts = load_registered([name])
    share = _own_share(len(dicts))
    mapper = TestMapper(cfg)
    # Letterboxed images all have the box's size.
    letterboxed = cfg.TEST.PROTOCOL == "warp_labels"
    sizes = [None if letterboxed else _seen_size(dicts[index], mapper) for index in share]
    batch_size = 1 if cfg.TEST.SLIDING_WINDOW.ENABLED else cfg.TEST.BATCH_SIZE
    return _build(
        MappedImages(dicts, mapper),
        equal_size_batches(share, sizes, batch_size),
        cfg.DATALOADER.NUM_WORKERS,
    )


def build_labelled_loader(
    cfg: CfgNode,
    dicts: Sequence[DatasetDict],
    mapper: Callable[[DatasetDict], DatasetDict],
    batch_size: int,
) -> CheckedLoader:
    """Build the loader of this process's share of chosen images, in order; every image comes once.

    Args:
        cfg: DATALOADER.NUM_WORKERS counts.
        dicts: the images of all processes.
        mapper: makes what the model takes of one.
        batch_size: images of a batch, at least 1; the last one is shorter.
    """
    share = _own_share(len(dicts))
    starts = range(0, len(share), batch_size)
    batches = [list(share[start : start + batch_size]) for start in starts]
    return _build(MappedImages(dicts, mapper), batches, cfg.DATALOADER.NUM_WORKERS)


def _own_share(size: int) -> range:
    """Give the positions of this process; the shares differ by at most one image."""
    rank, world_size = comm.get_rank(), comm.get_world_size()
    return range(size * rank // world_size, size * (rank + 1) // world_size)


def equal_size_batches(
    indices: Sequence[int], sizes: Sequence[Size | None], batch_size: int
) -> list[list[int]]:
    """Divide images into batches of one size.

    Args:
        indices: the images.
        sizes: the size of each; None where it is not known, which counts as a size of its own.
        batch_size: >= 1.

    Returns:
        Lists of indices that hold every image once, each at most `batch_size` long and, but for
        the last of a size, as long; sizes in the order of their first images, images of a size in
        the order given.
    """
    groups: dict[Size | None, list[int]] = {}
    for index, size in zip(indices, sizes, strict=True):
        groups.setdefault(size, []).append(index)
    return [
        group[start : start + batch_size]
        for group in groups.values()
        for start in range(0, len(group), batch_size)
    ]


def _seen_size(dataset_dict: DatasetDict, mapper: TestMapper) -> Size | None:
    """Give the size that an image is mapped to; None where its own is not in the index."""
    if "height" not in dataset_dict or "width" not in dataset_dict:
        return None
    return mapper.sizes.view_size((dataset_dict["height"], dataset_dict["width"]))


def _build(
    dataset: Dataset[Any], batches: BatchSampler | list[list[int]], num_workers: int
) -> CheckedLoader:
    loader = DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=num_workers,
        collate_fn=_as_list,
        worker_init_fn=_init_worker,
        # The workers' seeds, which nothing uses, would come out of torch's own generator.
        generator=torch.Generator(),
    )
    return CheckedLoader(loader)


def _as_list(items: Batch) -> Batch:
    return items


def _init_worker(worker: int) -> None:
    """Keep a worker to one core; forked threads of OpenCV's would hang besides."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
