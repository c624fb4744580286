"""Notes what a live router and a site's governor hear and decide, one JSON line each; loaded by Python itself
(PYTHONPATH).

Only where HERON_RECORD names a file and the process is the router, or HERON_RECORD_SITE one and it is the
agent whose power falls. They decide as ever, but for affinity, which is off: the simulator has none; and the
router asks for the load more often, so that a plan comes while a short recording runs.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any


class _Draws:
    """The router's random source, with what it gave."""

    def __init__(self, rng: Any) -> None:
        self._rng = rng
        self.given: list[float] = []

    def random(self) -> float:
        value: float = self._rng.random()
        self.given.append(value)
        return value

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rng, name)


def _notes(path: str) -> Any:
    out = open(path, "w", encoding="utf-8", buffering=1)  # noqa: SIM115, PTH123 - as long as the process

    def note(**line: Any) -> None:
        out.write(json.dumps(line) + "\n")

    return note


def _record_site(path: str) -> None:
    """What the governor was asked, and what it decided."""
    from site_agent.governor import Governor

    note = _notes(path)
    decide = Governor.decide
    known: set[int] = set()

    def noted(self: Any, view: Any, now: float) -> Any:
        if not known:
            known.add(id(self))
            note(event="site", rule=plain(self.rule), ride_through=plain(self.ride_through))
        asked = plain(view)
        decision = decide(self, view, now)
        note(event="decide", now=now, view=asked, decision=plain(decision, is_named=True))
        return decision

    Governor.decide = noted  # type: ignore[method-assign]


def _record(path: str) -> None:
    from router.live import fleet_view, hold, planner, presence
    from router.policy import load as loads
    from router.policy.dispatch import NOT_YET

    note = _notes(path)
    sites: dict[int, str] = {}
    planner.DEMAND_SECONDS = presence.PRESENCE_SECONDS = 0.5
    choose = hold.choose

    def noted_choose(views: Any, by_site: Any, **given: Any) -> Any:
        sites.update({id(load): site_id for site_id, load in by_site.items()})
        trips = {site_id: load.round_trip_seconds for site_id, load in by_site.items()}
        draws = _Draws(given["rng"])
        found = choose(views, by_site, **(given | {"rng": draws, "affinity": None, "hint": None}))
        note(
            event="choose",
            now=given["now"],
            features=plain(tuple(given["features"])),
            excluded=dict(given["excluded"]),
            is_resume=given["is_resume"],
            is_paced=given["is_paced"],
            is_patient=given["is_patient"],
            reserve_ratio=given["reserve_ratio"],
            turn=given["turn"],
            trips=trips,
            draws=draws.given,
            site=None if found is None else "not yet" if found is NOT_YET else found.site_id,
        )
        return found

    hold.choose = noted_choose

    def wrap(name: str) -> None:
        method = getattr(loads.Load, name)

        def noted(self: Any, *arguments: Any) -> Any:
            if id(self) in sites:
                note(event="load", site=sites[id(self)], name=name, arguments=arguments)
            return method(self, *arguments)

        setattr(loads.Load, name, noted)

    for name in ("begin", "end", "answered", "finished", "pushed_back"):
        wrap(name)

    rebuild = fleet_view.FleetView._rebuild

    def noted_rebuild(self: Any, kept: Any) -> None:
        if kept.report is not None:
            note(
                event="report",
                now=kept.arrived_at,
                report=kept.report.to_json().decode(),
                info=None if kept.info is None else kept.info.to_json().decode(),
            )
        rebuild(self, kept)  # asks for those that wait before it returns

    fleet_view.FleetView._rebuild = noted_rebuild  # type: ignore[method-assign]
    take_power = fleet_view.FleetView.take_power

    def noted_power(self: Any, raw: bytes, site_id: str | None = None) -> None:
        before = self.snapshot.power
        take_power(self, raw, site_id)
        if self.snapshot.power is not before:
            note(event="power", now=self._clock(), reading=raw.decode())

    fleet_view.FleetView.take_power = noted_power  # type: ignore[method-assign]
    take_plan = fleet_view.FleetView.take_plan

    def noted_plan(self: Any, raw: bytes) -> None:
        on_change = self.on_change

        def changed() -> None:
            note(event="plan", now=self._clock(), plan=raw.decode())
            on_change()

        self.on_change = changed
        try:
            take_plan(self, raw)
        finally:
            self.on_change = on_change

    fleet_view.FleetView.take_plan = noted_plan  # type: ignore[method-assign]


if os.environ.get("HERON_RECORD") and "router" in sys.orig_argv:
    from benchmarks.agreement.plain import plain

    _record(os.environ["HERON_RECORD"])
if os.environ.get("HERON_RECORD_SITE") and "site-agent" in sys.orig_argv:
    from benchmarks.agreement.plain import plain
    from cli.demo_config import STRICKEN_SITE

    if STRICKEN_SITE in sys.orig_argv:
        _record_site(os.environ["HERON_RECORD_SITE"])
