"""How good a forecast is on a record of wind (DESIGN §8). Pure.

The first three quarters of a record train, the last quarter is scored and untouched by fitting: nothing is
chosen or estimated from it. A model that learns as it goes goes on doing so there, from what is past at that
moment, as it does live.

The measure is the pinball loss, averaged over p10, p50 and p90, in shares of nameplate; the reference is
**point persistence**: p50 is the last measurement, p10 and p90 are that plus the quantiles of its errors over
the whole training part, the same at every level.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from power_feed.forecast import QUANTILES, Forecaster, PowerForecaster

HORIZONS_SECONDS = (60.0, 300.0, 900.0, 3600.0, 10_800.0, 21_600.0)
TRAINING_RATIO = 0.75
MIN_TRAINING = 1000
"""Fewer errors than that say little of a tenth."""


class BacktestError(Exception):
    """The record is too short or has too many gaps; the message says what is needed."""


@dataclass(slots=True)
class Score:
    """Of one model at one horizon."""

    forecasts: int = 0
    loss: float = 0.0
    """Sum; see `mean_loss_ratio`."""
    below: list[int] = field(default_factory=lambda: [0] * len(QUANTILES))
    """How often the truth was below each quantile."""

    def add(self, truth: float, quantiles: Sequence[float]) -> None:
        """Score one forecast."""
        self.forecasts += 1
        for position, (probability, value) in enumerate(zip(QUANTILES, quantiles, strict=True)):
            error = truth - value
            self.loss += (probability if error >= 0 else probability - 1) * error / len(QUANTILES)
            self.below[position] += error < 0

    def merged(self, other: Score) -> Score:
        """Of both, each forecast with the same weight."""
        return Score(
            forecasts=self.forecasts + other.forecasts,
            loss=self.loss + other.loss,
            below=[one + more for one, more in zip(self.below, other.below, strict=True)],
        )

    @property
    def mean_loss_ratio(self) -> float:
        """Share of nameplate."""
        return self.loss / self.forecasts if self.forecasts else math.nan

    def coverage_ratio(self, position: int) -> float:
        """How often the truth was below the quantile at that position of QUANTILES; it should be that
        quantile.
        """
        return self.below[position] / self.forecasts if self.forecasts else math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class PointPersistence:
    """The reference at one horizon: errors at p10 and p90 of the training part."""

    low: float
    high: float

    @classmethod
    def fit(cls, ratios: Sequence[float], steps: int) -> PointPersistence:
        """From the training part of a record; NaN where nothing was measured.

        Raises:
            BacktestError: fewer than MIN_TRAINING pairs.
        """
        errors = sorted(
            later - now
            for now, later in zip(ratios, ratios[steps:], strict=False)
            if now == now and later == later
        )
        if len(errors) < MIN_TRAINING:
            raise BacktestError(
                f"{len(errors)} pairs of steps in the first three quarters, {MIN_TRAINING} are needed: "
                "give a longer record"
            )
        return cls(low=_quantile(errors, QUANTILES[0]), high=_quantile(errors, QUANTILES[-1]))

    def quantiles(self, ratio: float) -> tuple[float, float, float]:
        """Clamped at 0 and nameplate."""
        return (max(0.0, min(1.0, ratio + self.low)), ratio, max(0.0, min(1.0, ratio + self.high)))


def _quantile(ordered: Sequence[float], probability: float) -> float:
    position = probability * (len(ordered) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (position - low) * (ordered[high] - ordered[low])


def models(horizons_seconds: Sequence[float]) -> dict[str, PowerForecaster]:
    """The models that are compared with point persistence, by name, in shares of nameplate."""
    return {
        "level": Forecaster(1.0, horizons_seconds=horizons_seconds),
        "moods": Forecaster(1.0, horizons_seconds=horizons_seconds, has_moods=True),
    }


def backtest(ratios: Sequence[float], period_seconds: float) -> dict[float, dict[str, Score]]:
    """Scores of one site's record: horizon → model → score; `point` is the reference.

    `ratios`: shares of nameplate, NaN where nothing was measured. Horizons shorter than the record's step, or
    no multiple of it, are left out.

    Raises:
        BacktestError: the record is too short.
    """
    horizons = [
        horizon
        for horizon in HORIZONS_SECONDS
        if horizon >= period_seconds
        and abs(horizon / period_seconds - round(horizon / period_seconds)) < 1e-6
    ]
    steps = {horizon: round(horizon / period_seconds) for horizon in horizons}
    begin = int(len(ratios) * TRAINING_RATIO)
    reference = {horizon: PointPersistence.fit(ratios[:begin], steps[horizon]) for horizon in horizons}
    made = models(horizons)
    scores = {horizon: {name: Score() for name in ("point", *made)} for horizon in horizons}
    for step, ratio in enumerate(ratios):
        if ratio != ratio:
            continue
        now = min(1.0, max(0.0, ratio))
        for model in made.values():
            model.observe(now, step * period_seconds)
        if step < begin:
            continue
        truths = {
            horizon: ratios[step + ahead]
            for horizon, ahead in steps.items()
            if step + ahead < len(ratios) and ratios[step + ahead] == ratios[step + ahead]
        }
        if not truths:
            continue
        for horizon, truth in truths.items():
            scores[horizon]["point"].add(truth, reference[horizon].quantiles(now))
        for name, model in made.items():
            for point in model.quantiles(tuple(truths)):
                quantiles = (point.p10_watts, point.p50_watts, point.p90_watts)
                scores[point.horizon_seconds][name].add(truths[point.horizon_seconds], quantiles)
    return scores
