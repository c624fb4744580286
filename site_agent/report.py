"""What the site says of itself: its state and its records, from plain values. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from pydantic import ValidationError

from fleet.instance import InstanceState
from fleet.profile import PROFILES, UNKNOWN_KV_TOKENS, PerformanceProfile
from fleet.profile_record import MAX_SITE_PROFILES, ProfileInfo
from fleet.records import (
    Capabilities,
    ConfigurationInfo,
    InstanceReport,
    ModelReport,
    SitePower,
    SiteState,
    WireInstanceState,
)
from fleet.wire import describe_validation_error
from gateway.api_paths import served_paths
from site_agent import engine_metrics
from site_agent.drivers.interface import EngineCapabilities
from site_agent.engine_metrics import MetricsWindow
from site_agent.instance import Instance
from site_agent.power_status import PowerStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What admission counts."""

    running_requests: int
    slots: int
    headroom_requests: int
    headroom_prefill_tokens: float | None = None
    """Prompt tokens that may still wait for their prefill inside the SLO; None: no limit is known."""
    joules_per_prompt_token: float | None = None
    joules_per_output_token: float | None = None
    """What the energy account says of late; None: unknown."""


def site_state(
    instances: Sequence[Instance], *, is_closing: bool, is_short_of_power: bool, now: float
) -> SiteState:
    """`serving` while one instance takes requests; `draining` while one still has some; else why not."""
    if not is_closing and any(one.is_admitted for one in instances):
        return "serving"
    states = [one.state for one in instances]
    if InstanceState.READY in states or InstanceState.DRAINING in states:
        return "draining"
    if is_closing or is_short_of_power or InstanceState.STARTING in states:
        return "dark"
    return "faulted" if any(one.is_failing(now) for one in instances) else "dark"


def site_power(status: PowerStatus, now: float) -> SitePower:
    """The report's `power`."""
    since = status.episode_at
    return SitePower(
        cap_watts=status.cap_watts,
        draw_watts=status.draw_watts,
        draw_source=status.draw_source,
        headroom_watts=status.headroom_watts,
        quality=status.quality,
        episode_seconds=None if since is None else max(0.0, now - since),
    )


def model_report(
    *,
    model: str,
    instances: Sequence[Instance],
    load: Load,
    windows: Mapping[str, MetricsWindow],
    profile: PerformanceProfile,
    is_profile_assumed: bool,
    clock_mhz: int,
    now: float,
    other_profiles: Mapping[int, PerformanceProfile] | None = None,
) -> ModelReport:
    """What the site can do for its model now. What no engine says, and no profile, is left unknown.

    `other_profiles`: of tensor-parallel degrees other than `profile`'s.
    """
    others = other_profiles or {}
    ready = [others.get(one.spec.tensor_parallel_degree, profile) for one in instances if one.is_admitted]
    pages = [page for window in windows.values() if (page := window.latest(now)) is not None]
    waiting = [page.waiting_requests for page in pages if page.waiting_requests is not None]
    usages = [page.kv_cache_usage_ratio for page in pages if page.kv_cache_usage_ratio is not None]
    usage = sum(usages) / len(usages) if usages else None
    itl = engine_metrics.merge(found for window in windows.values() if (found := window.itl()) is not None)
    ttft = engine_metrics.merge(found for window in windows.values() if (found := window.ttft()) is not None)
    has_profile = not is_profile_assumed
    return ModelReport(
        model=model,
        ready_instances=len(ready),
        instances=tuple(
            _instance_report(one, profile, has_profile=has_profile, clock_mhz=clock_mhz) for one in instances
        ),
        max_concurrency=load.slots,
        running_requests=load.running_requests,
        waiting_requests=sum(waiting) if waiting else None,
        headroom_requests=load.headroom_requests,
        headroom_prefill_tokens=(
            None if load.headroom_prefill_tokens is None else int(load.headroom_prefill_tokens)
        ),
        headroom_kv_tokens=(
            int((1 - usage) * sum(one.kv_tokens for one in ready))
            if has_profile and usage is not None and all(one.kv_tokens < UNKNOWN_KV_TOKENS for one in ready)
            else None
        ),
        kv_cache_usage_ratio=usage,
        prefill_tokens_per_second=(
            sum(one.prefill_rate(clock_mhz) for one in ready) if has_profile else None
        ),
        itl_seconds_p50=engine_metrics.quantile(itl, 0.5),
        itl_seconds_p99=engine_metrics.quantile(itl, 0.99),
        ttft_seconds_p50=engine_metrics.quantile(ttft, 0.5),
        ttft_seconds_p99=engine_metrics.quantile(ttft, 0.99),
        joules_per_prompt_token=load.joules_per_prompt_token,
        joules_per_output_token=load.joules_per_output_token,
    )


