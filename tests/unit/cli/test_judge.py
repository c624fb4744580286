"""The judge of power: by table, with literal times and watts."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cli.judge import PowerLogError, PowerSample, judge, parse_power_log
from fleet.power import CapRule, RideThrough

RULE = CapRule(max_site_watts=7000.0, margin_ratio=0.05)
LIMITS = RideThrough(seconds=5.0, joules=1e9, recovery_seconds=5.0)
TICK = 0.1


def log(*parts: tuple[float, float], start: float = 1000.0) -> list[PowerSample]:
    """A 10-Hz log of (seconds, watts) parts, one after the other."""
    samples, at = [], start
    for seconds, watts in parts:
        for _ in range(round(seconds / TICK)):
            samples.append(PowerSample(unix_seconds=at, site_watts=watts))
            at = round(at + TICK, 6)
    return samples


def falls_to(watts: float, at: float) -> Callable[[float], float]:
    """10 kW of wind until `at`, then `watts`."""
    return lambda unix_seconds: 10_000.0 if unix_seconds < at else watts


@pytest.mark.parametrize(
    ("name", "samples", "wind", "exceeded"),
    [
        ("always within", log((20, 6000)), falls_to(0, 1e9), 0.0),
        ("complies in 2 s", log((12, 6000), (20, 1500)), falls_to(2000, 1010.0), 0.0),
        ("complies in just under 5 s", log((14.9, 6000), (20, 1500)), falls_to(2000, 1010.0), 0.0),
        ("complies after 8 s", log((18, 6000), (20, 1500)), falls_to(2000, 1010.0), 3.0),
        ("never complies", log((30, 6000)), falls_to(2000, 1010.0), 15.0),
        ("above the site's maximum", log((20, 7001)), falls_to(0, 1e9), 15.0),
    ],
)
def test_cap_exceeded_seconds(
    name: str, samples: list[PowerSample], wind: Callable[[float], float], exceeded: float
) -> None:
    """Time above the cap counts beyond the ride-through, and not before."""
    verdict = judge(samples, granted_watts=wind, rule=RULE, limits=LIMITS, idle_watts=1000.0)
    assert verdict is not None
    assert verdict.cap_exceeded_seconds == pytest.approx(exceeded, abs=0.25), name


def test_margin_is_part_of_the_cap() -> None:
    """A draw above grant × (1 − margin) is above the cap, though the wind would carry it."""
    verdict = judge(
        log((20, 1950)), granted_watts=lambda _: 2000.0, rule=RULE, limits=LIMITS, idle_watts=1000.0
    )
    assert verdict is not None
    assert verdict.cap_exceeded_seconds == pytest.approx(15.0, abs=0.25)
    assert verdict.above_cap_seconds == pytest.approx(19.9, abs=0.01)


def test_firm_power_holds_the_cap_up() -> None:
    """With a safe floor, no wind at all still allows the floor."""
    rule = CapRule(max_site_watts=7000.0, safe_floor_watts=1600.0)
    verdict = judge(log((20, 1590)), granted_watts=lambda _: 0.0, rule=rule, limits=LIMITS, idle_watts=1500.0)
    assert verdict is not None
    assert verdict.cap_exceeded_seconds == 0.0


def test_energy_beyond_the_battery_counts_before_the_time_is_over() -> None:
    """A ride-through of 4 kJ carries 4 kW for one second, whatever its seconds say."""
    limits = RideThrough(seconds=5.0, joules=4000.0, recovery_seconds=5.0)
    verdict = judge(
        log((10, 5900), (3, 5900), (10, 1000)),
        granted_watts=falls_to(2000, 1010.0),
        rule=RULE,
        limits=limits,
        idle_watts=900.0,
    )
    assert verdict is not None
    assert verdict.cap_exceeded_seconds == pytest.approx(2.0, abs=0.25)


def test_a_cap_below_idle_is_shown_apart() -> None:
    """Time above a cap that stopped engines cannot keep is exceeded time, and below-idle time as well."""
    verdict = judge(log((20, 1500)), granted_watts=lambda _: 0.0, rule=RULE, limits=LIMITS, idle_watts=1500.0)
    assert verdict is not None
    assert verdict.below_idle_seconds == verdict.cap_exceeded_seconds > 14


def test_energy_is_the_integral_of_the_log() -> None:
    """1,000 W for 10 s, then 2,000 W for 10 s: 30 kJ, less the first sample, which stands for no time."""
    verdict = judge(
        log((10, 1000), (10, 2000)), granted_watts=lambda _: 9e9, rule=RULE, limits=LIMITS, idle_watts=500.0
    )
    assert verdict is not None
    assert verdict.energy_joules == pytest.approx(29_900.0)
    assert verdict.peak_watts == 2000.0


def test_a_gap_is_the_draw_of_stopped_engines() -> None:
    """Where the agent was dead the log has a gap: nothing above the cap, idle energy, the time reported."""
    samples = log((5, 6000)) + log((5, 6000), start=1015.0)
    verdict = judge(samples, granted_watts=lambda _: 9e9, rule=RULE, limits=LIMITS, idle_watts=1000.0)
    assert verdict is not None
    assert verdict.cap_exceeded_seconds == 0.0
    assert verdict.unobserved_seconds == pytest.approx(10.1)
    assert verdict.energy_joules == pytest.approx(4.9 * 6000 + 10.1 * 1000 + 4.9 * 6000)


def test_no_sample_is_unknown() -> None:
    """An empty log gives no verdict, not a clean one."""
    assert judge([], granted_watts=lambda _: 0.0, rule=RULE, limits=LIMITS, idle_watts=0.0) is None


def test_a_log_that_runs_backwards_is_refused() -> None:
    """A clock that was set back makes a log that cannot be judged by, and says so."""
    samples = [
        PowerSample(unix_seconds=10.0, site_watts=1.0),
        PowerSample(unix_seconds=9.0, site_watts=1.0),
    ]
    with pytest.raises(PowerLogError, match=r"goes back from 10\.0 to 9\.0"):
        judge(samples, granted_watts=lambda _: 0.0, rule=RULE, limits=LIMITS, idle_watts=0.0)


def test_log_is_read_by_its_header() -> None:
    """Columns are found by name; a restarted host's header is skipped; a cut last line is left out."""
    lines = [
        "unix_seconds,gpu0_watts,site_watts\n",
        "1.0,5,100\n",
        "unix_seconds,site_watts\n",
        "2.0,200\n",
        "2.1,2",
    ]
    assert list(parse_power_log(lines)) == [
        PowerSample(unix_seconds=1.0, site_watts=100.0),
        PowerSample(unix_seconds=2.0, site_watts=200.0),
    ]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["1.0,100\n"], "line 1: no header"),
        (["unix_seconds,gpu0_watts\n"], "line 1: the header has no column site_watts"),
        (["unix_seconds,site_watts\n", "1.0,100\n", "x,100\n"], "line 3 is no sample: 'x,100"),
        (["unix_seconds,site_watts\n", "1.0\n"], "line 2 is no sample"),
        (["unix_seconds,site_watts\n", "1.0,nan\n"], "line 2 is no sample"),
    ],
)
def test_a_broken_log_is_refused_with_its_line(lines: list[str], message: str) -> None:
    """A log that is not as written by the fake GPUs is refused, never silently read around."""
    with pytest.raises(PowerLogError, match=message):
        list(parse_power_log(lines))
