"""One moment of the agent for its metrics."""

from __future__ import annotations

import asyncio
from collections import Counter

from site_agent.energy_meter import fresh
from site_agent.metrics import Sample, SiteFacts
from site_agent.parts import Parts
from site_agent.power_follow import PATHS
from site_agent.reporter import Reporter
from site_agent.site_records import SiteRecords


def facts(parts: Parts) -> SiteFacts:
    """What does not change."""
    config, gpus = parts.config, parts.drivers.gpus
    return SiteFacts(
        site_id=config.site_id,
        farm_id=config.farm_id,
        model=config.engine.model,
        gpu="fake" if gpus.is_fake else "none" if gpus.is_none else "real",
        is_governor_enabled=config.governor.enabled,
        server_idle_watts=parts.power.governor.model.server_idle_watts,
        safe_floor_watts=config.safe_floor_watts,
        max_site_watts=config.site_watts_limit(spare_gpus=gpus.spare_gpus),
    )


def take(parts: Parts, records: SiteRecords, reporter: Reporter) -> Sample:
    """Read the parts as they are now."""
    now = asyncio.get_running_loop().time()
    power, follow = parts.power, parts.follow
    status, account = power.status, power.governor.account
    reading = fresh(follow.last, follow.age_seconds(now))
    return Sample(
        state=records.state(),
        cap_watts=None if status is None else status.cap_watts,
        draw_watts=None if status is None else status.draw_watts,
        draw_source="modelled" if status is None else status.draw_source,
        granted_watts=None if reading is None else reading.granted_power_watts,
        cap_exceeded_seconds=account.exceeded_seconds,
        below_idle_seconds=account.below_idle_seconds,
        episodes=account.episodes,
        correction_ratio=power.governor.correction_ratio,
        clock_mhz=power.governor.clock_mhz,
        target_instances=None if status is None else status.target_instances,
        instance_states=Counter(one.state.value for one in parts.pool.instances),
        headroom_requests=parts.admission.slots.headroom(),
        in_flight=parts.admission.total_in_flight,
        reading_age_seconds=follow.age_seconds(now),
        clock_skew_seconds=parts.judge.clock_skew_seconds,
        is_path_up={path: follow.is_up(path, now) for path in PATHS},
        readings_taken=follow.readings_taken,
        records_refused=parts.judge.refused + parts.plan_judge.refused,
        is_plan_valid=parts.plan_judge.targets(now) is not None,
        outcomes=parts.outcomes,
        pushbacks=parts.pushbacks,
        commands=power.commands,
        broken_streams=power.broken_streams,
        engine_faults=parts.pool.faults,
        scrape_failures=parts.scraper.failures,
        loop_failures=parts.loops.failures,
        reports_published=reporter.published,
        reports_failed=reporter.failed,
        watchdog_restarts=parts.processes.watchdog_restarts,
        meter_age_seconds=None if parts.meter is None else parts.meter.age_seconds(now),
        meter_failures=None if parts.meter is None else parts.meter.failures,
    )