def _instance_report(
    instance: Instance, profile: PerformanceProfile, *, has_profile: bool, clock_mhz: int
) -> InstanceReport:
    """`clock_mhz`: what the site reckons with while none was ordered for this instance."""
    state: WireInstanceState = instance.state.value
    if instance.is_stopping and instance.state is InstanceState.READY:
        state = "draining"  # its engine has failed and is being put away
    return _instance_record(
        instance.instance_id,
        state,
        (instance.spec.tensor_parallel_degree or profile.tensor_parallel_degree) if has_profile else None,
        clock_mhz if instance.clock_mhz is None and has_profile else instance.clock_mhz,
    )


@lru_cache(maxsize=1024)
def _instance_record(
    instance_id: str, state: WireInstanceState, degree: int | None, clock_mhz: int | None
) -> InstanceReport:
    """The same from one second to the next, and frozen: made once."""
    return InstanceReport(
        instance_id=instance_id, state=state, tensor_parallel_degree=degree, gpu_clock_mhz=clock_mhz
    )


def configurations(
    *,
    model: str,
    profile: PerformanceProfile,
    is_profile_assumed: bool,
    clocks_mhz: Sequence[int],
    start_seconds: float,
    max_concurrency: int,
) -> tuple[ConfigurationInfo, ...]:
    """SiteInfo's `configurations`: one per clock, or a single one where clocks mean nothing."""
    if is_profile_assumed:
        return (
            ConfigurationInfo(
                model=model,
                tensor_parallel_degree=1,
                start_seconds=start_seconds,
                max_concurrency=max_concurrency,
            ),
        )
    return tuple(
        ConfigurationInfo(
            model=model,
            tensor_parallel_degree=profile.tensor_parallel_degree,
            gpu_clock_mhz=clock,
            profile_id=profile.profile_id,
            start_seconds=start_seconds,
            max_concurrency=max_concurrency,
        )
        for clock in clocks_mhz
    )


class Announced(NamedTuple):
    """SiteInfo's `profiles`."""

    profiles: tuple[ProfileInfo, ...]
    untold: tuple[str, ...]
    """Why a profile is not among them, for a person."""


def announced_profiles(profiles: Iterable[PerformanceProfile]) -> Announced:
    """Those that routers cannot know by their name: measured ones, and shipped ones that differ here.

    What no record can carry is left out; routers then go by the reports of its instances.
    """
    told, untold = [], []
    for profile in profiles:
        if PROFILES.get(profile.profile_id) == profile:
            continue
        try:
            told.append(ProfileInfo.of(profile))
        except ValidationError as error:
            untold.append(f"{profile.profile_id}: {describe_validation_error(error)}")
    untold += [
        f"{one.profile_id}: a site tells of {MAX_SITE_PROFILES} profiles at most"
        for one in told[MAX_SITE_PROFILES:]
    ]
    return Announced(tuple(told[:MAX_SITE_PROFILES]), tuple(untold))


def capabilities(engine: EngineCapabilities, *, has_server_switch: bool) -> Capabilities:
    """SiteInfo's `capabilities`: the engine's, as far as the ingress lets them through; the feed's switch."""
    return Capabilities(
        paths=served_paths(engine.paths),
        token_ids=engine.token_ids,
        sleep=engine.sleep,
        server_power=has_server_switch,
        max_model_len=engine.max_model_len,
        keeps_responses=engine.keeps_responses,
        inline_system=engine.inline_system,
    )
