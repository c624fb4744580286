"""How well the shipped coefficients fit the published figures, row by row. Pure.

The same check runs on the figures that are shipped and on those read from the official files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import groupby

from fleet.performance import DEFAULT_PREFILL_CHUNK_TOKENS
from fleet.profiles import figures
from fleet.profiles.figures import LLAMA_70B, QWEN_32B_TP2_LONG, DecodeSet
from fleet.profiles.fit import MAX_FITTED_BATCH, MIN_FITTED_PROMPT, decode_seconds
from fleet.profiles.llama_70b_h100 import (
    POWER,
    PREFILL_TOKENS_PER_SECOND,
    STEP,
    step_overhead_seconds,
)

BySize = Mapping[int, Mapping[int, float]]
"""Degree → tokens or batch → seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedFigures:
    """Everything that the profiles were fitted to or are compared with."""

    decode_sets: tuple[DecodeSet, ...]
    splitwise_prefill_seconds: BySize
    splitwise_itl_seconds: BySize
    vidur_step_seconds: BySize
    """Linear layers, norms, activations and all-reduces: attention is not in it."""


def _by_size(sizes: tuple[int, ...], seconds: Mapping[int, tuple[float, ...]]) -> BySize:
    return {degree: dict(zip(sizes, values, strict=True)) for degree, values in seconds.items()}


SHIPPED = PublishedFigures(
    decode_sets=(*figures.DECODE_SETS, QWEN_32B_TP2_LONG),
    splitwise_prefill_seconds=_by_size(figures.SPLITWISE_PROMPT_SIZES, figures.SPLITWISE_PREFILL_SECONDS),
    splitwise_itl_seconds=_by_size(figures.SPLITWISE_BATCHES, figures.SPLITWISE_ITL_SECONDS),
    vidur_step_seconds={
        degree: {
            tokens: linear + all_reduce
            for tokens, linear, all_reduce in zip(
                figures.VIDUR_TOKENS, values, figures.VIDUR_ALL_REDUCE_SECONDS[degree], strict=True
            )
        }
        for degree, values in figures.VIDUR_SECONDS.items()
    },
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FitError:
    """One published figure and what the shipped coefficients give for it."""

    group: str
    row: str
    published: float
    modelled: float
    unit: str
    is_fitted: bool
    """False: a comparison only; the coefficients did not see it."""

    @property
    def error_ratio(self) -> float:
        """(modelled − published) ÷ published."""
        return self.modelled / self.published - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupError:
    """The rows of a group together; fitted rows and mere comparisons apart."""

    group: str
    is_fitted: bool
    rows: int
    mean_error_ratio: float
    """Of the absolute values."""
    max_error_ratio: float


def fit_errors(published: PublishedFigures = SHIPPED) -> list[FitError]:
    """Every row, group by group."""
    return [
        *_decode_errors(published.decode_sets),
        *_watt_errors(published.decode_sets),
        *_prefill_errors(published.splitwise_prefill_seconds),
        *_itl_errors(published.splitwise_itl_seconds),
        *_vidur_errors(published.vidur_step_seconds),
    ]


def summary(errors: Iterable[FitError]) -> list[GroupError]:
    """One line a group, in the order in which groups come."""
    found = []
    for (group, is_fitted), rows in groupby(
        sorted(errors, key=lambda one: not one.is_fitted), key=lambda one: (one.group, one.is_fitted)
    ):
        ratios = [abs(one.error_ratio) for one in rows]
        found.append(
            GroupError(
                group=group,
                is_fitted=is_fitted,
                rows=len(ratios),
                mean_error_ratio=sum(ratios) / len(ratios),
                max_error_ratio=max(ratios),
            )
        )
    return found


def fitted_groups(errors: Iterable[FitError]) -> list[GroupError]:
    """The groups' fitted rows together by what they are (before the comma of a group's name)."""
    return summary(
        replace(one, group=one.group.partition(",")[0])
        for one in sorted(errors, key=lambda one: one.group.partition(",")[0])
        if one.is_fitted
    )


def _decode_errors(sets: Iterable[DecodeSet]) -> Iterable[FitError]:
    for figures_of in sets:
        for row in figures_of.rows:
            modelled = STEP.step_seconds(
                figures_of.architecture,
                figures_of.tensor_parallel_degree,
                batch=row.batch,
                kv_tokens=row.batch * figures_of.context_tokens(row),
            )
            yield FitError(
                group=f"decode, {figures_of.name} (ML.ENERGY)",
                row=f"batch {row.batch:g}",
                published=decode_seconds(figures_of, row) * 1000,
                modelled=modelled * 1000,
                unit="ms",
                is_fitted=row.batch <= MAX_FITTED_BATCH,
            )


def _watt_errors(sets: Iterable[DecodeSet]) -> Iterable[FitError]:
    for figures_of in sets:
        is_fitted = figures_of.name in (
            figures.LLAMA_70B_TP4.name,
            figures.QWEN_32B_TP1.name,
            figures.QWEN_32B_TP2.name,
        )
        for row in figures_of.rows:
            yield FitError(
                group=f"watts, {figures_of.name} (ML.ENERGY)",
                row=f"batch {row.batch:g}",
                published=row.watts,
                modelled=POWER.closed_loop_watts(figures_of, row),
                unit="W",
                is_fitted=is_fitted,
            )


def _prefill_seconds(degree: int, tokens: int) -> float:
    steps = -(-tokens // DEFAULT_PREFILL_CHUNK_TOKENS)
    return steps * step_overhead_seconds(degree) + tokens / PREFILL_TOKENS_PER_SECOND[degree]


def _prefill_errors(seconds: BySize) -> Iterable[FitError]:
    for degree, by_tokens in seconds.items():
        for tokens, published in by_tokens.items():
            yield FitError(
                group=f"prefill, Llama-2-70B TP {degree} (Splitwise)",
                row=f"{tokens} tokens",
                published=published * 1000,
                modelled=_prefill_seconds(degree, tokens) * 1000,
                unit="ms",
                is_fitted=tokens >= MIN_FITTED_PROMPT,
            )


def _itl_errors(seconds: BySize) -> Iterable[FitError]:
    for degree, by_batch in seconds.items():
        for batch, published in by_batch.items():
            modelled = STEP.step_seconds(LLAMA_70B, degree, batch=batch, kv_tokens=batch * (512 + 64))
            yield FitError(
                group=f"decode, Llama-2-70B TP {degree} (Splitwise)",
                row=f"batch {batch}",
                published=published * 1000,
                modelled=modelled * 1000,
                unit="ms",
                is_fitted=False,
            )


def _vidur_errors(seconds: BySize) -> Iterable[FitError]:
    for degree, by_tokens in seconds.items():
        for tokens, published in by_tokens.items():
            if tokens < MIN_FITTED_PROMPT:
                continue
            yield FitError(
                group=f"prefill, Llama-2-70B TP {degree} (vidur, without attention)",
                row=f"{tokens} tokens",
                published=published * 1000,
                modelled=_prefill_seconds(degree, tokens) * 1000,
                unit="ms",
                is_fitted=False,
            )
