"""The demo's eyes: the router's own view of the fleet, polled from its operations port, and what happened."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from cli.demo_config import INSTANCES, DemoOptions
from cli.demo_samples import FleetSample
from cli.demo_view import EventView, SiteView

POLL_SECONDS = 0.25
MAX_EVENTS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long the demo waits for sites before it sends to those that are there."""

    complete_seconds: float
    """Once one site serves: for the others to have all engines up."""
    any_seconds: float
    """Once every site has reported: for one to serve. Then traffic starts all the same and waits in the
    router; a wind file whose first step is a lull moves on only when traffic has started."""


def patience(options: DemoOptions) -> Patience:
    """Cases: real engines, which take a minute and more; wind enough by making; any wind."""
    if options.engine == "vllm":
        return Patience(complete_seconds=300.0, any_seconds=900.0)
    if options.is_wind_scripted:
        return Patience(complete_seconds=15.0, any_seconds=60.0)
    return Patience(complete_seconds=4.0, any_seconds=12.0)


class FleetWatch:
    """Latest state of every site, and events of both the router and the demo itself."""

    def __init__(self, operations_url: str, options: DemoOptions) -> None:
        self._url = f"{operations_url}/heron/v1/fleet"
        self._instances = INSTANCES[options.engine]
        self._patience = patience(options)
        self._sites: dict[str, Mapping[str, Any]] = {site_id: {} for site_id in options.sites}
        self._notes: deque[tuple[float, str | None, str]] = deque(maxlen=MAX_EVENTS)
        self._heard: deque[tuple[float, str | None, str]] = deque(maxlen=MAX_EVENTS)
        self._started_at_unix_seconds: float | None = None
        self._are_workers_ready = False
        self._changed = asyncio.Event()
        self.samples: list[FleetSample] = []
        """Since traffic started, four a second."""

    def note(self, text: str) -> None:
        """Something that the demo did or saw itself; its first line becomes an event."""
        self._notes.append((time.time(), None, text.partition("\n")[0]))

    def traffic_started(self, unix_seconds: float) -> None:
        """From now on events are counted in seconds of traffic."""
        self._started_at_unix_seconds = unix_seconds
        self.note("traffic starts")

    def sites(self) -> list[SiteView]:
        """Every site of the demo, known or not."""
        return [_site_view(site_id, site) for site_id, site in self._sites.items()]

    def events(self) -> list[EventView]:
        """What happened, oldest first."""
        start = self._started_at_unix_seconds
        return [
            EventView(seconds=at - (at if start is None else start), site_id=site_id, text=text)
            for at, site_id, text in sorted([*self._heard, *self._notes], key=lambda event: event[0])
        ][-MAX_EVENTS:]

    async def run(self, client: httpx.AsyncClient) -> None:
        """Poll until cancelled; a router that does not answer leaves the last view standing."""
        while True:
            try:
                answer = await client.get(self._url)
                answer.raise_for_status()
            except httpx.HTTPError as error:
                self.note(f"the router's operations port does not answer: {error!r}")
            else:
                self._take(answer.json())
            await asyncio.sleep(POLL_SECONDS)

    async def wait_until_serving(self) -> None:
        """Return once the router's workers and all engines of every site are up, or `patience` is over."""
        loop = asyncio.get_running_loop()
        deadlines: dict[str, float] = {}
        while not (self._are_workers_ready and all(map(self._is_complete, self._sites.values()))):
            if any(map(_is_serving, self._sites.values())):
                deadlines.setdefault("complete", loop.time() + self._patience.complete_seconds)
            if all(site.get("state") for site in self._sites.values()):
                deadlines.setdefault("any", loop.time() + self._patience.any_seconds)
            if any(loop.time() > deadline for deadline in deadlines.values()):
                self.note("traffic starts though not every site is up")
                return
            self._changed.clear()
            await self._changed.wait()

    def _take(self, page: Mapping[str, Any]) -> None:
        for site in page["sites"]:
            if site["site_id"] in self._sites:
                self._sites[site["site_id"]] = site
        self._are_workers_ready = all(one["is_ready"] for one in page.get("workers", ()))
        if self._started_at_unix_seconds is not None:
            self.samples.append(_sample(page, self._started_at_unix_seconds))
        self._heard.clear()
        self._heard.extend(
            (event["unix_seconds"], event["site_id"], event["text"]) for event in page["events"]
        )
        self._changed.set()

    def _is_complete(self, site: Mapping[str, Any]) -> bool:
        ready = sum(model["ready_instances"] or 0 for model in site.get("models", ()))
        return _is_serving(site) and ready >= self._instances


def _sample(page: Mapping[str, Any], start: float) -> FleetSample:
    return FleetSample(
        at_seconds=page["unix_seconds"] - start,
        requests=page["ledger"]["requests"],
        pushbacks=sum(sum(site["pushbacks"].values()) for site in page["sites"]),
        has_room=any(
            _is_serving(site) and any((model["headroom_requests"] or 0) > 0 for model in site["models"])
            for site in page["sites"]
        ),
    )


def _is_serving(site: Mapping[str, Any]) -> bool:
    return bool(site.get("state") == "serving")


def _site_view(site_id: str, site: Mapping[str, Any]) -> SiteView:
    wind = site.get("wind") or {}
    return SiteView(
        site_id=site_id,
        state=site.get("state"),
        wind_watts=wind.get("granted_power_watts"),
        cap_watts=site.get("cap_watts"),
        draw_watts=site.get("draw_watts"),
        headroom_watts=site.get("headroom_watts"),
        in_flight=site.get("in_flight_requests"),
        age_seconds=site.get("age_seconds"),
    )
