"""Llama-3.1-70B in bf16 on H100-80GB at tensor-parallel 2, 4 and 8: the default profile. Pure.

Measured: decode time and watts at tensor-parallel 4 and full clock (ML.ENERGY). Modelled: the other degrees
(measured row + difference of the fitted step model; watts by the fitted power model), one running request,
the context term, prefill (fitted to Splitwise), every clock below the full one. The coefficients are what
`fleet.profiles.fit` gives for `fleet.profiles.figures`; a test and `heron profile check` fit them again.
"""

from __future__ import annotations

from fleet.performance import (
    DEFAULT_PREFILL_CHUNK_TOKENS,
    PerformanceProfile,
    ProfileRow,
)
from fleet.power_states import GPU_IDLE_WATTS, GPU_STOPPED_WATTS
from fleet.profiles.figures import DEGREES, FULL_CLOCK_MHZ, LLAMA_70B, LLAMA_70B_TP4, DecodeFigure
from fleet.profiles.fit import MAX_FITTED_BATCH, PowerModel, StepModel, decode_seconds

STEP = StepModel(
    layer_seconds=66.1e-6, request_seconds=20.5e-6, compute_seconds=229.7e-6, kv_efficiency=0.772
)
POWER = PowerModel(base_watts=28.6, joules_per_byte=177.9e-12, joules_per_operation=1.62e-12)
PREFILL_TOKENS_PER_SECOND: dict[int, float] = {2: 7_400.0, 4: 10_500.0, 8: 13_300.0}

CLOCKS_MHZ = (800, 1000, 1200, 1400, 1600, 1800, FULL_CLOCK_MHZ)
GPU_MEMORY_BYTES = 80e9
GPU_MEMORY_SHARE = 0.9
"""Of it for weights and KV cache; the rest is activations, CUDA graphs and the context. By it TP 4 holds
448,000 tokens; ML.ENERGY's engine stopped growing at 898 requests of about 480 tokens: 433,000."""
MAX_MODEL_LEN = 8_192
MOST_BATCH: dict[int, int] = {2: 64, 4: 1024, 8: 1024}
"""Rows end here; at TP 2 the KV cache does not hold more."""

_MEASURED = "measured: ML.ENERGY v3, Llama-3.1-70B-Instruct, bf16, 4×H100, vLLM, closed loop"
_DERIVED = "derived: same; step = batch ÷ tokens per second less prefill"
_ONE = "modelled: row of batch 8 and the step and power model's difference"
_OTHER_DEGREE = "modelled: TP 4's row and the step and power model's difference"
_IDLE_SOURCE = "awake idle: vLLM sleep-mode note, about 115 W per H100; without a context: assumed 70 W"
_PREFILL_SOURCE = "modelled: fitted to Splitwise, Llama-2-70B on H100, prompts of 512–8,192, full clock"
_KV_SOURCE = "modelled: bytes ÷ bandwidth ÷ 0.77, fitted to ML.ENERGY v3, Qwen3-32B with long answers"


def kv_tokens(degree: int) -> int:
    """What the KV cache holds: memory less weights. TP 2 holds one long conversation, or five short ones."""
    free = degree * GPU_MEMORY_BYTES * GPU_MEMORY_SHARE - LLAMA_70B.weight_bytes
    return int(free / LLAMA_70B.kv_bytes_per_token)


def step_overhead_seconds(degree: int) -> float:
    """A step without a decoding request: weights and launches."""
    return STEP.step_seconds(LLAMA_70B, degree, batch=0, kv_tokens=0)


