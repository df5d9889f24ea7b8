"""How many actors a cluster holds, by lists of nodes as Ray gives them; needs no Ray."""

from __future__ import annotations

from typing import Any

import pytest

from schnet.errors import InputError
from schnet.ray_pipeline.room import (
    Node,
    Workers,
    alive_nodes,
    default_actors,
    require_room,
    room_for,
)


def described(cpus: float, gpus: float = 0.0, alive: bool = True) -> dict[str, Any]:
    """A node in the form of `ray.nodes()`, which leaves out what is not there."""
    there = {"CPU": cpus, "GPU": gpus}
    resources = {"memory": 1e9, **{name: value for name, value in there.items() if value}}
    return {"NodeID": "x", "Alive": alive, "Resources": resources}


def test_nodes_that_are_gone_do_not_count() -> None:
    nodes = [described(2), described(8, alive=False), described(0), described(4, 2)]
    assert alive_nodes(nodes) == [Node(2, 0), Node(0, 0), Node(4, 2)]


@pytest.mark.parametrize(
    "nodes, cpus, gpus, room",
    [
        ([Node(2)] * 3, 4, 0, 0),  # six CPUs, and none has four
        ([Node(2)] * 3, 2, 0, 2),  # the third would leave nothing to read with
        ([Node(2), Node(3)], 2, 0, 2),
        ([Node(7), Node(7)], 4, 0, 2),
        ([Node(2)], 1, 0, 1),
        ([Node(1)], 1, 0, 0),
        ([Node(0), Node(4)], 1, 0, 3),
        ([], 1, 0, 0),
        ([Node(64, 4)], 1, 0.3, 12),  # 13 by 4 / 0.3
        ([Node(64, 1)] * 4, 1, 0.3, 12),
        ([Node(64, 1), Node(64, 1)], 1, 2, 0),
        ([Node(64, 3), Node(64, 5)], 1, 2, 3),
        ([Node(64, 1)], 1, 1 / 3, 3),
        ([Node(64, 1)], 1, 1 / 6, 5),  # Ray rounds up, to 0.1667
        ([Node(64, 1)], 1, 0.1, 10),
        ([Node(8, 8)], 4, 1, 7),  # beside its GPU each takes one CPU, whatever `cpus` is
        ([Node(2, 8), Node(4)], 1, 1, 2),
        ([Node(64)], 1, 1, 0),
    ],
)
def test_actors_lie_on_one_node_each(nodes: list[Node], cpus: int, gpus: float, room: int) -> None:
    assert room_for(nodes, cpus, gpus) == room
    if room:
        require_room(nodes, Workers(room, cpus, gpus))
    with pytest.raises(InputError, match=f"room for {room} of them"):
        require_room(nodes, Workers(room + 1, cpus, gpus))


def test_default_is_what_fits() -> None:
    assert default_actors([Node(64, 4)], 0.3) == 12
    assert default_actors([Node(64, 4)], 0) == 1
    # The check then says what is wrong.
    assert default_actors([Node(64)], 1) == 1


def test_what_does_not_fit_is_told_with_the_largest_node() -> None:
    nodes = [Node(2), Node(4), Node(3, 1)]
    with pytest.raises(InputError) as caught:
        require_room(nodes, Workers(1, 5))
    assert str(caught.value) == (
        "--actors 1 with 5 CPUs each, and a CPU to read photos with, do not fit the cluster, which "
        "has room for 0 of them (its largest node has 4 CPUs and 0 GPUs): give fewer --actors or "
        "--cpus-per-actor, or a larger cluster"
    )
    with pytest.raises(InputError, match="2 GPUs and 1 CPU each.* has 3 CPUs and 1 GPUs.*-gpus 0"):
        require_room(nodes, Workers(1, 1, 2))


@pytest.mark.parametrize("gpus", [1.5, 2.25, 0.00001])
def test_shares_that_ray_cannot_give(gpus: float) -> None:
    with pytest.raises(InputError, match=rf"--num-gpus is {gpus:g}, which Ray cannot give"):
        default_actors([Node(8, 8)], gpus)
