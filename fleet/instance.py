"""The life of an engine instance: its states and the only moves between them (DESIGN §3)."""

from __future__ import annotations

from enum import StrEnum


class InstanceState(StrEnum):
    """As on the wire."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    ASLEEP = "asleep"
    STOPPED = "stopped"


LEGAL_MOVES: frozenset[tuple[InstanceState, InstanceState]] = frozenset(
    {
        (InstanceState.STOPPED, InstanceState.STARTING),
        (InstanceState.STARTING, InstanceState.READY),
        (InstanceState.STARTING, InstanceState.STOPPED),  # told to stop, or it failed to start
        (InstanceState.READY, InstanceState.DRAINING),
        (InstanceState.READY, InstanceState.STOPPED),  # it died
        (InstanceState.DRAINING, InstanceState.READY),  # power came back before the stop
        (InstanceState.DRAINING, InstanceState.ASLEEP),
        (InstanceState.DRAINING, InstanceState.STOPPED),
        (InstanceState.ASLEEP, InstanceState.STARTING),  # waking
        (InstanceState.ASLEEP, InstanceState.STOPPED),
    }
)


class IllegalMoveError(ValueError):
    """An instance was asked to do what its state does not allow."""


def move(instance_id: str, state: InstanceState, target: InstanceState) -> InstanceState:
    """Return `target` if the move is legal.

    Raises:
        IllegalMoveError: naming the instance and both states.
    """
    if (state, target) not in LEGAL_MOVES:
        raise IllegalMoveError(f"instance {instance_id}: {state} cannot become {target}")
    return target
