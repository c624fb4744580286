"""One decision of the governor in the making: what it is made on, and the commands so far. No behaviour."""

from __future__ import annotations

from dataclasses import dataclass, field

from site_agent.site_model import Layout
from site_agent.situation import Command, InstanceView, SiteView, StopEngine


@dataclass(slots=True, kw_only=True)
class Turn:
    """Lives as long as one `decide`."""

    view: SiteView
    now: float
    awake: list[InstanceView]
    drawing: Layout
    """Awake or not gone yet; grows with what is started."""
    budget_watts: float
    """For the worst case now."""
    soon_watts: float
    """The same for what takes long to change: not above what the forecast expects."""
    is_hurried: bool
    commands: list[Command] = field(default_factory=list)
    gone: set[str] = field(default_factory=set)
    """Ordered to stop this turn."""

    def stop(self, instance_id: str) -> None:
        """Order an engine to stop."""
        self.gone.add(instance_id)
        self.commands.append(StopEngine(instance_id=instance_id))
