"""Power-short minutes: those in which some site's cap is below what its share of load needs. Pure.

The share is `static_weighted`'s: every site's part of the installed GPUs, blind to power. What it needs is
the least power at which the site sustains that rate within the SLO (`simulator.fleet_size.needed_watts`); the
rate is the trace's expected one, not the requests that happened to come. Sites that share a farm are taken
together: what they need, against what their farm gives. So the minutes are a property of
wind and load and the same for every policy.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from simulator.fleet_size import needed_watts
from simulator.inputs import Inputs
from simulator.world import Scene

MINUTE_SECONDS = 60


def short_minutes(inputs: Inputs, scene: Scene, start: int) -> npt.NDArray[np.bool_]:
    """Whether each minute of a block (that begins `start` seconds into the days) is short of power."""
    minutes = -(-scene.seconds // MINUTE_SECONDS)
    rate = np.zeros(minutes)
    for part in inputs.load.parts:
        edges, rates = part.rate.of_block(float(start), float(minutes * MINUTE_SECONDS))
        sums = np.concatenate(([0.0], np.cumsum(rates * np.diff(edges))))
        at = np.arange(minutes + 1) * float(MINUTE_SECONDS)
        rate += np.diff(np.interp(at, edges, sums)) / MINUTE_SECONDS * inputs.scale
    gpus = [site.instances * site.profile.tensor_parallel_degree for site in inputs.sites]
    needs: dict[str, npt.NDArray[np.float64]] = {}
    caps: dict[str, npt.NDArray[np.float64]] = {}
    for site, count in zip(inputs.sites, gpus, strict=True):
        table = needed_watts(site, inputs.work, inputs.slo)
        needed = np.interp(
            rate * count / sum(gpus), [known for known, _ in table], [watts for _, watts in table]
        )
        seconds = scene.watts[site.site_id][: minutes * MINUTE_SECONDS]
        cap = seconds.reshape(minutes, MINUTE_SECONDS).mean(axis=1) * (1 - site.margin_ratio)
        farm = site.farm_name
        needs[farm] = needs[farm] + needed if farm in needs else needed
        caps[farm] = np.minimum(caps[farm], cap) if farm in caps else cap
    short = np.zeros(minutes, dtype=np.bool_)
    for farm, needed in needs.items():
        short |= caps[farm] < needed
    return short
