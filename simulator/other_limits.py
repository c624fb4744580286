"""Tells a site's `Slots` what instances of another tensor-parallel degree than the site's own can take."""

from __future__ import annotations

from collections.abc import Sequence

from simulator.instance import SimulatedInstance
from site_agent.instance import Instance
from site_agent.limits import MeanWork, Slo, limits_of
from site_agent.site_model import SiteModel
from site_agent.slots import Slots


class OtherLimits:
    """`update` is called at every turn, after `SiteLimits.update`."""

    def __init__(
        self,
        slots: Slots[Instance],
        model: SiteModel,
        instances: Sequence[SimulatedInstance],
        slo: Slo,
    ) -> None:
        self._slots = slots
        self._model = model
        self._others = [one for one in instances if one.degree != model.degree]
        self._slo = slo
        self._known: tuple[int, MeanWork | None] | None = None

    def update(self, clock_mhz: int) -> None:
        """Where the clock or the mean request have changed."""
        known = clock_mhz, self._slots.mean
        if not self._others or known == self._known:
            return
        self._known = known
        for one in self._others:
            limits = limits_of(
                one.engine.profile,
                clock_mhz,
                max_concurrency=self._model.concurrency[one.degree],
                slo=self._slo,
                mean=self._slots.mean,
            )
            self._slots.set_limits(one.state.instance_id, limits)
