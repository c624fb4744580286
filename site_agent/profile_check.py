"""`heron doctor` on a profile that was measured: what for, how well it fits, what it does not know.

Rule: nothing is changed on a GPU; its name is read, no more.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from fleet.performance import UNKNOWN_KV_TOKENS, PerformanceProfile
from fleet.profile_file import is_file, read_document
from fleet.profiles.check import FitError, fitted_groups
from fleet.profiles.document import ProfileDocument, ProfileDocumentError
from fleet.profiles.measured import ONE_LENGTH, fit_errors, told_clocks
from fleet.profiles.measured_points import points_of, told_slow_clock
from site_agent import report
from site_agent.config import SiteConfig
from site_agent.drivers import nvml
from site_agent.drivers.interface import DriverError
from site_agent.drivers.options import EmulatedOptions
from site_agent.promises import Finding

MAX_DECODE_ERROR_RATIO = 0.15
"""Of the largest row: beyond, the rows do not follow the model, or something else ran beside the sweep."""
CHECK = "profile file"
UNKNOWN_GPU = "unknown"


def examine(config: SiteConfig, *, nvml_library: Any = None) -> list[Finding]:
    """Every finding of the own profile's file; none where there is no such file."""
    reference = config.engine.profile
    if reference is None or not is_file(reference):
        return []
    try:
        document = read_document(Path(reference))
        profile = config.profiles.own
        errors = fit_errors(profile, document, name=reference)
    except ProfileDocumentError as error:
        return [Finding(check=CHECK, status="fail", message=str(error), action="heron profile run")]
    found = [_told(reference, profile, errors)]
    found += _fit(errors, reference)
    found += _made_for(config, profile, nvml_library)
    found += _unknown(config, profile, document)
    found += [
        _warn(
            f"routers cannot be told of {sentence}; they go by the site's reports and do not plan for it",
            "measure a few batches and clocks, alone on the GPUs, with longer --seconds",
        )
        for sentence in report.announced_profiles(config.site_model().profiles.values()).untold
    ]
    return found


def _told(reference: str, profile: PerformanceProfile, errors: Iterable[FitError]) -> Finding:
    batches = [row.running_requests for row in profile.rows]
    fits = ", ".join(
        f"{one.group} {100 * one.mean_error_ratio:.1f} % (largest {100 * one.max_error_ratio:.1f} %)"
        for one in fitted_groups(errors)
    )
    return Finding(
        check=CHECK,
        status="pass",
        message=f"{reference}: {profile.model} on {profile.tensor_parallel_degree} × {profile.gpu_model}, "
        f"{told_clocks(profile)}, batches {batches[0]} to {batches[-1]}; mean "
        f"error of the fit: {fits}",
    )


def _fit(errors: Iterable[FitError], reference: str) -> list[Finding]:
    ratios = [abs(one.error_ratio) for one in errors if one.is_fitted and one.group.startswith("decode step")]
    if not ratios or max(ratios) <= MAX_DECODE_ERROR_RATIO:
        return []
    return [
        _warn(
            f"a decode step is {100 * max(ratios):.0f} % off its row",
            f"heron profile check {reference}; measure again, alone on the GPUs, with longer --seconds",
        )
    ]


def _made_for(config: SiteConfig, profile: PerformanceProfile, library: Any) -> list[Finding]:
    found = []
    if profile.model != config.engine.model:
        found.append(
            _warn(
                f"measured with the model {profile.model}, the site serves {config.engine.model}",
                "measure the model that is served (another name of the same model is no harm)",
            )
        )
    names = _gpu_names(config, library)
    if profile.gpu_model == UNKNOWN_GPU:
        if names:
            found.append(_warn("it does not say on which GPU it was measured", "measure with --gpus"))
    elif names and profile.gpu_model not in names:
        found.append(
            Finding(
                check=CHECK,
                status="fail",
                message=f"measured on {profile.gpu_model}, here is {', '.join(sorted(names))}: its watts are "
                "another GPU's, and the cap is kept by them",
                action="measure here: heron profile run",
            )
        )
    return found


