"""Builds one agent's parts and ties them together; `site_agent.app` starts and stops them."""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from fleet.config import FleetConfig
from fleet.loops import Loops
from fleet.power import CapTracker
from fleet.profile import PerformanceProfile
from fleet.signing_keys import Signing, signing_of
from fleet.store import Store
from gateway.tls_config import caller_files
from gateway.tls_renewal import ServiceTls
from gateway.upstream import UpstreamPool
from site_agent import layouts
from site_agent.admission import Admission
from site_agent.config import SiteConfig
from site_agent.controls import make_control
from site_agent.drivers.interface import DriverContext, Drivers, InstanceSpec, ProcessRegistry
from site_agent.energy_meter import EnergyMeter, fresh
from site_agent.instance import RestartRule
from site_agent.instances import InstancePool
from site_agent.limits import Limits, Slo
from site_agent.plan_follow import PlanFollow
from site_agent.plan_judge import PlanJudge
from site_agent.power_follow import PowerFollow
from site_agent.power_loop import PowerLoop
from site_agent.processes import Processes
from site_agent.reading_judge import IntakeJudge
from site_agent.scraper import Scraper
from site_agent.site_limits import SiteLimits
from site_agent.site_meter import HttpMeter
from site_agent.site_model import SiteModel
from site_agent.slots import Slots


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Everything of one agent."""

    fleet: FleetConfig
    config: SiteConfig
    agent_id: str
    """Random per process."""
    began_at_unix_seconds: int
    changed: asyncio.Event
    """Set by whatever a report should tell at once."""
    drivers: Drivers
    processes: Processes
    store: Store
    signing: Signing
    tls: ServiceTls
    upstream: UpstreamPool
    judge: IntakeJudge
    follow: PowerFollow
    plan_judge: PlanJudge
    plan_follow: PlanFollow
    pool: InstancePool
    admission: Admission
    power: PowerLoop
    meter: HttpMeter | None
    scraper: Scraper
    energy: EnergyMeter
    pushbacks: Counter[str]
    outcomes: Counter[str] = field(default_factory=Counter)
    loops: Loops = field(default_factory=Loops)


def instance_specs(config: SiteConfig) -> tuple[InstanceSpec, ...]:
    """The site's instances, in every layout."""
    return layouts.instance_specs(
        config.site_id,
        config.site_model(),
        model_name=config.engine.model,
        first_port=config.engine.first_port,
        gpus_per_instance=config.gpus_per_instance(),
    )


def driver_context(config: SiteConfig, processes: ProcessRegistry) -> DriverContext:
    """What a driver gets."""
    return DriverContext(
        site_id=config.site_id,
        state_dir=config.state_dir,
        specs=instance_specs(config),
        options=config.engine,
        profile=None if config.engine.profile is None else config.performance_profile(),
        profiles={} if config.engine.profile is None else config.site_model().profiles,
        profile_references=config.profiles.references(),
        max_concurrency=config.site_model().concurrency,
        power_model=config.power_model(),
        processes=processes,
        environment=dict(os.environ),
    )


def other_limits(
    specs: Iterable[InstanceSpec], model: SiteModel
) -> dict[str, tuple[PerformanceProfile, int]]:
    """Profile and slots of the instances of another degree than the site's own."""
    return {
        spec.instance_id: (
            model.profiles[spec.tensor_parallel_degree],
            model.concurrency[spec.tensor_parallel_degree],
        )
        for spec in specs
        if spec.tensor_parallel_degree not in (0, model.degree)
    }


