"""The states of spare capacity: fewer watts take longer to come back."""

from __future__ import annotations

import pytest

from fleet.power_states import PowerState, ServerPower

WAITING = (PowerState.IDLE, PowerState.ENGINE_STOPPED, PowerState.SERVER_OFF)


def test_the_fewer_watts_the_longer_it_takes_to_serve() -> None:
    """That is what the choice is about."""
    server = ServerPower()
    assert [server.watts(state) for state in WAITING] == [1920.0, 1560.0, 0.0]
    assert [server.seconds_to_serve(state) for state in WAITING] == [0.0, 90.0, 390.0]


def test_a_serving_server_has_no_single_figure() -> None:
    """Its watts are the profile's."""
    assert ServerPower().seconds_to_serve(PowerState.SERVING) == 0.0
    with pytest.raises(ValueError, match="ask its profile"):
        ServerPower().watts(PowerState.SERVING)


@pytest.mark.parametrize("fault", [{"gpu_count": 0}, {"host_watts": -1.0}, {"off_watts": float("nan")}])
def test_what_no_server_does_is_refused(fault: dict[str, float]) -> None:
    """The message names the field."""
    with pytest.raises(ValueError, match=next(iter(fault))):
        ServerPower(**fault)  # type: ignore[arg-type]
