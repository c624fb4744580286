"""Sudden falls of a farm's power, which a record of 5- or 15-minute means does not show. Pure.

A tripped line or turbine controller takes power away within a second and gives it back after half a minute or
two. Between a record's samples the simulated mean is a straight line (`simulator.wind`), so without trips no
site ever meets a fall that is faster than its governor. Model, assumed: trips come at random, independently
at each farm; what is left is nothing, a fifth, or any share, each as likely; a third fall twice within
seconds, which is what a second fall's guarantee is for.
"""

from __future__ import annotations

import random

from simulator.wind import Watts

DAY_SECONDS = 86_400
LEAST_SECONDS, MOST_SECONDS = 30, 120
SECOND_FALL_RATIO = 1 / 3
QUIET_END_SECONDS = 200
"""None begins so late that its end would lie outside."""


def trips(seconds: int, per_day: float, rng: random.Random) -> list[tuple[int, int, float]]:
    """(from, to, share of the power left) of each, in order of time."""
    found: list[tuple[int, int, float]] = []
    at = rng.expovariate(per_day / DAY_SECONDS) if per_day else float("inf")
    while at < seconds - QUIET_END_SECONDS:
        begin = int(at)
        share = rng.choice((0.0, 0.2, rng.random()))
        if rng.random() < SECOND_FALL_RATIO:
            second = begin + rng.randint(1, 9)
            found.append((begin, second, max(share, 0.5 + rng.random() / 2)))
            begin = second
        end = begin + rng.randint(LEAST_SECONDS, MOST_SECONDS)
        found.append((begin, end, share))
        at = end + rng.expovariate(per_day / DAY_SECONDS)
    return found


def with_trips(watts: Watts, per_day: float, rng: random.Random) -> Watts:
    """The same seconds with trips in them."""
    found = watts.copy()
    for begin, end, share in trips(len(watts), per_day, rng):
        found[begin:end] *= share
    return found
