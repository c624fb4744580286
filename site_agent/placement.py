"""Which instances make up a layout, given the GPUs that each of them needs. Pure.

Rule: among the instances of a degree, those that serve the most now are kept; an instance that needs GPUs of
others takes those on which the least is running. Two chosen instances never share a GPU.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fleet.instance import InstanceState
from site_agent.site_model import Layout
from site_agent.situation import InstanceView


def share_gpus(one: InstanceView, other: InstanceView) -> bool:
    """Whether the two can never run together."""
    return (
        one.instance_id != other.instance_id
        and bool(one.gpu_indices)
        and not set(one.gpu_indices).isdisjoint(other.gpu_indices)
    )


def blockers(one: InstanceView, others: Iterable[InstanceView]) -> list[InstanceView]:
    """Those of `others` whose GPUs it needs."""
    return [other for other in others if share_gpus(one, other)]


def place(
    layout: Layout, instances: Sequence[InstanceView], staying: frozenset[str], *, own_degree: int
) -> list[InstanceView]:
    """The instances to have awake for this layout, best kept first; fewer where GPUs do not suffice.

    `staying`: the ids of those that are awake and not on their way out. Widest first, since a wide instance
    needs a whole group of GPUs.
    """
    chosen: list[InstanceView] = []
    taken: set[int] = set()
    kept = [one for one in instances if one.instance_id in staying]
    for degree, count in sorted(layout, reverse=True):
        left = count
        candidates = [
            one
            for one in instances
            if (one.tensor_parallel_degree or own_degree) == degree and taken.isdisjoint(one.gpu_indices)
        ]
        order = sorted(candidates, key=lambda one: _preference(one, kept, staying))
        for one in order:
            if left == 0:
                break
            if not taken.isdisjoint(one.gpu_indices):
                continue
            chosen.append(one)
            taken.update(one.gpu_indices)
            left -= 1
    return chosen


def _preference(
    one: InstanceView, kept: Sequence[InstanceView], staying: frozenset[str]
) -> tuple[int, int, int, int]:
    """Sort key: awake ones by their load, drains that can be taken back, then those that can start."""
    if one.instance_id in staying:
        return (0, one.state is InstanceState.STARTING, -one.running_requests, one.index)
    displaced = sum(1 + other.running_requests for other in blockers(one, kept))
    if one.state is InstanceState.DRAINING and not one.is_stopping:
        return (1, displaced, -one.running_requests, one.index)
    return (2 if one.can_start and one.state is InstanceState.STOPPED else 3, displaced, 0, one.index)
