"""The order in which a training takes its images, the same for any number of processes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

Draw = tuple[int, int]
"""Number of the draw, counted over the whole run, and position of its image in the data set."""


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
            start_draw: number of draws that all processes together have taken before.
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
