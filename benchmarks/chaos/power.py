"""Did every site keep its cap? From the fake GPUs' own log and the wind alone, as the demo's judge does.

Only one thing is allowed beyond it: a site that no reading can reach may follow the last one that it heard,
walked down as DESIGN §7 says (whole for 3 periods, gone after 10).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.chaos.fleet import SITE, WITHOUT_FIRM_POWER, ChaosFleet, cap_rule, ride_through
from benchmarks.chaos.incidents import Allowance, Incident, blind_spans
from cli.judge import PowerVerdict, judge
from cli.power_logs import read_power_log
from power_feed.true_power import TruePower

BEYOND = "beyond the ride-through"


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteVerdict:
    """One site's run."""

    site_id: str
    power: PowerVerdict
    blind_seconds: float

    @property
    def fault(self) -> str:
        """What may not be; "" where the cap held."""
        excess = self.power.cap_exceeded_seconds
        if self.site_id == WITHOUT_FIRM_POWER:
            excess -= self.power.below_idle_seconds
        if excess <= 0.0:
            return ""
        return f"{self.site_id} drew more than its cap for {excess:.2f} s {BEYOND}"


class AllowedGrant:
    """What a site may take for its grant, by unix seconds."""

    def __init__(self, wind: TruePower, site_id: str, allowance: Allowance) -> None:
        self._wind = wind
        self._site_id = site_id
        self._allowance = allowance

    def __call__(self, unix_seconds: float) -> float:
        """Watts at that instant."""
        return self._allowance.watts(unix_seconds, self._at)

    def _at(self, unix_seconds: float) -> float:
        watts = self._wind.available_watts(self._site_id, unix_seconds)
        assert watts is not None, "a schedule always has a value"
        return watts


def judge_sites(
    fleet: ChaosFleet, incidents: Sequence[Incident], *, start_unix_seconds: float
) -> list[SiteVerdict]:
    """Every site's verdict.

    Raises:
        PowerLogError: a log that cannot be judged by.
    """
    feed = fleet.topology.feed
    assert feed is not None
    wind = TruePower(feed, start_unix_seconds=start_unix_seconds)
    verdicts = []
    for site in fleet.topology.sites:
        blind = blind_spans(site.site_id, incidents)
        surely = blind_spans(site.site_id, incidents, tail_seconds=0.0)
        allowance = Allowance(maybe_blind=blind, surely_blind=surely)
        power = judge(
            read_power_log(fleet.power_log(site.site_id)),
            granted_watts=AllowedGrant(wind, site.site_id, allowance),
            rule=cap_rule(site.site_id),
            limits=ride_through(),
            idle_watts=SITE.idle_watts,
        )
        assert power is not None, f"{site.site_id} has no power log"
        verdicts.append(
            SiteVerdict(
                site_id=site.site_id, power=power, blind_seconds=sum(end - begin for begin, end in blind)
            )
        )
    return verdicts