def build(degree: int) -> PerformanceProfile:
    """The profile of one instance of this degree."""
    overhead = step_overhead_seconds(degree)
    rate = PREFILL_TOKENS_PER_SECOND[degree]
    return PerformanceProfile(
        profile_id=f"llama-3.1-70b/h100/tp{degree}",
        model="llama-3.1-70b",
        gpu_model="H100-80GB (emulated)",
        tensor_parallel_degree=degree,
        full_clock_mhz=FULL_CLOCK_MHZ,
        clocks_mhz=CLOCKS_MHZ,
        stopped_watts=degree * GPU_STOPPED_WATTS,
        idle_watts=degree * GPU_IDLE_WATTS,
        prefill_tokens_per_second=rate,
        kv_tokens=kv_tokens(degree),
        max_model_len=MAX_MODEL_LEN,
        rows=_rows(degree),
        idle_source=_IDLE_SOURCE,
        prefill_source=_PREFILL_SOURCE,
        step_overhead_seconds=overhead,
        prefill_watts_at_full_clock=_prefill_watts(degree, overhead, rate),
        kv_seconds_per_token=STEP.kv_seconds_per_token(LLAMA_70B, degree),
        weights_seconds=STEP.weights_seconds(LLAMA_70B, degree),
        compute_seconds_per_request=STEP.compute_seconds_per_request(LLAMA_70B, degree),
        kv_source=_KV_SOURCE,
    )


def build_all() -> dict[str, PerformanceProfile]:
    """By profile id, the fewest GPUs first."""
    profiles = (build(degree) for degree in DEGREES)
    return {profile.profile_id: profile for profile in profiles}


def _rows(degree: int) -> tuple[ProfileRow, ...]:
    first = LLAMA_70B_TP4.rows[0]
    rows = [_row(degree, first, batch=1, source=_ONE if degree == 4 else _OTHER_DEGREE)]
    for figure in LLAMA_70B_TP4.rows:
        if figure.batch > MOST_BATCH[degree]:
            break
        source = _MEASURED if figure.batch <= MAX_FITTED_BATCH else _DERIVED
        rows.append(_row(degree, figure, batch=figure.batch, source=source if degree == 4 else _OTHER_DEGREE))
    return tuple(rows)


def _row(degree: int, figure: DecodeFigure, *, batch: float, source: str) -> ProfileRow:
    """The measured row, moved to this batch and degree by the model's differences."""
    seconds = decode_seconds(LLAMA_70B_TP4, figure)
    context = LLAMA_70B_TP4.context_tokens(figure)
    watts = figure.watts
    if degree != 4 or batch != figure.batch:
        there = STEP.step_seconds(LLAMA_70B, degree, batch=batch, kv_tokens=batch * context)
        here = STEP.step_seconds(LLAMA_70B, 4, batch=figure.batch, kv_tokens=figure.batch * context)
        seconds += there - here
        ratio = _closed_loop_watts(degree, figure, batch) / _closed_loop_watts(4, figure, figure.batch)
        watts *= ratio
    return ProfileRow(
        running_requests=round(batch),
        watts=float(round(watts)),
        itl_seconds=seconds,
        kv_tokens=batch * context,
        source=source,
    )


def _closed_loop_watts(degree: int, figure: DecodeFigure, batch: float) -> float:
    """All GPUs by the power model, at the speed of the step model with the benchmark's prefill in it."""
    kv = batch * LLAMA_70B_TP4.context_tokens(figure)
    prompt_tokens = batch / figure.output_tokens * LLAMA_70B_TP4.prompt_tokens
    step = STEP.step_seconds(LLAMA_70B, degree, batch=batch, kv_tokens=kv)
    step += prompt_tokens / PREFILL_TOKENS_PER_SECOND[degree]
    moved = LLAMA_70B.weight_bytes + kv * LLAMA_70B.kv_bytes_per_token
    operations = 2 * LLAMA_70B.parameters * (batch + prompt_tokens)
    return degree * POWER.gpu_watts(moved / degree / step, operations / degree / step)


def _prefill_watts(degree: int, overhead: float, rate: float) -> float:
    """All GPUs in steps of one full chunk and nothing else."""
    tokens = DEFAULT_PREFILL_CHUNK_TOKENS
    step = overhead + tokens / rate
    operations = 2 * LLAMA_70B.parameters * tokens
    gpu_watts = POWER.gpu_watts(LLAMA_70B.weight_bytes / degree / step, operations / degree / step)
    return round(degree * gpu_watts, 1)
