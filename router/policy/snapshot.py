"""The immutable picture of the fleet that decisions are made on; every reading carries its age (DESIGN §4).

Rule: missing is unknown (`None`), never zero, and staleness ranks a site lower, it never empties the list.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from operator import attrgetter
from types import MappingProxyType
from typing import Literal

from fleet.records import Cordon, InstanceReport, ModelReport, SiteInfo, SiteReport, SiteState
from gateway.api_paths import DERENDER_PATH, PATHS, RENDER_PATH
from router.policy.outlook import PowerOutlook
from router.policy.plan_view import PlanView

FRESH_SECONDS = 3.0
STALE_SECONDS = 10.0
NO_PATHS: frozenset[str] = frozenset()
ALL_PATHS = frozenset(PATHS)

Shortage = Literal["no_power", "no_capacity", "no_site"]


class Freshness(IntEnum):
    """How far a reading may be trusted; lower is better."""

    FRESH = 0
    STALE = 1
    EXPIRED = 2
    """Used only where no fresher site serves the model, and its figures count as unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelView:
    """One model at one site, as the site's last report says. `None` means unknown."""

    site_id: str
    model: str
    state: SiteState
    sequence: int
    arrived_at: float
    """When this sequence first arrived here (monotonic)."""
    is_confirmed: bool
    """The sequence has advanced since this router started; until then a record counts as stale."""
    ready_instances: int | None = None
    headroom_requests: float | None = None
    """Reported, or `max_concurrency − running_requests` where those are given."""
    capacity_requests: float | None = None
    """What the site runs at once at most, for the resume reserve."""
    running_requests: int | None = None
    """Of all routers; with those that wait, what the site had when it gave its figures."""
    waiting_requests: int | None = None
    kv_cache_usage_ratio: float | None = None
    prefill_tokens_per_second: float | None = None
    itl_seconds_p50: float | None = None
    itl_seconds_p99: float | None = None
    ttft_seconds_p50: float | None = None
    ttft_seconds_p99: float | None = None
    joules_per_prompt_token: float | None = None
    joules_per_output_token: float | None = None
    instances: tuple[InstanceReport, ...] = ()
    """With their configurations, as far as the site says."""
    has_power: bool = True
    """False when the site says that cap less draw is nothing."""
    token_ids: bool = False
    """Its engines return and take token ids: exact resume."""
    parses_ids: bool = False
    """They also tell what ids mean, reasoning and tool calls."""
    renders: bool = False
    """They tell which grammar they make an answer by."""
    keeps_responses: bool = False
    """A response stays with the engine that made it."""
    inline_system: str | None = None
    """What becomes of a system message amid the others in `/v1/messages`: `in_place`, `merged`."""
    max_model_len: int | None = None
    lacks: frozenset[str] = NO_PATHS
    """Inference paths that its engines do not answer, as far as is known: the site said which they do."""
    is_cordoned: bool = False
    """An operator wants no new work sent there."""
    is_serving: bool = field(init=False)
    """Whether new work may go there at all."""

    def __post_init__(self) -> None:
        is_serving = self.state == "serving" and self.ready_instances != 0 and not self.is_cordoned
        object.__setattr__(self, "is_serving", is_serving)

    def freshness(self, now: float) -> Freshness:
        """By age since arrival, not by the writer's clock."""
        age = now - self.arrived_at
        if age <= FRESH_SECONDS:
            return Freshness.FRESH if self.is_confirmed else Freshness.STALE
        return Freshness.STALE if age <= STALE_SECONDS else Freshness.EXPIRED


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteView:
    """One site, as its last report and its SiteInfo (if any) say."""

    site_id: str
    agent_id: str
    state: SiteState
    sequence: int
    arrived_at: float
    is_confirmed: bool
    ingress_url: str
    observed_at_unix_seconds: float
    drain_seconds_left: float | None = None
    cap_watts: float | None = None
    draw_watts: float | None = None
    headroom_watts: float | None = None
    server_idle_watts: float | None = None
    region: str | None = None
    info: SiteInfo | None = None
    """As the site wrote it: GPUs, farm, ride-through, configurations. None: it says nothing of itself."""
    cordon: Cordon | None = None
    """An operator wants no new work sent there."""
    lacks: frozenset[str] = NO_PATHS
    """See ModelView."""
    models: tuple[ModelView, ...] = ()


