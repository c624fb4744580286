"""What the demo shows while it runs: the live screen, and the line that replaces it when headless. Pure.

A value that is not known is shown as `–`, never as 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

EVENT_LINES = 10
BAR_CELLS = 24
_STATE_STYLES = {"serving": "green", "draining": "yellow", "dark": "red", "faulted": "bold red"}
UNKNOWN = "–"


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteView:
    """One site as the router sees it; None: unknown."""

    site_id: str
    state: str | None = None
    wind_watts: float | None = None
    """What its farm grants it."""
    cap_watts: float | None = None
    draw_watts: float | None = None
    headroom_watts: float | None = None
    in_flight: int | None = None
    age_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventView:
    """Something that happened."""

    seconds: float
    """Since traffic started; negative before."""
    site_id: str | None
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """The whole screen."""

    title: str
    elapsed_seconds: float
    total_seconds: float | None
    sites: Sequence[SiteView]
    counts: Mapping[str, int]
    """Outcome → requests."""
    in_flight: int
    requests_per_second: float
    ttft_seconds: tuple[float | None, float | None]
    """p50, p99."""
    itl_seconds: tuple[float | None, float | None]
    events: Sequence[EventView]
    hints: Sequence[str]
    """Lines a reader can paste elsewhere while it runs."""


def screen(view: RunView) -> RenderableType:
    """The live screen."""
    return Group(
        Panel(Group(_progress(view), _sites(view.sites)), title=view.title, title_align="left"),
        Panel(_traffic(view), title="traffic", title_align="left"),
        Panel(_events(view.events), title="what just happened", title_align="left"),
        *(Text(line, style="dim", no_wrap=True, overflow="ellipsis") for line in view.hints),
    )


def headless_line(view: RunView) -> str:
    """Everything that matters in one line."""
    sites = "  ".join(
        f"{site.site_id} {site.state or UNKNOWN} {kilowatts(site.draw_watts)}/{kilowatts(site.cap_watts)} kW"
        for site in view.sites
    )
    counts = " ".join(f"{name} {count}" for name, count in view.counts.items() if count)
    return (
        f"{view.elapsed_seconds:5.0f} s  {view.requests_per_second:5.1f} req/s  in flight {view.in_flight}  "
        f"ttft p50 {milliseconds(view.ttft_seconds[0])} ms  {sites}  {counts}"
    )


def kilowatts(watts: float | None) -> str:
    """`6.2`, or `–` when unknown."""
    return UNKNOWN if watts is None else f"{watts / 1000:.1f}"


def milliseconds(seconds: float | None) -> str:
    """`23`, or `–` when unknown."""
    return UNKNOWN if seconds is None else f"{seconds * 1000:.0f}"


def _progress(view: RunView) -> Text:
    if view.total_seconds is None:
        return Text(f"{view.elapsed_seconds:.0f} s, until Ctrl-C")
    share = min(1.0, max(0.0, view.elapsed_seconds / view.total_seconds))
    full = round(share * BAR_CELLS)
    return Text.assemble(
        ("━" * full, "cyan"),
        ("━" * (BAR_CELLS - full), "dim"),
        f" {view.elapsed_seconds:.0f} of {view.total_seconds:.0f} s",
    )


def _sites(sites: Sequence[SiteView]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("site")
    table.add_column("state")
    for name in ("wind kW", "cap kW", "draw kW", "headroom kW", "in flight"):
        table.add_column(name, justify="right")
    table.add_column("draw of cap")
    for site in sites:
        table.add_row(
            site.site_id,
            Text(site.state or UNKNOWN, style=_STATE_STYLES.get(site.state or "", "dim")),
            *(
                kilowatts(watts)
                for watts in (site.wind_watts, site.cap_watts, site.draw_watts, site.headroom_watts)
            ),
            UNKNOWN if site.in_flight is None else str(site.in_flight),
            _bar(site.draw_watts, site.cap_watts),
        )
    return table


def _bar(draw_watts: float | None, cap_watts: float | None) -> Text:
    if draw_watts is None or not cap_watts:
        return Text(UNKNOWN)
    share = draw_watts / cap_watts
    full = min(BAR_CELLS, round(share * BAR_CELLS))
    style = "red" if share > 1 else "green"
    return Text.assemble(("█" * full, style), ("░" * (BAR_CELLS - full), "dim"))


def _traffic(view: RunView) -> Table:
    table = Table.grid(padding=(0, 3, 0, 0))
    table.add_row(
        f"{view.requests_per_second:.1f} requests/s",
        f"{view.in_flight} in flight",
        f"TTFT p50 {milliseconds(view.ttft_seconds[0])} ms, p99 {milliseconds(view.ttft_seconds[1])} ms",
        f"ITL p50 {milliseconds(view.itl_seconds[0])} ms, p99 {milliseconds(view.itl_seconds[1])} ms",
    )
    counts = Text("   ").join(
        Text(f"{name} {count}", style="bold red" if name in ("lost", "failed", "broken") and count else "")
        for name, count in view.counts.items()
    )
    return _stacked(table, counts)


def _stacked(*parts: RenderableType) -> Table:
    table = Table.grid()
    for part in parts:
        table.add_row(part)
    return table


def _events(events: Sequence[EventView]) -> Text:
    if not events:
        return Text("nothing yet", style="dim")
    lines = []
    for event in events[-EVENT_LINES:]:
        where = f"{event.site_id}: " if event.site_id and event.site_id not in event.text else ""
        lines.append(f"{event.seconds:6.1f} s  {where}{event.text}")
    return Text("\n".join(lines), no_wrap=True, overflow="ellipsis")
