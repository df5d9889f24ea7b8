"""Which part of the photos this process parses, where several share the work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from schnet.errors import InputError


@dataclass(frozen=True)
class Shard:
    """One of several processes.

    Attributes:
        rank: its number, 0..world-1.
        world: how many there are.
    """

    rank: int = 0
    world: int = 1

    def owns(self, number: int) -> bool:
        """Whether a photo is this process's, by its number in the plan of names."""
        return number % self.world == self.rank

    def __str__(self) -> str:
        """Such as `rank 0 of 4`."""
        return f"rank {self.rank} of {self.world}"


def shard_of(environment: Mapping[str, str]) -> Shard:
    """Read RANK and WORLD_SIZE, as torchrun sets them; without them there is one process.

    Args:
        environment: the process's.

    Raises:
        InputError: only one of them is set, or they are no such numbers.
    """
    rank, world = environment.get("RANK"), environment.get("WORLD_SIZE")
    if rank is None and world is None:
        return Shard()
    numbers = [text for text in (rank, world) if text is not None and text.isdecimal()]
    if len(numbers) < 2 or not int(numbers[0]) < int(numbers[1]):
        raise InputError(
            f"the environment has RANK={rank} and WORLD_SIZE={world}: set both, as torchrun does, "
            "RANK from 0 and below WORLD_SIZE, or neither"
        )
    return Shard(int(numbers[0]), int(numbers[1]))
