"""Looks at one farm's source for a while and says what comes of it: `heron power-feed test`.

It builds the source and the quality checks that the feed would build, from the same configuration, but serves
nothing and writes nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from power_feed.config import FarmConfig, FeedConfig
from power_feed.quality import QualityChecker, Verdict
from power_feed.quality_limits import quality_limits
from power_feed.sources.interface import FaultKind, LiveSource, Measurement, Source
from power_feed.sources.registry import LiveSources, build_sources

LOOK_SECONDS = 0.1
"""Between two looks at a source that says nothing by itself."""
MAX_LINES = 200
"""Printed for a source that changes all the time; the rest is counted."""

HINTS: Mapping[FaultKind, str] = {
    "connect": "Is the address and port right, the other side on, a firewall between? Try: nc -vz HOST PORT",
    "timeout": "Lengthen timeout_seconds if the network is slow. Modbus: is unit_id right?",
    "silence": "Connected, but nothing is sent. Is the farm's side publishing, on this very topic?",
    "credentials": "The message above names the user, file or certificate to look at.",
    "refused": "The other side answers with a refusal: its meaning is above, the reason in its manual.",
    "protocol": "Something else answers there. Is this the right port?",
    "missing": "Nothing is at this address, node or path. Compare it with the device's manual.",
    "wrong_type": "Something is there, but no number: choose another address, node or path.",
    "bad_status": "The server itself does not trust its value: see its own diagnosis.",
    "clock": "Set time_format, time_zone, time_shift_seconds as the source writes its times; check clocks.",
    "too_large": "Ask for less: a narrower url or topic.",
    "internal": "This is a defect: keep what is printed above and report it.",
}


@dataclass(slots=True, kw_only=True)
class ProbeResult:
    """What was seen."""

    measurements: int = 0
    good: int = 0
    faults: dict[FaultKind, int] = field(default_factory=dict)
    last_verdict: Verdict | None = None

    @property
    def is_usable(self) -> bool:
        """A good measurement came, and the last word was not that there is none."""
        last = self.last_verdict
        return self.good > 0 and last is not None and last.quality != "fallback"


class Probe:
    """One look at one farm."""

    def __init__(self, config: FeedConfig, farm: FarmConfig, say: Callable[[str], None]) -> None:
        """Build the source. `say` takes a line for the operator.

        Raises:
            ConfigError: it cannot be built.
        """
        alone = config.model_copy(update={"farms": (farm,)})
        self._lives = LiveSources()
        (self._source,) = build_sources(alone, start_unix_seconds=time.time(), lives=self._lives).values()
        self._farm = farm
        self._checker = QualityChecker(limits=quality_limits(farm, self._source))
        self._say = say
        self._lines = 0
        self._changed = asyncio.Event()
        self.result = ProbeResult()

    async def run(self, seconds: float) -> ProbeResult:
        """Watch for so long, saying what happens as it happens."""
        self._head(self._source)
        lives = self._lives.of(self._farm.farm_id)
        for live in lives:
            live.watch(_Watcher(self, live))
        tasks = [asyncio.create_task(live.run()) for live in lives]
        try:
            async with asyncio.timeout(seconds):
                await self._watch()
        except TimeoutError:
            pass
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return self.result

    async def _watch(self) -> None:
        shown: tuple[Measurement, tuple[str, ...]] | None = None
        while True:
            now = time.time()
            measurement = self._source.measurement(now)
            verdict = self._checker.judge(measurement, now)
            self.result.last_verdict = verdict
            seen = (measurement, () if verdict is None else verdict.failed)
            if seen != shown and verdict is not None:
                shown = seen
                self._count(measurement, verdict, now)
            self._changed.clear()
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _head(self, source: Source) -> None:
        farm = self._farm
        self._say(f"farm {farm.farm_id}: nameplate {farm.nameplate_watts:,.0f} W")
        self._say(f"source: {source.description}")
        self._say(f"        one measurement each {source.period_seconds:g} s, of {source.measures} power")

    def _count(self, measurement: Measurement, verdict: Verdict, now: float) -> None:
        if verdict.quality != "fallback":
            self.result.measurements += 1
        if verdict.quality == "good":
            self.result.good += 1
        age = now - verdict.observed_at_unix_seconds
        share = verdict.watts / self._farm.nameplate_watts
        why = f" ({', '.join(verdict.failed)})" if verdict.failed else ""
        kept = ", repeated" if verdict.quality == "fallback" else ""
        raw = "" if measurement.watts in (None, verdict.watts) else f", measured {measurement.watts:,.1f} W"
        value = f"{verdict.watts:>14,.1f} W {share:>7.1%}  {age:.1f} s old"
        self.line(f"{value}  {verdict.quality}{why}{kept}{raw}")

    def line(self, text: str) -> None:
        """A line with the time of day, as long as there are not too many."""
        self._lines += 1
        if self._lines <= MAX_LINES:
            self._say(f"{time.strftime('%H:%M:%S')}  {text}")
        elif self._lines == MAX_LINES + 1:
            self._say("… further lines are left out")

    def changed(self) -> None:
        """Look at once."""
        self._changed.set()

    def fault(self, kind: FaultKind, message: str) -> None:
        """Count and say it, the first five of a kind."""
        count = self.result.faults[kind] = self.result.faults.get(kind, 0) + 1
        if count <= 5:
            self.line(f"{kind}: {message}")

    def advice(self) -> list[str]:
        """What to do about what was seen; empty: nothing."""
        if self.result.is_usable and not self.result.faults:
            return []
        lines = [f"{kind}: {HINTS[kind]}" for kind in HINTS if kind in self.result.faults]
        lives = self._lives.of(self._farm.farm_id)
        came = any(live.status.value_at_unix_seconds is not None for live in lives)
        if came and not self.result.measurements:
            lines.append(
                "Numbers came, but none was used: the farm is curtailed, or its curtailment signal does not "
                "say that it is free."
            )
        elif not self.result.measurements and not self.result.faults:
            lines.append("Nothing came in this time: look for longer with --seconds.")
        return lines


@dataclass(frozen=True, slots=True)
class _Watcher:
    """Tells the probe what happens to one source."""

    probe: Probe
    live: LiveSource

    def changed(self) -> None:
        self.probe.changed()

    def connected(self) -> None:
        self.probe.line("connected")

    def failed(self, kind: FaultKind) -> None:
        last = self.live.status.last_fault
        self.probe.fault(kind, "" if last is None else last[1])
