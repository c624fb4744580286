"""A performance profile from what `heron profile run` measured. Pure.

The form is that of the shipped profiles (`fleet.performance`), so that whoever reads a profile reads this one
(docs/decisions/0019). Fitted are, in this order:

1. prefill: time to first token of the smallest batch = steps · overhead + prompt tokens ÷ rate;
2. decode at full clock: one row a batch, and what a token of context adds, from batches that were measured
   with several prompt lengths; a larger batch is never faster;
3. the clock: how much of a step is memory's and how much the matrix products', so that the parts, each slowed
   as `ClockModel` says, give the steps at the other clocks; and how prefill follows the clock;
4. watts: by batch the highest measured; by clock the highest ratio to full clock of any batch; prefill by
   extending rows of one batch to a load of nothing but prefill.

Rule: what was not measured is taken from a stated assumption, and its source says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

from fleet.performance import UNKNOWN_KV_TOKENS, ClockModel, PerformanceProfile, ProfileRow
from fleet.profiles import measured_points
from fleet.profiles.check import FitError
from fleet.profiles.document import ProfileDocument, ProfileDocumentError
from fleet.profiles.fitting import least_in_polygon, pool_adjacent
from fleet.profiles.measured_points import UNKNOWN_CLOCK_MHZ, Point
from fleet.profiles.measured_prefill import (
    DERIVED,
    LEAST_RATIO,
    MEASURED,
    Prefill,
    fit_prefill,
    fit_prefill_sensitivity,
    step_seconds,
)
from fleet.profiles.measured_watts import NOTHING_ASSUMED, AssumedWatts, WattsFit, fit_watts

UNKNOWN_MODEL_LEN = 1 << 20
ONE_LENGTH = "one prompt length was measured"
_POOLED = "derived: heron profile run; batches whose order the noise had turned were pooled"


def fit_profile(
    document: ProfileDocument, assumed: AssumedWatts = NOTHING_ASSUMED, *, name: str = "profile"
) -> PerformanceProfile:
    """The profile of what the document's rows say; `name` is the file's, for messages.

    Raises:
        ProfileDocumentError: the rows do not say enough, and which are missing.
    """
    points = measured_points.points_of(document, name)
    full_clock = points[0].full_clock_mhz
    full = [one for one in points if one.is_full_clock]
    prefill = fit_prefill(full)
    rows, kv_seconds, kv_source = _fit_decode(full, prefill)
    if not rows:
        raise ProfileDocumentError(
            f"{name}: no row at full clock ({full_clock} MHz) says how long a decode step is: gaps are "
            "unknown, or prefill fills them; measure with longer --seconds, shorter --prompts or more "
            "--output-tokens"
        )
    lower = [one for one in points if not one.is_full_clock]
    bare = _bare_profile(document, full_clock, rows, kv_seconds, prefill)
    weights, compute = _fit_parts(bare, lower, name)
    clocked = replace(
        bare, weights_seconds=weights, compute_seconds_per_request=compute, clock_model=ClockModel()
    )
    clock_model = ClockModel(prefill_sensitivity=fit_prefill_sensitivity(clocked, lower, prefill))
    watts = fit_watts(
        points,
        assumed,
        degree=bare.tensor_parallel_degree,
        idle_watts=document.engine.idle_watts,
        prefill_rate=prefill.tokens_per_second,
        limit_watts=document.engine.power_limit_watts,
    )
    return replace(
        clocked,
        clocks_mhz=(*sorted({one.clock_mhz for one in lower}), full_clock),
        clock_model=replace(clock_model, power_points=watts.clock_points),
        rows=tuple(_with_watts(row, watts) for row in rows),
        stopped_watts=watts.stopped_watts,
        idle_watts=watts.idle_watts,
        idle_source=watts.idle_source,
        prefill_watts_at_full_clock=watts.prefill_watts,
        kv_source=f"{kv_source}; {_kv_capacity_source(document)}",
    )


def fit_errors(
    profile: PerformanceProfile, document: ProfileDocument, *, name: str = "profile"
) -> list[FitError]:
    """Every measured figure of the document and what the profile gives for it; `published` is the measured.

    Raises:
        ProfileDocumentError: as `fit_profile`.
    """
    points = measured_points.points_of(document, name)
    prefill = fit_prefill([one for one in points if one.is_full_clock])
    batches = {row.running_requests for row in profile.rows}
    found = []
    for one in points:
        step, _ = step_seconds(one, profile.prefill_rate(one.clock_mhz))
        if step is not None:
            modelled = profile.itl_seconds(one.batch, one.clock_mhz, one.kv_tokens)
            found.append(_error("decode step", one, step, modelled, "ms", is_fitted=one.batch in batches))
    for one in points:
        if one.ttft_seconds is not None and one.batch == prefill.batch:
            modelled = profile.prefill_seconds(one.prompt_tokens, one.clock_mhz)
            found.append(_error("time to first token", one, one.ttft_seconds, modelled, "ms", is_fitted=True))
    for one in points:
        if one.watts:
            modelled = profile.watts(one.batch, one.clock_mhz)
            found.append(_error("watts", one, one.watts, modelled, "W", is_fitted=one.batch in batches))
    return found


def told_clocks(profile: PerformanceProfile) -> str:
    """For a person."""
    if profile.clocks_mhz == (UNKNOWN_CLOCK_MHZ,):
        return "one clock, it is not known which"
    return f"clocks {', '.join(map(str, profile.clocks_mhz))} MHz"


def _error(
    what: str, point: Point, measured: float, modelled: float, unit: str, *, is_fitted: bool
) -> FitError:
    scale = 1000 if unit == "ms" else 1
    clock = f"{point.clock_mhz} MHz" if point.is_clock_known else "clock as it was"
    return FitError(
        group=f"{what}, {clock}",
        row=f"row {point.number}: batch {point.batch}, {point.prompt_tokens:.0f} tokens",
        published=measured * scale,
        modelled=modelled * scale,
        unit=unit,
        is_fitted=is_fitted,
    )


def _bare_profile(
    document: ProfileDocument,
    full_clock: int,
    rows: tuple[ProfileRow, ...],
    kv_seconds: float,
    prefill: Prefill,
) -> PerformanceProfile:
    """Without watts, at full clock."""
    engine = document.engine
    degree = engine.tensor_parallel_degree or 1
    gpu = engine.gpu_model or "unknown"
    kv_tokens = engine.kv_tokens or UNKNOWN_KV_TOKENS
    model = document.settings.model
    return PerformanceProfile(
        profile_id=f"{_slug(model)}/{_slug(gpu)}/tp{degree}/{document.digest}",
        model=model,
        gpu_model=gpu,
        tensor_parallel_degree=degree,
        full_clock_mhz=full_clock,
        clocks_mhz=(full_clock,),
        stopped_watts=0.0,
        idle_watts=0.0,
        prefill_tokens_per_second=prefill.tokens_per_second,
        prefill_chunk_tokens=measured_points.chunk_tokens(document),
        kv_tokens=kv_tokens,
        max_model_len=min(engine.max_model_len or UNKNOWN_MODEL_LEN, kv_tokens),
        rows=rows,
        idle_source="",
        prefill_source=prefill.source,
        step_overhead_seconds=prefill.step_seconds,
        kv_seconds_per_token=kv_seconds,
    )


def _slug(text: str) -> str:
    return "".join(one if one.isalnum() or one in "-._" else "-" for one in text.lower())[:48]


def _kv_capacity_source(document: ProfileDocument) -> str:
    if document.engine.kv_tokens is None:
        return "capacity unknown: the engine did not say, nothing is limited by it"
    return "capacity measured: the engine's own word"


def _with_watts(row: ProfileRow, watts: WattsFit) -> ProfileRow:
    found, source = watts.at(row.running_requests)
    return replace(row, watts=found, watts_source=source)


# Decode


def _fit_decode(full: Sequence[Point], prefill: Prefill) -> tuple[tuple[ProfileRow, ...], float, str]:
    """A row a batch without watts, seconds of a token of context, and that figure's source."""
    steps = [(one, *step_seconds(one, prefill.tokens_per_second)) for one in full]
    known = sorted(
        ((one.batch, one.kv_tokens, step, source) for one, step, source in steps if step is not None),
        key=lambda entry: entry[0],
    )
    groups = [(batch, list(entries)) for batch, entries in groupby(known, key=lambda entry: entry[0])]
    kv_seconds, kv_source = _kv_seconds([[(kv, step) for _, kv, step, _ in rows] for _, rows in groups])
    means = [
        (sum(kv for _, kv, _, _ in rows) / len(rows), sum(step for _, _, step, _ in rows) / len(rows))
        for _, rows in groups
    ]
    bases = [step - kv_seconds * kv for kv, step in means]
    pooled = pool_adjacent(bases, [len(rows) for _, rows in groups])
    rows = []
    for (batch, entries), (kv, _), base, smooth in zip(groups, means, bases, pooled, strict=True):
        source = DERIVED if any(entry[3] == DERIVED for entry in entries) else MEASURED
        rows.append(
            ProfileRow(
                running_requests=batch,
                watts=0.0,
                itl_seconds=smooth + kv_seconds * kv,
                kv_tokens=kv,
                source=source if smooth == base else _POOLED,
            )
        )
    return tuple(rows), kv_seconds, kv_source


