"""A simulated site's server as the feed's switch sees it: power off, power on, and the boot in between."""

from __future__ import annotations

from simulator.events import Events
from simulator.site import SimulatedSite


class SimulatedServer:
    """One per site."""

    def __init__(self, site: SimulatedSite, events: Events) -> None:
        self._site = site
        self._events = events
        self._boots = 0
        """Counts switches: a boot that was cut short comes to nothing."""

    @property
    def is_on(self) -> bool:
        """Whether it has power."""
        return self._site.plant.is_on

    def switch_off(self) -> None:
        """Cut its power: agent and engines go with it."""
        if self.is_on:
            self._site.crash("server")
            self._boots += 1
            self._site.plant.switch_off()

    def switch_on(self) -> None:
        """Begin to boot it; its agent starts when that is done."""
        if not self.is_on:
            self._boots += 1
            self._site.plant.switch_on()
            self._events.after(self._site.settings.boot_seconds, self._booted, self._boots)

    def _booted(self, boot: int) -> None:
        if boot == self._boots:
            self._site.recover("server")
