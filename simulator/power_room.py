"""What still comes in to a simulated site under its cap, as `site_agent.power_loop` tells its admission.

The agent turns ten times a second; here a turn comes with a reading, and more often only while something
moves. So meter and model are read between two turns too, where it matters: before a request is refused for
want of power, and before one leaves.
"""

from __future__ import annotations

from simulator.events import Events
from simulator.instance import SimulatedInstance
from simulator.plant import Plant
from simulator.settings import GOVERNOR_TICK_SECONDS
from site_agent.expected_draw import ExpectedDraw
from site_agent.site_model import SiteModel
from site_agent.slots import Slots


class PowerRoom:
    """Of one life of an agent."""

    def __init__(self, plant: Plant, model: SiteModel, slots: Slots, events: Events) -> None:
        self._plant = plant
        self._model = model
        self._slots = slots
        self._events = events
        self._expected = ExpectedDraw()
        self._cap_watts: float | None = None
        """Cap of admission as of the last turn; None: before the first, or nothing is held to one."""
        self._metered_watts, self._metered_at = 0.0, float("-inf")
        self._modelled_at = float("-inf")

    def measure(self) -> float:
        """Read the meter."""
        self._metered_watts, self._metered_at = self._plant.metered_watts(), self._events.now
        return self._metered_watts

    def set_cap(self, cap_watts: float) -> None:
        """A turn is over; `measure` was its draw."""
        self._cap_watts = cap_watts
        self.tell_slots()

    def tell_slots(self) -> None:
        """What may still come in now, by a meter that is as old as the agent's at the most."""
        if self._cap_watts is None:
            return
        now = self._events.now
        if now - self._metered_at >= GOVERNOR_TICK_SECONDS:
            self.measure()
        modelled = self._modelled_watts()
        self._modelled_at = now
        expected = self._expected.watts(modelled_watts=modelled, draw_watts=self._metered_watts, now=now)
        self._slots.set_power(cap_watts=self._cap_watts, expected_watts=expected)

    def note_leaving(self) -> None:
        """Before requests leave: what runs, which the agent would have seen in its last turn."""
        now = self._events.now
        if self._cap_watts is not None and now - self._modelled_at >= GOVERNOR_TICK_SECONDS:
            self._modelled_at = now
            self._expected.note(self._modelled_watts(), now)

    def highest_clock_mhz(self, otherwise: int) -> int:
        """The highest that an engine may run at; `otherwise` where there is none."""
        now = self._events.now
        return max((one.highest_clock_mhz(now) for one in self._drawing()), default=otherwise)

    def _drawing(self) -> list[SimulatedInstance]:
        return [one for one in self._plant.instances if one.state.is_drawing]

    def _modelled_watts(self) -> float:
        now, drawing = self._events.now, self._drawing()
        return self._model.modelled_watts(
            [self._slots.running(one.instance_id) for one in drawing],
            [one.highest_clock_mhz(now) for one in drawing],
            [one.degree for one in drawing],
        )