def _kv_seconds(groups: Sequence[Sequence[tuple[float, float]]]) -> tuple[float, str]:
    """What one token of context adds: the common slope over the batches, each with a level of its own."""
    numerator = denominator = 0.0
    most = float("inf")
    for rows in groups:
        kv_mean = sum(kv for kv, _ in rows) / len(rows)
        step_mean = sum(step for _, step in rows) / len(rows)
        most = min(most, (1 - LEAST_RATIO) * step_mean / kv_mean)
        for kv, step in rows:
            numerator += (kv - kv_mean) * (step - step_mean) / step_mean**2
            denominator += ((kv - kv_mean) / step_mean) ** 2
    if denominator == 0:
        return 0.0, f"step: {ONE_LENGTH}, a longer context is taken to cost nothing"
    return min(max(0.0, numerator / denominator), most), f"step: {MEASURED}, by prompt length"


# The clock


def _fit_parts(profile: PerformanceProfile, lower: Sequence[Point], name: str) -> tuple[float, float]:
    """Seconds of the weights, and of one request's matrix products, at full clock."""
    bases = {
        row.running_requests: row.itl_seconds - row.kv_tokens * profile.kv_seconds_per_token
        for row in profile.rows
    }
    model = ClockModel()
    memory = model.memory_sensitivity - model.other_sensitivity
    compute = model.compute_sensitivity - model.other_sensitivity
    equations: list[tuple[float, float]] = []
    targets: list[float] = []
    missing = {one.clock_mhz for one in lower}
    for one in lower:
        step, _ = step_seconds(one, profile.prefill_rate(one.clock_mhz))
        base = bases.get(one.batch)
        if step is None or base is None:
            continue
        missing.discard(one.clock_mhz)
        context = profile.kv_seconds_per_token * one.kv_tokens
        stretch = one.full_clock_mhz / one.clock_mhz - 1
        known = base + context
        known += stretch * (model.other_sensitivity * base + model.memory_sensitivity * context)
        equations.append((stretch * memory / step, stretch * compute * one.batch / step))
        targets.append((step - known) / step)
    if missing:
        raise ProfileDocumentError(
            f"{name}: no row at {', '.join(map(str, sorted(missing)))} MHz has a batch that was measured at "
            "full clock too: measure the same --batches at every clock"
        )
    if not equations:
        return 0.0, 0.0
    return least_in_polygon(equations, targets, list(bases.items()))