_SITE_ID = attrgetter("site_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All sites, and per model the sites that know it, in order of name; their power, and the plan.

    A change makes a new one and shares all that it does not touch: at a thousand sites a report costs two
    copies of pointers, no walk in Python (`benchmarks/decision`).
    """

    sites: Mapping[str, SiteView] = field(default_factory=lambda: MappingProxyType({}))
    models: Mapping[str, tuple[ModelView, ...]] = field(default_factory=lambda: MappingProxyType({}))
    power: Mapping[str, PowerOutlook] = field(default_factory=lambda: MappingProxyType({}))
    """By site; a site that no feed tells of has none."""
    plan: PlanView | None = None
    """The newest that was taken; who reads it asks whether it still holds."""

    def with_site(self, site: SiteView) -> Snapshot:
        """This snapshot with one site's view replaced or added."""
        before = self.sites.get(site.site_id)
        sites = dict(self.sites)
        sites[site.site_id] = site
        models = dict(self.models)
        for view in site.models:
            models[view.model] = _with_view(models.get(view.model, ()), view)
        if before is not None:
            listed = {view.model for view in site.models}
            for view in before.models:
                if view.model not in listed:
                    _take_out(models, view)
        return Snapshot(sites=sites, models=models, power=self.power, plan=self.plan)

    def without_site(self, site_id: str) -> Snapshot:
        """This snapshot without a site that was forgotten."""
        site = self.sites.get(site_id)
        models = dict(self.models)
        for view in () if site is None else site.models:
            _take_out(models, view)
        return Snapshot(
            sites={key: view for key, view in self.sites.items() if key != site_id},
            models=models,
            power={key: outlook for key, outlook in self.power.items() if key != site_id},
            plan=self.plan,
        )

    def with_power(self, outlook: PowerOutlook) -> Snapshot:
        """This snapshot with a newer reading of one site's power."""
        power = dict(self.power)
        power[outlook.site_id] = outlook
        return Snapshot(sites=self.sites, models=self.models, power=power, plan=self.plan)

    def with_plan(self, plan: PlanView | None) -> Snapshot:
        """This snapshot with another plan."""
        return replace(self, plan=plan)


NOTHING_KNOWN = Snapshot()


def _with_view(views: tuple[ModelView, ...], view: ModelView) -> tuple[ModelView, ...]:
    at = bisect_left(views, view.site_id, key=_SITE_ID)
    end = at + 1 if at < len(views) and views[at].site_id == view.site_id else at
    return (*views[:at], view, *views[end:])


def _take_out(models: dict[str, tuple[ModelView, ...]], view: ModelView) -> None:
    kept = tuple(other for other in models.get(view.model, ()) if other.site_id != view.site_id)
    if kept:
        models[view.model] = kept
    else:
        models.pop(view.model, None)


def find_view(views: Sequence[ModelView], site_id: str) -> ModelView | None:
    """One site's view of those of a model, which are in order of name."""
    at = bisect_left(views, site_id, key=_SITE_ID)
    return views[at] if at < len(views) and views[at].site_id == site_id else None


def view_of(
    report: SiteReport,
    info: SiteInfo | None,
    *,
    arrived_at: float,
    is_confirmed: bool,
    known_models: Collection[str] = (),
    cordon: Cordon | None = None,
) -> SiteView:
    """Turn a report into the view that decisions use.

    `known_models`: models the site had before. One that a dark or draining site no longer lists stays known,
    with nothing ready: a client asking for it is told to wait, not that it does not exist.
    """
    has_power = report.power.headroom_watts is None or report.power.headroom_watts > 0
    capabilities = info.capabilities if info is not None else None
    offered = capabilities.paths if capabilities is not None else ()
    lacks = ALL_PATHS.difference(offered) if offered else NO_PATHS

    def view(entry: ModelReport) -> ModelView:
        running, most, headroom = entry.running_requests, entry.max_concurrency, entry.headroom_requests
        free: float | None = headroom
        if free is None and most is not None and running is not None:
            free = max(0, most - running)
        capacity: float | None = most
        if capacity is None and headroom is not None and running is not None:
            capacity = headroom + running
        return ModelView(
            site_id=report.site_id,
            model=entry.model,
            state=report.state,
            sequence=report.sequence,
            arrived_at=arrived_at,
            is_confirmed=is_confirmed,
            ready_instances=entry.ready_instances,
            headroom_requests=free,
            capacity_requests=capacity,
            running_requests=running,
            waiting_requests=entry.waiting_requests,
            kv_cache_usage_ratio=entry.kv_cache_usage_ratio,
            prefill_tokens_per_second=entry.prefill_tokens_per_second,
            itl_seconds_p50=entry.itl_seconds_p50,
            itl_seconds_p99=entry.itl_seconds_p99,
            ttft_seconds_p50=entry.ttft_seconds_p50,
            ttft_seconds_p99=entry.ttft_seconds_p99,
            joules_per_prompt_token=entry.joules_per_prompt_token,
            joules_per_output_token=entry.joules_per_output_token,
            instances=entry.instances,
            has_power=has_power,
            is_cordoned=cordon is not None,
            token_ids=capabilities.token_ids if capabilities is not None else False,
            parses_ids=capabilities is not None and capabilities.token_ids and DERENDER_PATH in offered,
            renders=RENDER_PATH in offered,
            keeps_responses=capabilities is not None and capabilities.keeps_responses,
            inline_system=capabilities.inline_system if capabilities is not None else None,
            max_model_len=capabilities.max_model_len if capabilities is not None else None,
            lacks=lacks,
        )

    models = [view(entry) for entry in report.models]
    listed = {entry.model for entry in report.models}
    models += [
        view(ModelReport(model=name, ready_instances=0, headroom_requests=0))
        for name in sorted(set(known_models) - listed)
    ]
    return SiteView(
        site_id=report.site_id,
        agent_id=report.agent_id,
        state=report.state,
        sequence=report.sequence,
        arrived_at=arrived_at,
        is_confirmed=is_confirmed,
        ingress_url=report.ingress_url,
        observed_at_unix_seconds=report.observed_at_unix_seconds,
        drain_seconds_left=report.drain_seconds_left,
        cap_watts=report.power.cap_watts,
        draw_watts=report.power.draw_watts,
        headroom_watts=report.power.headroom_watts,
        server_idle_watts=info.server_idle_watts if info is not None else None,
        region=info.region if info is not None else None,
        info=info,
        cordon=cordon,
        lacks=lacks,
        models=tuple(models),
    )


def shortage(views: Sequence[ModelView]) -> Shortage:
    """Why nothing fits: every site that could serve the model lacks power, or those that have it are full, or
    there is none: a router that has only begun, and hears of nobody."""
    if not views:
        return "no_site"
    if any(view.is_serving and view.has_power for view in views):
        return "no_capacity"
    if any(view.state in ("draining", "dark") or not view.has_power for view in views):
        return "no_power"
    return "no_capacity"