def _gpu_names(config: SiteConfig, library: Any) -> set[str]:
    """Of this machine's GPUs; empty: unknown, or the site reads none."""
    if isinstance(config.engine, EmulatedOptions) or config.engine.gpu_driver == "none":
        return set()
    try:
        nvidia = nvml.load() if library is None else library
    except DriverError:
        return set()
    try:
        nvidia.nvmlInit()
    except nvidia.NVMLError:
        return set()  # the check of the GPUs says so
    try:
        count = nvidia.nvmlDeviceGetCount()
        return {str(nvidia.nvmlDeviceGetName(nvidia.nvmlDeviceGetHandleByIndex(i))) for i in range(count)}
    except nvidia.NVMLError:
        return set()
    finally:
        with suppress(nvidia.NVMLError):
            nvidia.nvmlShutdown()


def _unknown(config: SiteConfig, profile: PerformanceProfile, document: ProfileDocument) -> list[Finding]:
    found = []
    last, most = profile.rows[-1].running_requests, config.engine.max_concurrency
    if most > last:
        found.append(
            _warn(
                f"its largest batch is {last}, max_concurrency is {most}: beyond it speed and watts are "
                "taken to stay as they are",
                f"measure --batches up to {most}, or max_concurrency = {last}",
            )
        )
    if not any(row.watts is not None for row in document.rows):
        found.append(
            _warn(
                "no power was measured: the draw follows assumed_idle_watts and assumed_busy_watts; the cap "
                "holds only as far as these are right",
                "measure with --gpus, on the engine's machine",
            )
        )
    elif config.engine.assumed_stopped_watts <= 0:
        found.append(
            _warn(
                f"watts of an instance without an engine are modelled, {profile.stopped_watts:.0f} W",
                "stop the engine, read nvidia-smi, and set engine.assumed_stopped_watts",
            )
        )
    found += _lost_clocks(profile, document)
    found += _slow_clocks(document)
    if ONE_LENGTH in profile.kv_source:
        found.append(
            _warn(
                "one prompt length was measured: a longer context is taken to cost nothing",
                "measure two or more --prompts",
            )
        )
    if not profile.prefill_source.startswith("measured"):
        found.append(
            _warn(f"prefill is {profile.prefill_source}", "measure batch 1, and two or more --prompts")
        )
    if len(profile.clocks_mhz) == 1:
        found.append(
            _warn(
                "one clock was measured: power is saved by stopping engines only",
                "measure with --clocks (as root), e.g. 1980,1400,800",
            )
        )
    if profile.kv_tokens >= UNKNOWN_KV_TOKENS:
        found.append(_warn("the engine did not say how large its KV cache is: it limits nothing", ""))
    return found


def _lost_clocks(profile: PerformanceProfile, document: ProfileDocument) -> list[Finding]:
    """Clocks whose watts were measured and make no point of the profile."""
    known = {ratio for ratio, _ in profile.clock_model.power_points}
    lost = {
        one.clock_mhz
        for one in points_of(document, CHECK)
        if one.watts and not one.is_full_clock and one.clock_mhz / one.full_clock_mhz not in known
    }
    if not lost:
        return []
    return [
        _warn(
            f"watts measured at {', '.join(map(str, sorted(lost)))} MHz are not used, those clocks' draw is "
            "modelled: no batch and prompt length of theirs has watts well above idle at full clock too",
            "measure the same --batches and --prompts at full clock, with --gpus",
        )
    ]


def _slow_clocks(document: ProfileDocument) -> list[Finding]:
    """Rows whose GPUs ran below the clock that they are taken for: their watts are too low for it."""
    full = document.engine.full_clock_mhz
    told = {
        number: slow
        for number, row in enumerate(document.rows, 1)
        if (slow := told_slow_clock(row, full)) is not None
    }
    if not told:
        return []
    first = min(told)
    return [
        _warn(
            f"row {first}: {told[first]}" + (f"; {len(told)} such rows" if len(told) > 1 else ""),
            "where a clock was locked, measure again with no agent on these GPUs: the draw is underestimated",
        )
    ]


def _warn(message: str, action: str) -> Finding:
    return Finding(check=CHECK, status="warn", message=message, action=action)