def build(
    fleet: FleetConfig,
    config: SiteConfig,
    *,
    store: Store,
    drivers: Drivers,
    processes: Processes,
    tasks: asyncio.TaskGroup,
) -> Parts:
    """Compose them. `tasks` will hold the engines' starts and stops."""
    rng = random.Random()  # jitter of back-offs, nothing that must repeat
    changed = asyncio.Event()
    table = f"sites.{config.site_id}"
    signing = signing_of(fleet, "site", table, config.signing_key_file, site_id=config.site_id)
    judge = IntakeJudge(
        site_id=config.site_id,
        max_clock_skew_seconds=fleet.max_clock_skew_seconds,
        trust=signing.trust,
    )
    tls = ServiceTls(table, config.port_files, caller_files(fleet))
    follow = PowerFollow(
        site_id=config.site_id,
        feed_url=config.feed_url,
        tls=tls.context,
        store=store,
        tracker=CapTracker(rule=config.cap_rule(spare_gpus=drivers.gpus.spare_gpus)),
        judge=judge,
        rng=rng,
    )
    admission: Admission
    scraper: Scraper

    def on_end(instance_id: str) -> None:
        admission.break_streams(instance_id)

    upstream = UpstreamPool(connect_timeout_seconds=config.connect_timeout_seconds)
    pool = InstancePool(
        specs=instance_specs(config),
        drivers=drivers,
        restart=RestartRule(
            backoff_seconds=config.restart.backoff_seconds,
            max_backoff_seconds=config.restart.max_backoff_seconds,
            # engines of others: nothing is started there, so nothing is worn out by trying
            max_per_hour=sys.maxsize if config.engine.kind == "external" else config.restart.max_per_hour,
        ),
        probe_seconds=config.restart.probe_seconds,
        probe_failures=config.restart.probe_failures,
        start_seconds=config.engine.start_seconds,
        start_timeout_seconds=config.engine.start_timeout_seconds,
        rng=rng,
        tasks=tasks,
        on_change=changed.set,
        on_end=on_end,
        stall_seconds=config.restart.stall_seconds,
        stalled_seconds=lambda instance_id: scraper.stalled_seconds(instance_id),  # noqa: PLW0108 -- made below
    )
    admission = Admission(
        slots=Slots(
            seats=pool.instances,
            limits=Limits(max_concurrency=config.engine.max_concurrency),
            resume_reserve_ratio=config.resume_reserve_ratio,
            start_seconds=config.engine.start_seconds,
            overhead_ratio=config.overhead_ratio,
        )
    )
    scraper = Scraper(instances=pool.instances, upstream=upstream, unanswered=admission.unanswered)
    governor = make_control(
        config.governor.control,
        config.site_model(can_set_clock=drivers.gpus.can_set_clock, spare_gpus=drivers.gpus.spare_gpus),
        config.governor_rule(),
        config.ride_through(spare_gpus=drivers.gpus.spare_gpus),
    )
    plan_judge = PlanJudge(
        site_id=config.site_id,
        model=config.engine.model,
        max_clock_skew_seconds=fleet.max_clock_skew_seconds,
        trust=signing.trust,
    )
    pushbacks: Counter[str] = Counter()
    site_limits = SiteLimits(
        slots=admission.slots,
        profile=governor.model.profile,
        others=other_limits(instance_specs(config), governor.model),
        is_profile_assumed=config.engine.profile is None,
        slo=Slo(ttft_seconds=config.slo_ttft_seconds, e2e_seconds=config.slo_e2e_seconds),
        windows=scraper.windows,
    )
    meter = None if config.meter is None else HttpMeter(config.meter)
    power = PowerLoop(
        governor=governor,
        cap=follow,
        gpus=drivers.gpus,
        pool=pool,
        admission=admission,
        tick_seconds=config.governor.tick_seconds,
        beat=processes.beat,
        on_change=changed.set,
        targets=plan_judge.targets,
        turned_away=lambda: pushbacks["capacity"],
        update_limits=site_limits.update,
        site_meter=meter,
        meter_lag_seconds=0.0 if config.meter is None else config.meter.lag_seconds,
    )
    return Parts(
        fleet=fleet,
        config=config,
        agent_id=os.urandom(8).hex(),
        began_at_unix_seconds=int(time.time()),
        changed=changed,
        drivers=drivers,
        processes=processes,
        store=store,
        signing=signing,
        tls=tls,
        upstream=upstream,
        judge=judge,
        follow=follow,
        plan_judge=plan_judge,
        plan_follow=PlanFollow(store=store, judge=plan_judge, rng=rng),
        pushbacks=pushbacks,
        pool=pool,
        admission=admission,
        power=power,
        meter=meter,
        scraper=scraper,
        energy=EnergyMeter(
            power=power,
            gpu_driver=drivers.gpus,
            instances=pool.instances,
            windows=scraper.windows,
            running=admission.slots.running,
            reading=lambda: fresh(follow.last, follow.age_seconds(asyncio.get_running_loop().time())),
        ),
    )
