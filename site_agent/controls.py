"""The site controls by name: ours and those it is compared with, live and simulated the same. Pure.

A control is chosen by `[sites.governor] control`, or in the simulator by the same name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, Protocol, get_args

from fleet.power import RideThrough, RideThroughAccount
from site_agent.baselines import PowerCapOnly
from site_agent.choosers import MostThroughput
from site_agent.correction import Correction
from site_agent.governor import Governor
from site_agent.least_energy import LeastEnergy
from site_agent.site_model import SiteModel
from site_agent.situation import Decision, GovernorRule, SiteView

ControlName = Literal["governed", "power_cap_only", "gpu_idling", "dynamo_like"]
DEFAULT_CONTROL: ControlName = "governed"


class SiteControl(Protocol):
    """Owns one site: `decide` is called about ten times a second and at once on a new reading."""

    model: SiteModel
    rule: GovernorRule

    @property
    def account(self) -> RideThroughAccount:
        """Episodes and exceeded seconds, as the control itself sees them."""

    @property
    def clock_mhz(self) -> int:
        """The clock last commanded."""

    @property
    def correction(self) -> Correction:
        """How far the meter is above the model."""

    @property
    def correction_ratio(self) -> float:
        """The meter ÷ the model's worst case, 1 at the least."""

    def decide(self, view: SiteView, now: float) -> Decision:
        """Take the situation at `now` (monotonic) and return what to do."""


@dataclass(slots=True, kw_only=True)
class Unplanned:
    """A governor that is told neither the plan nor the forecast."""

    model: SiteModel
    rule: GovernorRule
    governor: Governor

    @property
    def account(self) -> RideThroughAccount:
        """See SiteControl."""
        return self.governor.account

    @property
    def clock_mhz(self) -> int:
        """See SiteControl."""
        return self.governor.clock_mhz

    @property
    def correction(self) -> Correction:
        """See SiteControl."""
        return self.governor.correction

    @property
    def correction_ratio(self) -> float:
        """See SiteControl."""
        return self.governor.correction_ratio

    def decide(self, view: SiteView, now: float) -> Decision:
        """See SiteControl."""
        if view.targets is not None or view.forecast:
            view = replace(view, targets=None, forecast=(), forecast_age_seconds=0.0)
        return self.governor.decide(view, now)


def _governed(model: SiteModel, rule: GovernorRule, ride_through: RideThrough) -> SiteControl:
    return Governor(model=model, rule=rule, ride_through=ride_through)


def _power_cap_only(model: SiteModel, rule: GovernorRule, ride_through: RideThrough) -> SiteControl:
    return PowerCapOnly(model=model, rule=rule, ride_through=ride_through)


def _gpu_idling(model: SiteModel, rule: GovernorRule, ride_through: RideThrough) -> SiteControl:
    """Full clock only: instances go and come until it fits."""
    full = replace(model, clocks_mhz=model.clocks_mhz[-1:])
    chooser = MostThroughput(model=full, gain_ratio=rule.rise_gain_ratio)
    rule = replace(rule, further_fall_ratio=0.0, rest_seconds=0.0)
    governor = Governor(model=full, rule=rule, ride_through=ride_through, chooser=chooser)
    return Unplanned(model=full, rule=rule, governor=governor)


def _dynamo_like(model: SiteModel, rule: GovernorRule, ride_through: RideThrough) -> SiteControl:
    """Least energy for the load within the cap, planned anew from time to time."""
    rule = replace(rule, further_fall_ratio=0.0, rest_seconds=0.0)
    chooser = LeastEnergy(model=model, rule=rule)
    governor = Governor(model=model, rule=rule, ride_through=ride_through, chooser=chooser)
    return Unplanned(model=model, rule=rule, governor=governor)


SITE_CONTROLS: dict[str, Callable[[SiteModel, GovernorRule, RideThrough], SiteControl]] = {
    "governed": _governed,
    "power_cap_only": _power_cap_only,
    "gpu_idling": _gpu_idling,
    "dynamo_like": _dynamo_like,
}
assert set(SITE_CONTROLS) == set(get_args(ControlName))


def make_control(name: str, model: SiteModel, rule: GovernorRule, ride_through: RideThrough) -> SiteControl:
    """The control of that name.

    Raises:
        ValueError: there is none; the message says which there are.
    """
    maker = SITE_CONTROLS.get(name)
    if maker is None:
        raise ValueError(f"site control {name!r} is unknown; there are {', '.join(SITE_CONTROLS)}")
    return maker(model, rule, ride_through)
