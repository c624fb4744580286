"""The agent's own records of this moment: SiteReport, SiteInfo, and the list of models."""

from __future__ import annotations

import asyncio
import time

import orjson

from fleet.records import SiteInfo, SitePower, SiteReport, SiteState
from site_agent import report
from site_agent.parts import Parts


class SiteRecords:
    """Reads the parts; `ingress_url` is known once the ingress listens."""

    def __init__(self, parts: Parts) -> None:
        self.ingress_url = parts.config.ingress_url or ""
        self._parts = parts
        assumed = parts.config.engine.profile is None
        profiles = () if assumed else parts.power.governor.model.profiles.values()
        self.announced = report.announced_profiles(profiles)
        """Made once: a file that changes counts at the next start."""

    def state(self) -> SiteState:
        """As on the wire."""
        parts = self._parts
        return report.site_state(
            parts.pool.instances,
            is_closing=parts.admission.is_closed,
            is_short_of_power=parts.admission.slots.is_short_of_power,
            now=asyncio.get_running_loop().time(),
        )

    def report(self, sequence: int) -> SiteReport:
        """The report of this moment."""
        parts, state = self._parts, self.state()
        now = asyncio.get_running_loop().time()
        status = parts.power.status
        deadline = None if status is None or state != "draining" else status.drain_deadline_at
        model = report.model_report(
            model=parts.config.engine.model,
            instances=parts.pool.instances,
            load=report.Load(
                running_requests=sum(
                    parts.admission.slots.running(one.instance_id) for one in parts.pool.instances
                ),
                slots=parts.admission.slots.slots(),
                headroom_requests=parts.admission.slots.headroom(),
                joules_per_prompt_token=parts.energy.account.joules_per_prompt_token,
                joules_per_output_token=parts.energy.account.joules_per_output_token,
                headroom_prefill_tokens=parts.admission.slots.waiting_tokens(),
            ),
            windows=parts.scraper.windows,
            profile=parts.power.governor.model.profile,
            is_profile_assumed=parts.config.engine.profile is None,
            clock_mhz=parts.power.governor.clock_mhz,
            now=now,
            other_profiles=parts.power.governor.model.profiles,
        )
        return SiteReport(
            agent_id=parts.agent_id,
            sequence=sequence,
            site_id=parts.config.site_id,
            observed_at_unix_seconds=time.time(),
            ingress_url=self.ingress_url,
            state=state,
            drain_seconds_left=None if deadline is None else max(0.0, deadline - now),
            power=SitePower() if status is None else report.site_power(status, now),
            models=(model,),
        )

    def info(self, sequence: int) -> SiteInfo:
        """What the site is."""
        parts, config, model = self._parts, self._parts.config, self._parts.power.governor.model
        spare = parts.drivers.gpus.spare_gpus
        ride_through = config.ride_through(spare_gpus=spare)
        return SiteInfo(
            agent_id=parts.agent_id,
            sequence=sequence,
            site_id=config.site_id,
            farm_id=config.farm_id,
            region=config.region,
            ingress_url=self.ingress_url,
            gpu_model=model.profile.gpu_model,
            gpu_count=config.engine.instances * config.gpus_per_instance(),
            server_idle_watts=model.server_idle_watts,
            overhead_ratio=config.overhead_ratio,
            ride_through_seconds=ride_through.seconds,
            ride_through_joules=ride_through.joules,
            safe_floor_watts=config.safe_floor_watts,
            max_site_watts=config.site_watts_limit(spare_gpus=spare),
            configurations=tuple(
                one
                for degree, profile in model.profiles.items()
                for one in report.configurations(
                    model=config.engine.model,
                    profile=profile,
                    is_profile_assumed=config.engine.profile is None,
                    clocks_mhz=model.clocks_mhz,
                    start_seconds=round(parts.pool.start_times.seconds),
                    max_concurrency=model.concurrency[degree],
                )
            ),
            profiles=self.announced.profiles,
            capabilities=report.capabilities(
                parts.drivers.engines.capabilities(), has_server_switch=config.has_server_switch
            ),
        )

    def models(self) -> bytes:
        """OpenAI's list of models: the one of this site, whether or not an engine is awake."""
        card = {
            "id": self._parts.config.engine.model,
            "object": "model",
            "created": self._parts.began_at_unix_seconds,
            "owned_by": "heron",
            "max_model_len": self._parts.drivers.engines.capabilities().max_model_len,
        }
        return orjson.dumps({"object": "list", "data": [card]})
