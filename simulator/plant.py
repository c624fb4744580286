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
from site_agent.drivers.interface import InstanceSpec
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
        self.instances = tuple(self._instances(on_first_token, on_finish, on_change))

    def _instances(
        self,
        on_first_token: Callable[[Sequence, float], None],
        on_finish: Callable[[Sequence, float], None],
        on_change: Callable[[], None],
    ) -> Iterator[SimulatedInstance]:
        """Those of the site's own degree first, then of each other one that its GPUs can be split into."""
        settings, index = self._settings, 0
        for degree, profile in self._model.profiles.items():
            for place in range(self._model.most(degree)):
                spec = InstanceSpec(
                    instance_id=f"{settings.site_id}-{index}",
                    index=index,
                    port=0,
                    model=profile.model,
                    gpu_indices=tuple(range(place * degree, (place + 1) * degree)),
                )
                index += 1
                yield SimulatedInstance(
                    spec,
                    profile,
                    events=self._events,
                    max_concurrency=self._model.concurrency[degree],
                    start_seconds=settings.start_seconds,
                    rng=self._rng,
                    on_first_token=on_first_token,
                    on_finish=on_finish,
                    on_change=on_change,
                )

    def draw_watts(self) -> float:
        """What the site draws, truly."""
        now = self._events.now
        watts = self._stopped_watts
        for one in self.instances:
            one.gpus.advance(now)
            watts += one.gpus.watts - one.stopped_watts
        return self._model.power.site_watts(watts)

    def joules(self) -> float:
        """Energy of the whole site since the start."""
        now = self._events.now
        gpus = sum(one.gpus.joules(now) - one.stopped_watts * now for one in self.instances)
        gpus += self._stopped_watts * now
        return (gpus + self._settings.host_idle_watts * now) * self._settings.overhead_ratio

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
