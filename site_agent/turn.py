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
    """Awake or not gone yet, without those that rest (their watts are off the budgets); grows with what is
    started."""
    budget_watts: float
    """For the worst case now."""
    soon_watts: float
    """The same for what takes long to change: not above what the forecast expects."""
    is_hurried: bool
    start_spare_watts: float = 0.0
    """What those in `drawing` that start draw less than their worst case."""
    is_held: bool = False
    """Not all slots fit: admission is held to the budget."""
    rest_watts: float = 0.0
    """Of those that rest, beyond stopped GPUs; off both budgets."""
    commands: list[Command] = field(default_factory=list)
    gone: set[str] = field(default_factory=set)
    """Ordered to stop this turn."""

    def take_rest(self, watts: float) -> None:
        """Something rests, or (below 0) does so no more."""
        self.rest_watts += watts
        self.budget_watts -= watts
        self.soon_watts -= watts

    def stop(self, instance_id: str) -> None:
        """Order an engine to stop."""
        self.gone.add(instance_id)
        self.commands.append(StopEngine(instance_id=instance_id))
