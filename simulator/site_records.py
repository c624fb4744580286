"""The records that a simulated site writes, made by `site_agent.report` as the agent makes its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fleet.records import SiteInfo, SitePower, SiteReport
from site_agent import report
from site_agent.drivers.interface import EngineCapabilities
from site_agent.instance import Instance

if TYPE_CHECKING:
    from simulator.site import SimulatedSite


def site_report(site: SimulatedSite, sequence: int, now: float) -> SiteReport:
    """What the site says of itself now."""
    slots = site.slots
    states: Sequence[Instance] = [one.state for one in site.instances]
    state = report.site_state(states, is_closing=False, is_short_of_power=slots.is_short_of_power, now=now)
    deadline = None if site.status is None or state != "draining" else site.status.drain_deadline_at
    model = report.model_report(
        model=site.settings.profile.model,
        instances=states,
        load=report.Load(
            running_requests=slots.total_in_flight,
            slots=slots.slots(),
            headroom_requests=slots.headroom(),
            headroom_prefill_tokens=slots.waiting_tokens(),
        ),
        windows={one.state.instance_id: one.window for one in site.instances},
        profile=site.settings.profile,
        is_profile_assumed=False,
        clock_mhz=site.governor.clock_mhz,
        now=now,
        other_profiles={
            degree: one for degree, one in site.model.profiles.items() if degree != site.model.degree
        },
    )
    return SiteReport(
        agent_id=f"agent-{site.site_id}",
        sequence=sequence,
        site_id=site.site_id,
        observed_at_unix_seconds=now,
        ingress_url="http://127.0.0.1:1",
        state=state,
        drain_seconds_left=None if deadline is None else max(0.0, deadline - now),
        power=SitePower() if site.status is None else report.site_power(site.status, now),
        models=(model,),
    )


def site_info(site: SimulatedSite) -> SiteInfo:
    """What the site is."""
    settings, profile = site.settings, site.settings.profile
    return SiteInfo(
        agent_id=f"agent-{site.site_id}",
        sequence=1,
        site_id=site.site_id,
        farm_id=settings.farm_id,
        region="simulated",
        ingress_url="http://127.0.0.1:1",
        gpu_model=profile.gpu_model,
        gpu_count=site.model.gpu_count,
        server_idle_watts=site.model.server_idle_watts,
        overhead_ratio=settings.overhead_ratio,
        ride_through_seconds=site.ride_through.seconds,
        ride_through_joules=site.ride_through.joules,
        safe_floor_watts=0.0,
        max_site_watts=site.max_site_watts,
        configurations=tuple(
            one
            for known in site.model.profiles.values()
            for one in report.configurations(
                model=known.model,
                profile=known,
                is_profile_assumed=False,
                clocks_mhz=site.model.clocks_mhz,
                start_seconds=settings.start_seconds,
                max_concurrency=site.model.concurrency[known.tensor_parallel_degree],
            )
        ),
        profiles=report.announced_profiles(site.model.profiles.values()).profiles,
        capabilities=report.capabilities(
            EngineCapabilities(
                paths=("/v1/chat/completions", "/v1/completions"),
                token_ids=True,
                max_model_len=profile.max_model_len,
            ),
            has_server_switch=settings.has_server_switch,
        ),
    )
