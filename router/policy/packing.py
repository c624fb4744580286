"""Sites of one farm share its power, and a busy replica draws nearly the same at any batch: the scarcer the
farm's power, the more of its weight goes to its fullest site that has room, so that others can stop. Pure.

Not to one that the rest of the policy would spare: where its power is expected to go, so would the answers.
"""

from __future__ import annotations

from collections.abc import Sequence

from router.policy.figures import known
from router.policy.site_forecast import SiteForecast

LEAST_WEIGHT_RATIO = 0.25
"""Of the farm's best: what a site must weigh before packing, for more to go there."""


def pack(forecasts: Sequence[SiteForecast], weights: list[float], packing: float) -> None:
    """Within each farm of several sites: to the fullest, the more the less power there is."""
    farms: dict[str, list[int]] = {}
    for index, one in enumerate(forecasts):
        if one.farm_id is not None:
            farms.setdefault(one.farm_id, []).append(index)
    for members in farms.values():
        if len(members) < 2:
            continue
        part = packing * scarcity_of([forecasts[index] for index in members])
        if part <= 0.0:
            continue
        least = LEAST_WEIGHT_RATIO * max([weights[index] for index in members])
        fit = [index for index in members if weights[index] >= least]
        fullest = max(fit, key=lambda index: (forecasts[index].running_ratio, -index))
        total = sum([weights[index] for index in members])
        for index in members:
            weights[index] *= 1.0 - part
        weights[fullest] += part * total


def scarcity_of(sites: Sequence[SiteForecast]) -> float:
    """1: these sites have no power; 0: all that they can use, or nobody knows."""
    granted = most = 0.0
    for one in sites:
        if one.outlook is None or not one.max_site_watts:
            return 0.0
        watts = known(one.outlook.granted_power_watts)
        granted += min(watts or 0.0, one.max_site_watts)
        most += one.max_site_watts
    return 1.0 - granted / most
