"""The demo's eyes: when a fleet counts as up, and what is made of the router's page."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from cli import demo_fleet
from cli.demo_config import DemoOptions
from cli.demo_fleet import FleetWatch, Patience, patience

CALM = DemoOptions(
    run_directory=Path("/run"), ports=range(9001, 9011), site_token="t", seconds=60.0, scenario="calm"
)
ANY_WIND = replace(CALM, scenario=None)


def site(site_id: str, state: str = "serving", ready: int | None = 3) -> dict[str, Any]:
    return {
        "site_id": site_id,
        "state": state,
        "cap_watts": 7300.0,
        "draw_watts": None,
        "wind": {"granted_power_watts": 15_000.0},
        "in_flight_requests": 4,
        "models": [{"model": "m", "ready_instances": ready}],
    }


class Page:
    """A router's operations port whose fleet page the test writes."""

    def __init__(self, *sites: dict[str, Any]) -> None:
        self.sites = list(sites)
        self.events: list[dict[str, Any]] = []
        self.status = 200

    def client(self) -> httpx.AsyncClient:
        def answer(request: httpx.Request) -> httpx.Response:
            assert request.url.path == "/heron/v1/fleet"
            return httpx.Response(self.status, json={"sites": self.sites, "events": self.events})

        return httpx.AsyncClient(transport=httpx.MockTransport(answer))


async def is_up(watch: FleetWatch, page: Page, *, within: float) -> bool:
    async with page.client() as client:
        watching = asyncio.create_task(watch.run(client))
        try:
            await asyncio.wait_for(watch.wait_until_serving(), within)
        except TimeoutError:
            return False
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        return True


async def test_a_fleet_is_up_when_every_site_has_all_its_engines() -> None:
    """Three serving sites with three engines each: up at once."""
    page = Page(site("north"), site("coast"), site("ridge"), site("foreign", "dark", 0))
    assert await is_up(FleetWatch("http://ops", CALM), page, within=5.0)


@pytest.mark.parametrize(
    "late", [site("ridge", "dark", 0), site("ridge", "serving", 2), site("ridge", "serving", None), None]
)
async def test_a_late_site_is_waited_for_but_not_for_ever(
    late: dict[str, Any] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dark, half up, unknown or silent: with strong wind it is waited for; in any wind only a little."""
    monkeypatch.setattr(demo_fleet, "POLL_SECONDS", 0.01)
    impatient = Patience(complete_seconds=0.05, any_seconds=60.0)
    monkeypatch.setattr(
        demo_fleet, "patience", lambda options: patience(options) if options == CALM else impatient
    )
    page = Page(site("north"), site("coast"), *([] if late is None else [late]))
    assert not await is_up(FleetWatch("http://ops", CALM), page, within=0.2)
    assert await is_up(FleetWatch("http://ops", ANY_WIND), page, within=5.0)


async def test_a_lull_at_the_start_of_a_file_does_not_stop_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wind moves on only once traffic starts, so three dark sites that have reported are enough."""
    monkeypatch.setattr(demo_fleet, "POLL_SECONDS", 0.01)
    impatient = Patience(complete_seconds=60.0, any_seconds=0.05)
    monkeypatch.setattr(demo_fleet, "patience", lambda _: impatient)
    dark = [site(name, "dark", 0) for name in ANY_WIND.sites]
    assert not await is_up(FleetWatch("http://ops", ANY_WIND), Page(*dark[:2]), within=0.3)
    assert await is_up(FleetWatch("http://ops", ANY_WIND), Page(*dark), within=5.0)


async def test_events_count_from_the_start_of_traffic() -> None:
    """The router's events and the demo's own are one story in order; before traffic they are negative."""
    page = Page(site("north"), site("coast"), site("ridge"))
    page.events = [{"unix_seconds": 990.0, "site_id": "north", "kind": "x", "text": "north is dark"}]
    watch = FleetWatch("http://ops", CALM)
    assert await is_up(watch, page, within=5.0)
    watch.traffic_started(1000.0)
    watch.note("router ended\nwith a long log")
    shown = [(event.site_id, event.text) for event in watch.events()]
    assert shown == [("north", "north is dark"), (None, "traffic starts"), (None, "router ended")]
    assert watch.events()[0].seconds == -10.0


async def test_what_the_page_does_not_say_is_unknown() -> None:
    """A null draw stays None, and so does everything of a site that was never seen."""
    watch = FleetWatch("http://ops", CALM)
    assert watch.sites()[0].state is None
    assert await is_up(watch, Page(site("north"), site("coast"), site("ridge")), within=5.0)
    first = watch.sites()[0]
    assert (first.state, first.draw_watts, first.wind_watts, first.in_flight) == (
        "serving",
        None,
        15_000.0,
        4,
    )


async def test_a_silent_operations_port_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error answer of the router's operations port becomes an event; the watch goes on."""
    monkeypatch.setattr(demo_fleet, "POLL_SECONDS", 0.01)
    page = Page()
    page.status = 500
    watch = FleetWatch("http://ops", CALM)
    assert not await is_up(watch, page, within=0.2)
    assert "does not answer" in watch.events()[0].text
