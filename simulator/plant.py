"""The hardware of a simulated site: its instances, and what all its GPUs draw together.

Instances of different tensor-parallel degrees share GPUs; never two of them at a time. So the draw is that of
all GPUs without an engine, and what each instance draws beyond that.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from fleet.instance import InstanceState
from simulator.events import Events
from simulator.instance import SimulatedInstance
from simulator.sequence import Sequence
from simulator.settings import SiteSettings
from site_agent.layouts import instance_specs
from site_agent.site_model import SiteModel


class Plant:
    """A server."""

    def __init__(
        self,
        settings: SiteSettings,
        model: SiteModel,
        *,
        events: Events,
        rng: random.Random,
        on_first_token: Callable[[Sequence, float], None],
        on_finish: Callable[[Sequence, float], None],
        on_change: Callable[[], None],
    ) -> None:
        """`rng` is the meter's noise."""
        self._settings = settings
        self._model = model
        self._events = events
        self._rng = rng
        self._stopped_watts = model.gpu_count * model.profile.stopped_watts / model.degree
        """All GPUs without an engine."""
        self.is_on = True
        """The server; off it draws nothing."""
        self._base_joules, self._base_at = 0.0, events.now
        self.instances = tuple(self._instances(on_first_token, on_finish, on_change))

    def _instances(
        self,
        on_first_token: Callable[[Sequence, float], None],
        on_finish: Callable[[Sequence, float], None],
        on_change: Callable[[], None],
    ) -> Iterator[SimulatedInstance]:
        """In `site_agent.layouts`' order: the site's own degree first."""
        settings, model = self._settings, self._model
        for spec in instance_specs(settings.site_id, model, model_name=model.profile.model):
            yield SimulatedInstance(
                spec,
                model.profiles[spec.tensor_parallel_degree],
                events=self._events,
                max_concurrency=model.concurrency[spec.tensor_parallel_degree],
                start_seconds=settings.start_seconds,
                rng=self._rng,
                on_first_token=on_first_token,
                on_finish=on_finish,
                on_change=on_change,
            )

    def switch_off(self) -> None:
        """No power at all."""
        self._base_joules += self._base_since()
        self._base_at, self.is_on = self._events.now, False

    def switch_on(self) -> None:
        """Power again; the host draws at once."""
        self._base_at, self.is_on = self._events.now, True

    def _base_since(self) -> float:
        """Joules of host and resting GPUs since the last switch."""
        if not self.is_on:
            return 0.0
        return self._model.power.site_watts(self._stopped_watts) * (self._events.now - self._base_at)

    def draw_watts(self) -> float:
        """What the site draws, truly."""
        if not self.is_on:
            return 0.0
        now = self._events.now
        watts = self._stopped_watts
        for one in self.instances:
            one.gpus.advance(now)
            watts += one.gpus.watts - one.stopped_watts
        return self._model.power.site_watts(watts)

    def joules(self) -> float:
        """Energy of the whole site since the start."""
        now = self._events.now
        beyond = sum([one.gpus.joules(now) - one.stopped_watts * now for one in self.instances])
        return self._base_joules + self._base_since() + beyond * self._settings.overhead_ratio

    def metered_watts(self) -> float:
        """The same as the agent's meter shows it: with noise."""
        now = self._events.now
        watts = self._stopped_watts
        for one in self.instances:
            if one.state.state is InstanceState.STOPPED and one.gpus.watts - one.stopped_watts < 1.0:
                continue  # its GPUs rest, or are another instance's
            one.gpus.draw_noise()
            watts += sum(one.gpus.readings(now)) - one.stopped_watts
        return self._model.power.site_watts(watts)
