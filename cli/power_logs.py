"""The judge's files: each site's power log, and the wind that the feed was given."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cli.demo_config import DemoOptions, power_log
from cli.judge import PowerLogError, PowerSample, PowerVerdict, judge, parse_power_log
from cli.topology import Topology
from fleet.power import CapRule, RideThrough
from power_feed.true_power import TruePower


def judge_sites(
    options: DemoOptions,
    topology: Topology,
    *,
    start_unix_seconds: float | None,
    rule: CapRule,
    limits: RideThrough,
) -> tuple[dict[str, PowerVerdict | None], list[str]]:
    """Every site's verdict, and what is wrong with logs that cannot be judged by.

    None where there is no power log (real engines without a meter), or not a sound one: unknown.
    """
    assert topology.feed is not None, "the demo always has a feed"
    wind = TruePower(topology.feed, start_unix_seconds=start_unix_seconds)
    verdicts: dict[str, PowerVerdict | None] = dict.fromkeys(options.sites)
    faults = []
    for site_id in options.sites:
        path = power_log(options.run_directory, site_id)
        try:
            verdicts[site_id] = judge(
                read_power_log(path),
                granted_watts=Granted(wind, site_id),
                rule=rule,
                limits=limits,
                idle_watts=options.size.idle_watts,
            )
        except PowerLogError as error:
            faults.append(f"the power log {path} cannot be judged by: {error}")
    return verdicts, faults


class Granted:
    """What the wind gave a site: it has its farm to itself, so all that the farm could give.

    Where the record has no measurement, what held before it holds on: nobody knows better.
    """

    def __init__(self, wind: TruePower, site_id: str) -> None:
        self._wind = wind
        self._site_id = site_id
        self._watts = 0.0

    def __call__(self, unix_seconds: float) -> float:
        """Watts at that instant; to be asked in order of time."""
        watts = self._wind.available_watts(self._site_id, unix_seconds)
        if watts is not None:
            self._watts = watts
        return self._watts


def read_power_log(path: Path) -> Iterator[PowerSample]:
    """The samples of a log, those of its older part (`.1`) first; none where there is no file.

    Raises:
        PowerLogError: a line that is no sample.
    """
    for part in (path.with_name(path.name + ".1"), path):
        if part.exists():
            with part.open(encoding="ascii", errors="replace") as log:
                yield from parse_power_log(log)
