"""Notes what a live router hears and decides, one JSON line each; loaded by Python itself (PYTHONPATH).

Only where HERON_RECORD names a file and the process is a router. It decides as ever, but for affinity, which
is off: the simulator has none.
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


def _record(path: str) -> None:
    from router.live import fleet_view, hold
    from router.policy import load as loads

    out = open(path, "w", encoding="utf-8", buffering=1)  # noqa: SIM115, PTH123 - as long as the process
    sites: dict[int, str] = {}

    def note(**line: Any) -> None:
        out.write(json.dumps(line) + "\n")

    choose = hold.choose

    def noted_choose(views: Any, by_site: Any, **given: Any) -> Any:
        sites.update({id(load): site_id for site_id, load in by_site.items()})
        trips = {site_id: load.round_trip_seconds for site_id, load in by_site.items()}
        draws = _Draws(given["rng"])
        found = choose(views, by_site, **(given | {"rng": draws, "affinity": None, "hint": None}))
        note(
            event="choose",
            now=given["now"],
            features=list(given["features"]),
            excluded=dict(given["excluded"]),
            is_resume=given["is_resume"],
            is_paced=given["is_paced"],
            reserve_ratio=given["reserve_ratio"],
            turn=given["turn"],
            trips=trips,
            draws=draws.given,
            site=None if found is None else found.site_id,
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
        rebuild(self, kept)
        if kept.report is not None:
            note(
                event="report",
                now=kept.arrived_at,
                report=kept.report.to_json().decode(),
                info=None if kept.info is None else kept.info.to_json().decode(),
            )

    fleet_view.FleetView._rebuild = noted_rebuild  # type: ignore[method-assign]
    take_power = fleet_view.FleetView.take_power

    def noted_power(self: Any, raw: bytes, site_id: str | None = None) -> None:
        before = self.snapshot.power
        take_power(self, raw, site_id)
        if self.snapshot.power is not before:
            note(event="power", now=self._clock(), reading=raw.decode())

    fleet_view.FleetView.take_power = noted_power  # type: ignore[method-assign]


if os.environ.get("HERON_RECORD") and "router" in sys.orig_argv:
    _record(os.environ["HERON_RECORD"])
