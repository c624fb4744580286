"""From a farm's configuration and its source to what its measurements are held to."""

from __future__ import annotations

from power_feed.config import FarmConfig
from power_feed.quality import QualityLimits
from power_feed.sources.interface import Source


def quality_limits(farm: FarmConfig, source: Source) -> QualityLimits:
    """The `quality` table, with what the checks must know of farm and source."""
    return QualityLimits(
        nameplate_watts=farm.nameplate_watts,
        period_seconds=source.period_seconds,
        speed=source.speed,
        nameplate_tolerance_ratio=farm.quality.nameplate_tolerance_ratio,
        max_ramp_ratio_per_second=farm.quality.max_ramp_ratio_per_second,
        agreement_ratio=farm.quality.agreement_ratio,
        stuck_measurements=farm.quality.stuck_measurements,
        stale_periods=farm.quality.stale_periods,
    )
