"""Batches for training and testing, reproducible whatever the number of workers and processes."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from torch.utils.data import BatchSampler, DataLoader, Dataset

from schnet.data.broken import BrokenImages
from schnet.data.catalog import load_registered
from schnet.data.draws import Draw, DrawSampler
from schnet.data.mapper import TestMapper, TrainMapper
from schnet.data.view_sizes import Size
from schnet.errors import InputError

DatasetDict = dict[str, Any]
Batch = list[DatasetDict]


@dataclass(frozen=True)
class _Broken:
    """What a worker sends where an image is broken: torch would wrap the error's one sentence.

    Attributes:
        found: the reason of each broken image, by file name.
        item: the image that takes its place, or None.
    """

    found: dict[str, str]
    item: DatasetDict | None = None


class MappedDraws(Dataset[DatasetDict | _Broken]):
    """Images mapped with the random numbers of their draw: `self[draw index, image index]`."""

    def __init__(
        self,
        dicts: Sequence[DatasetDict],
        mapper: Callable[[DatasetDict, np.random.Generator], DatasetDict],
        seed: int,
        max_broken: int = 0,
    ) -> None:
        """Keep the data set and its mapper.

        Args:
            dicts: the data set.
            mapper: of an image and the random numbers for it.
            seed: of all augmentation; >= 0.
            max_broken: broken images that a draw goes on without.
        """
        self.dicts = dicts
        self.mapper = mapper
        self.seed = seed
        self.max_broken = max_broken

    def __getitem__(self, draw: Draw) -> DatasetDict | _Broken:
        """Map one image; what comes of it depends on (seed, draw index) and the files alone.

        Where the image is broken, another one of the set takes its place in this draw.
        """
        draw_index, image_index = draw
        found: dict[str, str] = {}
        for index in self._candidates(draw_index, image_index):
            # Each candidate gets the random numbers that the draw's own image would have had.
            rng = np.random.default_rng([self.seed, draw_index])
            try:
                item = self.mapper(self.dicts[index], rng)
            except InputError as error:
                found[self.dicts[index]["file_name"]] = str(error)
                if len(found) > self.max_broken:
                    break
            else:
                return _Broken(found, item) if found else item
        return _Broken(found)

    def _candidates(self, draw_index: int, image_index: int) -> Iterator[int]:
        yield image_index
        # The third number keeps this stream apart from the augmentation's and the orders'.
        rng = np.random.default_rng([self.seed, draw_index, 2])
        for index in rng.permutation(len(self.dicts)):
            if index != image_index:
                yield int(index)


class MappedImages(Dataset[DatasetDict | _Broken]):
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

    def __getitem__(self, index: int) -> DatasetDict | _Broken:
        """Map one image."""
        try:
            return self.mapper(self.dicts[index])
        except InputError as error:
            return _Broken({self.dicts[index]["file_name"]: str(error)})


class CheckedLoader:
    """The batches of a DataLoader; bad input met by a worker is raised here, as it was worded."""

    def __init__(self, loader: DataLoader[Any], broken: BrokenImages) -> None:
        """Keep the loader, and where broken images are counted."""
        self.loader = loader
        self.broken = broken

    def __len__(self) -> int:
        """Give the number of batches of this process; a training loader has none."""
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        """Yield lists of mapped dicts.

        Raises:
            InputError: a file of the batch is missing, damaged or does not fit its data set, and
                it is one more than the run goes on without.
        """
        with _signals_held():
            batches = iter(self.loader)
        try:
            for batch in batches:
                yield [self._item(item) for item in batch]
        finally:
            # The last reference: the workers end here. Left to the garbage collector (an error's
            # traceback would hold it), torch waits five seconds for each of them.
            del batches

    def _item(self, item: DatasetDict | _Broken) -> DatasetDict:
        if not isinstance(item, _Broken):
            return item
        self.broken.add(item.found)
        if item.item is None:
            raise InputError(f"no image is left to train on: {list(item.found.values())[-1]}")
        return item.item


def build_train_loader(
    cfg: CfgNode, start_draw: int = 0, broken: BrokenImages | None = None
) -> CheckedLoader:
    """Build the endless loader of this process's share of the training batches.

    The batches of all processes together hold the same items for any number of processes and
    workers, and go on where they were when `start_draw` says how far the run had come.

    Args:
        cfg: DATASETS.TRAIN, SOLVER.IMS_PER_BATCH and ACCUMULATE_STEPS, DATALOADER, SEED and INPUT
            count. A negative SEED draws one, the same for all processes.
        start_draw: images that the run has taken before.
        broken: the broken images that the run has met before; None is a run that starts.

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
    max_broken = cfg.DATALOADER.MAX_BAD_IMAGES
    return _build(
        MappedDraws(dicts, TrainMapper(cfg), seed, max_broken),
        # torch's annotation knows integers only; any index that the data set takes will do.
        BatchSampler(sampler, batch_size, drop_last=True),  # type: ignore[arg-type]
        cfg.DATALOADER.NUM_WORKERS,
        BrokenImages(max_broken) if broken is None else broken,
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
        BrokenImages(0),
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
    return _build(MappedImages(dicts, mapper), batches, cfg.DATALOADER.NUM_WORKERS, BrokenImages(0))


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
    dataset: Dataset[Any],
    batches: BatchSampler | list[list[int]],
    num_workers: int,
    broken: BrokenImages,
) -> CheckedLoader:
    loader = DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=num_workers,
        collate_fn=_as_list,
        worker_init_fn=_init_worker,
        # In a process that was spawned itself, Python would spawn the workers too: each imports
        # everything anew, at each evaluation, and a signal ends it meanwhile.
        multiprocessing_context="fork" if num_workers and sys.platform == "linux" else None,
        # torch would draw the workers' seeds, which nothing uses, from the run's random numbers.
        generator=torch.Generator().manual_seed(0),
    )
    return CheckedLoader(loader, broken)


def _as_list(items: Batch) -> Batch:
    return items


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Hold back what a scheduler sends to every process of a run; workers that start keep it so.

    The step that waits for a worker is to be finished, and the main process ends the worker then.
    This thread gets at the end what has come meanwhile.
    """
    earlier = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGUSR1))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, earlier)


def _init_worker(worker: int) -> None:
    """Keep a worker to one core; forked threads of OpenCV's would hang besides."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
