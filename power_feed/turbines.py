"""Power curves of turbines: wind speed to a share of rated power. Pure.

`cubic` is what the synthetic presets were fitted with. `ge-1.5-77` is measured: the 1.5-MW GE turbine (rotor
77 m) that the U.S. Department of Energy owns at NREL's Flatirons Campus, from NREL's turbine-models library,
`turbine_models/data/Onshore/DOE_GE_1.5MW_77.csv` (commit d3ef15c, BSD-3-Clause), rounded to whole kW;
negative power below cut-in is 0, and from 14.4 m/s on, where it wavers within 1 % of rated, it is rated.

Why no library: docs/decisions/0013.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping
from typing import Literal

from power_feed.synthetic import power_ratio

TurbineName = Literal["cubic", "ge-1.5-77"]

GE_RATED_KILOWATTS = 1500.0
GE_CUT_OUT_METRES_PER_SECOND = 25.0
GE_CURVE: tuple[tuple[float, float], ...] = (
    (2.43, 0.0),
    (2.97, 1.0),
    (3.51, 19.0),
    (3.97, 59.0),
    (4.52, 101.0),
    (5.01, 163.0),
    (5.52, 235.0),
    (5.99, 304.0),
    (6.52, 399.0),
    (7.04, 514.0),
    (7.51, 609.0),
    (8.00, 742.0),
    (8.49, 854.0),
    (9.01, 975.0),
    (9.52, 1097.0),
    (10.03, 1200.0),
    (10.48, 1260.0),
    (10.99, 1318.0),
    (11.49, 1390.0),
    (11.98, 1400.0),
    (12.52, 1453.0),
    (13.51, 1478.0),
    (14.43, 1500.0),
)
"""(m/s, kW)."""
_SPEEDS = tuple(speed for speed, _ in GE_CURVE)


def ge_power_ratio(speed_metres_per_second: float) -> float:
    """The measured curve, linear between its points; 0 beyond cut-out, where this turbine stops."""
    if not _SPEEDS[0] < speed_metres_per_second < GE_CUT_OUT_METRES_PER_SECOND:
        return 0.0
    if speed_metres_per_second >= _SPEEDS[-1]:
        return 1.0
    index = bisect_right(_SPEEDS, speed_metres_per_second)
    (low_speed, low), (high_speed, high) = GE_CURVE[index - 1], GE_CURVE[index]
    part = (speed_metres_per_second - low_speed) / (high_speed - low_speed)
    return (low + part * (high - low)) / GE_RATED_KILOWATTS


TURBINES: Mapping[TurbineName, Callable[[float], float]] = {
    "cubic": power_ratio,
    "ge-1.5-77": ge_power_ratio,
}
"""Name in the configuration → its curve."""
