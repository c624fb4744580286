"""Teaches a new forecast what the power log still knows of its farm, so that a restart forgets nothing. Pure.

Only what is certain to be the same farm's counts: good readings with this farm's name, nameplate and source,
read as it is read now (the source's name ends in a check sum of that).
The log has one entry a minute, so horizons shorter than that are learnt anew.
"""

from __future__ import annotations

from collections.abc import Sequence

from fleet.records import PowerReading
from fleet.signing import RecordTrust
from fleet.wire import RecordError
from power_feed.forecast import PowerForecaster
from power_feed.readings import Farm

ENTRIES = 3 * 24 * 60
"""Of one a minute. Most windows of the forecast are full by then; more would only delay the start."""


def learn(
    forecaster: PowerForecaster,
    records: Sequence[bytes],
    *,
    farm: Farm,
    source: str,
    speed: float,
    trust: RecordTrust,
) -> int:
    """How many measurements of the log, oldest first, it was taught.

    `source`: the farm's source as readings name it, `speed` its own (seconds of the record in a wall second).
    """
    nameplate_watts = farm.deliverable_watts(farm.nameplate_watts)
    last_at = float("-inf")
    taught = 0
    for raw in records:
        try:
            reading = trust.read(PowerReading, raw, unix_now=None)
        except RecordError:
            continue  # of another version, or somebody else's: it teaches nothing
        is_of_farm = reading.farm_id == farm.farm_id and reading.source == source
        is_same_size = abs(reading.nameplate_capacity_watts - nameplate_watts) <= 1e-6 * nameplate_watts
        at = reading.observed_at_unix_seconds
        if not (is_of_farm and is_same_size and reading.quality == "good" and at > last_at):
            continue
        last_at = at
        forecaster.observe(farm.farm_watts(reading.available_power_watts), at * speed)
        taught += 1
    return taught
