"""Whether a cluster has room for a job, by what Ray tells of its nodes; Ray is not needed here.

Ray waits without end for what no node can hold, and an actor cannot lie on two nodes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from schnet.errors import InputError

# Ray rounds shares to such parts of a GPU.
_PARTS = 10_000
# Ray Data reserves one for an actor that asks for GPUs and says nothing of CPUs.
_CPUS_BESIDE_GPUS = 1


@dataclass(frozen=True)
class Workers:
    """What the job runs on.

    Attributes:
        actors: how many hold a model.
        cpus: that each takes where it has no GPU, else it takes one; also its threads.
        gpus: that each takes; a fraction lets several share one.
        batch_size: photos that an actor parses together.
    """

    actors: int = 1
    cpus: int = 1
    gpus: float = 0.0
    batch_size: int = 8


@dataclass(frozen=True)
class Node:
    """A machine of a cluster, with what Ray may give away of it."""

    cpus: float = 0.0
    gpus: float = 0.0


def alive_nodes(described: Iterable[Mapping[str, Any]]) -> list[Node]:
    """Take from `ray.nodes()` those that are there."""
    found = [node["Resources"] for node in described if node["Alive"]]
    return [Node(there.get("CPU", 0.0), there.get("GPU", 0.0)) for there in found]


def room_for(nodes: Iterable[Node], cpus: int, gpus: float) -> int:
    """Count the actors that fit, each on one node, beside one CPU to read photos with.

    Args:
        nodes: the cluster's.
        cpus: that an actor takes where it has no GPU.
        gpus: that an actor takes; a share of one, or whole ones.

    Raises:
        InputError: `gpus` is more than one and not whole, or less than Ray can share.
    """
    if (gpus > 1 and gpus != int(gpus)) or 0 < gpus < 1 / _PARTS:
        raise InputError(
            f"--num-gpus is {gpus:g}, which Ray cannot give to an actor: give a whole number, or a "
            f"share of at least {1 / _PARTS:g} and less than 1"
        )
    of_each = _CPUS_BESIDE_GPUS if gpus else cpus
    room, can_read = 0, False
    for node in nodes:
        fit = min(int(node.cpus // of_each), _actors_on_gpus(node, gpus))
        room += fit
        can_read |= node.cpus - fit * of_each >= 1
    return room if can_read else max(0, room - 1)


def default_actors(nodes: Iterable[Node], gpus: float) -> int:
    """How many actors there are where nobody says: all that fit the GPUs, or one on CPUs."""
    return max(1, room_for(nodes, 1, gpus)) if gpus else 1


def require_room(nodes: Iterable[Node], workers: Workers) -> None:
    """Refuse what Ray would wait for without end.

    Raises:
        InputError: the actors, and a CPU to read with, do not fit the nodes.
    """
    nodes = list(nodes)
    room = room_for(nodes, workers.cpus, workers.gpus)
    if workers.actors <= room:
        return
    if workers.gpus:
        largest = max(nodes, key=lambda node: (node.gpus, node.cpus), default=Node())
        asked = f"{workers.gpus:g} GPUs and {_CPUS_BESIDE_GPUS} CPU"
        remedy = "fewer --actors, or --num-gpus 0 to run on CPUs"
    else:
        largest = max(nodes, key=lambda node: (node.cpus, node.gpus), default=Node())
        asked, remedy = f"{workers.cpus} CPUs", "fewer --actors or --cpus-per-actor"
    raise InputError(
        f"--actors {workers.actors} with {asked} each, and a CPU to read photos with, do not fit "
        f"the cluster, which has room for {room} of them (its largest node has {largest.cpus:g} "
        f"CPUs and {largest.gpus:g} GPUs): give {remedy}, or a larger cluster"
    )


def _actors_on_gpus(node: Node, gpus: float) -> int:
    """How many actors a node's GPUs hold; what is left of several makes no share."""
    if not gpus:
        return int(node.cpus)
    if gpus >= 1:
        return int(node.gpus // gpus)
    return int(node.gpus) * (_PARTS // round(gpus * _PARTS))
