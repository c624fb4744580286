"""Which instances make up a layout."""

from __future__ import annotations

from fleet.instance import InstanceState
from site_agent.placement import blockers, place, share_gpus
from site_agent.situation import InstanceView


def instances(
    running: dict[str, int] | None = None, states: dict[str, InstanceState] | None = None
) -> list[InstanceView]:
    """A server of 8 GPUs: two of degree 4, four of 2, one of 8; stopped unless said otherwise."""
    made = []
    for name, degree, number in [
        *(("four", 4, n) for n in range(2)),
        *(("two", 2, n) for n in range(4)),
        ("eight", 8, 0),
    ]:
        one = f"{name}-{number}"
        made.append(
            InstanceView(
                instance_id=one,
                index=len(made),
                state=(states or {}).get(one, InstanceState.STOPPED),
                running_requests=(running or {}).get(one, 0),
                tensor_parallel_degree=degree,
                gpu_indices=tuple(range(number * degree, (number + 1) * degree)),
            )
        )
    return made


def names(layout: tuple[tuple[int, int], ...], seen: list[InstanceView], *staying: str) -> list[str]:
    return [one.instance_id for one in place(layout, seen, frozenset(staying), own_degree=4)]


def test_those_that_share_a_gpu_are_known() -> None:
    """One of 4 shares with exactly two of 2, and with the one of 8."""
    seen = instances()
    assert [one.instance_id for one in blockers(seen[0], seen)] == ["two-0", "two-1", "eight-0"]
    assert not share_gpus(seen[0], seen[0])
    assert not share_gpus(seen[0], seen[1])


def test_who_serves_most_is_kept() -> None:
    """Fewer of the same degree: the fullest stay."""
    states = {"two-1": InstanceState.READY, "two-3": InstanceState.READY}
    seen = instances({"two-1": 1, "two-3": 5}, states)
    assert names(((2, 1),), seen, "two-1", "two-3") == ["two-3"]
    assert names(((2, 2),), seen, "two-1", "two-3") == ["two-3", "two-1"]


def test_a_wide_instance_takes_the_group_on_which_least_runs() -> None:
    """And what stays beside it is not moved."""
    states = {f"two-{number}": InstanceState.READY for number in range(4)}
    seen = instances({"two-0": 9, "two-2": 1}, states)
    assert names(((2, 2), (4, 1)), seen, *states) == ["four-1", "two-0", "two-1"]


def test_two_that_share_a_gpu_are_never_chosen_together() -> None:
    """A layout that does not fit gives fewer."""
    for layout in [((8, 1), (4, 1)), ((4, 2), (2, 1)), ((2, 4), (4, 2), (8, 1)), ((2, 9),)]:
        chosen = place(layout, instances(), frozenset(), own_degree=4)
        gpus = [gpu for one in chosen for gpu in one.gpu_indices]
        assert len(gpus) == len(set(gpus))


def test_a_drain_is_taken_back_before_another_starts() -> None:
    """And one in a back-off comes last."""
    seen = instances(states={"two-2": InstanceState.DRAINING})
    assert names(((2, 1),), seen) == ["two-2"]
