"""The states of an instance and the only moves between them."""

from __future__ import annotations

from itertools import product

import pytest

from fleet.instance import LEGAL_MOVES, IllegalMoveError, InstanceState, move

LEGAL = {
    "stopped": {"starting"},
    "starting": {"ready", "stopped"},
    "ready": {"draining", "stopped"},
    "draining": {"ready", "asleep", "stopped"},
    "asleep": {"starting", "stopped"},
}


@pytest.mark.parametrize(("state", "target"), list(product(InstanceState, InstanceState)))
def test_exactly_the_moves_of_the_table_are_legal(state: InstanceState, target: InstanceState) -> None:
    """All 25 pairs, judged against the table written out here."""
    if target.value in LEGAL[state.value]:
        assert move("north-0", state, target) is target
    else:
        with pytest.raises(IllegalMoveError, match=f"instance north-0: {state} cannot become {target}"):
            move("north-0", state, target)


def test_every_state_can_reach_stopped() -> None:
    """Whatever an instance does, power can be taken from it."""
    can_stop = {state for state, target in LEGAL_MOVES if target is InstanceState.STOPPED}
    assert can_stop == set(InstanceState) - {InstanceState.STOPPED}


def test_states_are_spelt_as_on_the_wire() -> None:
    """A report carries the value itself."""
    assert [str(state) for state in InstanceState] == ["starting", "ready", "draining", "asleep", "stopped"]
