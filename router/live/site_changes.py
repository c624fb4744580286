"""What an operator is told when a site's view changes. Pure."""

from __future__ import annotations

from typing import NamedTuple

from router.console.status import why_state
from router.live.events import EventKind, EventLevel
from router.policy.snapshot import SiteView

STATE_LEVELS: dict[str, EventLevel] = {"serving": "good", "faulted": "bad"}
"""Of a site's new state; the others are `warning`."""


class SiteChange(NamedTuple):
    """An event."""

    kind: EventKind
    text: str
    level: EventLevel


def state_change(before: SiteView | None, view: SiteView) -> SiteChange | None:
    """Of its state; None: it is as it was."""
    level = STATE_LEVELS.get(view.state, "warning")
    if before is None:
        return SiteChange("site_appeared", f"{view.site_id} is {view.state}", level)
    if before.state == view.state:
        return None
    why = why_state(view, before.draw_watts)
    text = f"{view.site_id} is {view.state}, was {before.state}{why and f': {why}'}"
    return SiteChange("site_state", text, level)
