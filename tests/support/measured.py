"""Rows that an engine of a known profile would give, for fits that must find it again."""

from __future__ import annotations

from typing import Any

from fleet.performance import PerformanceProfile
from fleet.profiles.document import EngineFacts, ProfileDocument, Row, Settings

OUTPUT_TOKENS = 256


def row_of(
    profile: PerformanceProfile, batch: int, prompt_tokens: int, at_clock_mhz: int, /, **changes: Any
) -> Row:
    """What a closed loop of so many streams would see."""
    clock_mhz = at_clock_mhz
    context = prompt_tokens + OUTPUT_TOKENS / 2
    itl = profile.itl_seconds(batch, clock_mhz, batch * context)
    ttft = profile.prefill_seconds(prompt_tokens, clock_mhz)
    others = (batch - 1) * prompt_tokens / profile.prefill_rate(clock_mhz)
    values: dict[str, Any] = {
        "running_requests": batch,
        "prompt_tokens": prompt_tokens,
        "clock_mhz": clock_mhz,
        "seconds": 20.0,
        "requests": 5,
        "failed_requests": 0,
        "output_tokens_per_second": batch * OUTPUT_TOKENS / (ttft + (OUTPUT_TOKENS - 1) * itl + others),
        "itl_seconds_p50": itl,
        "itl_seconds_p99": None,
        "ttft_seconds_p50": ttft,
        "watts": profile.watts(batch, clock_mhz),
        "joules_per_output_token": None,
        "counted_prompt_tokens": None,
    }
    return Row(**values | changes)


def document_of(rows: list[Row], **engine: Any) -> ProfileDocument:
    """A file's content: four H100 that are 460 W empty."""
    facts: dict[str, Any] = {
        "tensor_parallel_degree": 4,
        "gpu_model": "NVIDIA H100 80GB HBM3",
        "full_clock_mhz": 1980,
        "kv_tokens": 448_303,
        "max_model_len": 8192,
        "idle_watts": 460.0,
    }
    return ProfileDocument(
        heron_profile_version=1,
        settings=Settings(model="llama-3.1-70b", output_tokens=OUTPUT_TOKENS),
        provenance={},
        engine=EngineFacts(**facts | engine),
        rows=tuple(rows),
    )
