"""The model of time and watts, and its fit to the published figures. Pure.

One engine step at full clock on `tp` GPUs, of `batch` decoding requests that hold `kv` tokens together:

    weights ÷ (tp · bandwidth) + layers · L + batch · (S + A(tp) + C · parameters ÷ 70e9 ÷ tp)
        + kv · bytes ÷ (tp · bandwidth · E)

A (all-reduce of a token's activations) is vidur's. L (a layer's launches and all-reduce latency), S (sampling
and scheduling of a request) and C (matrix products of a token, 70e9 parameters) are fitted to three models at
degrees 1, 2 and 4; E, the memory's efficiency on the KV cache, to one engine with short and long answers. The
weights are read at the data sheet's bandwidth: fitted as well, it comes out above it. Watts of one GPU:

    base + M · bytes moved per second + F · floating-point operations per second
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fleet.profiles.figures import (
    DECODE_SETS,
    H100_MEMORY_BYTES_PER_SECOND,
    H100_TDP_WATTS,
    LLAMA_70B,
    QWEN_32B_TP2,
    QWEN_32B_TP2_LONG,
    SPLITWISE_PREFILL_SECONDS,
    SPLITWISE_PROMPT_SIZES,
    VIDUR_ALL_REDUCE_SECONDS,
    VIDUR_TOKENS,
    Architecture,
    DecodeFigure,
    DecodeSet,
)

MAX_FITTED_BATCH = 200
"""Above it more than every second step carries prefill, and the median step is no decode step any more."""
MIN_FITTED_PROMPT = 512
"""Below it Splitwise's engine of 2023 waits for its host."""
_REFERENCE_PARAMETERS = 70e9


@dataclass(frozen=True, slots=True, kw_only=True)
class StepModel:
    """Seconds of an engine step."""

    layer_seconds: float
    request_seconds: float
    compute_seconds: float
    """Of one token through 70e9 parameters on one GPU."""
    kv_efficiency: float

    def weights_seconds(self, architecture: Architecture, degree: int) -> float:
        """All weights read once."""
        return architecture.weight_bytes / degree / H100_MEMORY_BYTES_PER_SECOND

    def kv_seconds_per_token(self, architecture: Architecture, degree: int) -> float:
        """One token of context read once."""
        return architecture.kv_bytes_per_token / (degree * H100_MEMORY_BYTES_PER_SECOND * self.kv_efficiency)

    def compute_seconds_per_request(self, architecture: Architecture, degree: int) -> float:
        """The matrix products of one token."""
        return self.compute_seconds * architecture.parameters / _REFERENCE_PARAMETERS / degree

    def seconds_per_request(self, architecture: Architecture, degree: int) -> float:
        """What one more decoding request adds, its context left out."""
        return (
            self.request_seconds
            + all_reduce_seconds_per_token(architecture, degree)
            + self.compute_seconds_per_request(architecture, degree)
        )

    def step_seconds(
        self, architecture: Architecture, degree: int, *, batch: float, kv_tokens: float
    ) -> float:
        """A step without prefill."""
        return (
            self.weights_seconds(architecture, degree)
            + architecture.layers * self.layer_seconds
            + batch * self.seconds_per_request(architecture, degree)
            + kv_tokens * self.kv_seconds_per_token(architecture, degree)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerModel:
    """Watts of one H100 at work, at full clock."""

    base_watts: float
    joules_per_byte: float
    joules_per_operation: float

    def gpu_watts(self, bytes_per_second: float, operations_per_second: float) -> float:
        """Never above the TDP, at which the GPU holds itself."""
        watts = (
            self.base_watts
            + self.joules_per_byte * bytes_per_second
            + self.joules_per_operation * operations_per_second
        )
        return min(watts, H100_TDP_WATTS)

    def closed_loop_watts(self, figures: DecodeSet, row: DecodeFigure) -> float:
        """All GPUs of an engine kept at this batch, its prefill included."""
        step = figures.step_seconds(row)
        return figures.tensor_parallel_degree * self.gpu_watts(*_load(figures, row, step))


def all_reduce_seconds_per_token(architecture: Architecture, degree: int) -> float:
    """From vidur's all-reduces of 256 and of 1,024 tokens; none on one GPU. Scaled by layers and width.

    Raises:
        KeyError: a degree that was not measured.
    """
    if degree == 1:
        return 0.0
    seconds = dict(zip(VIDUR_TOKENS, VIDUR_ALL_REDUCE_SECONDS[degree], strict=True))
    size = architecture.layers * architecture.hidden_size / (LLAMA_70B.layers * LLAMA_70B.hidden_size)
    return (seconds[1024] - seconds[256]) / (1024 - 256) * size


def least_squares(
    equations: Sequence[Sequence[float]], targets: Sequence[float], scales: Sequence[float]
) -> tuple[float, ...]:
    """The coefficients with the least sum of ((equation · coefficients − target) ÷ scale)².

    Raises:
        ValueError: the equations do not determine them.
    """
    rows = [[value / scale for value in row] for row, scale in zip(equations, scales, strict=True)]
    wanted = [target / scale for target, scale in zip(targets, scales, strict=True)]
    size = len(rows[0])
    matrix = [[sum(row[i] * row[j] for row in rows) for j in range(size)] for i in range(size)]
    right = [sum(row[i] * target for row, target in zip(rows, wanted, strict=True)) for i in range(size)]
    for column in range(size):
        pivot = max(range(column, size), key=lambda i: abs(matrix[i][column]))
        if matrix[pivot][column] == 0:
            raise ValueError("the figures do not determine the model: a coefficient occurs in none")
        matrix[column], matrix[pivot] = matrix[pivot], matrix[column]
        right[column], right[pivot] = right[pivot], right[column]
        for i in range(column + 1, size):
            factor = matrix[i][column] / matrix[column][column]
            matrix[i] = [a - factor * b for a, b in zip(matrix[i], matrix[column], strict=True)]
            right[i] -= factor * right[column]
    solution = [0.0] * size
    for i in reversed(range(size)):
        known = sum(matrix[i][j] * solution[j] for j in range(i + 1, size))
        solution[i] = (right[i] - known) / matrix[i][i]
    return tuple(solution)


def fit_step_model(
    sets: Sequence[DecodeSet] = DECODE_SETS,
    short: DecodeSet = QWEN_32B_TP2,
    long: DecodeSet = QWEN_32B_TP2_LONG,
) -> StepModel:
    """Fit to the median steps up to `MAX_FITTED_BATCH`; `short` and `long` differ in context only."""
    efficiency = _fit_kv_efficiency(short, long)
    bare = StepModel(layer_seconds=0, request_seconds=0, compute_seconds=0, kv_efficiency=efficiency)
    equations, targets, scales = [], [], []
    for figures in sets:
        architecture, degree = figures.architecture, figures.tensor_parallel_degree
        for row in fitted_rows(figures):
            kv_tokens = row.batch * figures.context_tokens(row)
            known = bare.step_seconds(architecture, degree, batch=row.batch, kv_tokens=kv_tokens)
            share = row.batch * architecture.parameters / _REFERENCE_PARAMETERS / degree
            equations.append((float(architecture.layers), row.batch, share))
            targets.append(row.itl_seconds - known)
            scales.append(row.itl_seconds)
    layer, request, compute = least_squares(equations, targets, scales)
    return StepModel(
        layer_seconds=layer, request_seconds=request, compute_seconds=compute, kv_efficiency=efficiency
    )


def fitted_rows(figures: DecodeSet) -> tuple[DecodeFigure, ...]:
    """The rows whose median step is a decode step."""
    return tuple(row for row in figures.rows if row.batch <= MAX_FITTED_BATCH)


def fit_power_model(sets: Sequence[DecodeSet]) -> PowerModel:
    """Fit to every row's watts, prefill in the step included."""
    equations, targets = [], []
    for figures in sets:
        for row in figures.rows:
            moved, operations = _load(figures, row, figures.step_seconds(row))
            equations.append((1.0, moved, operations))
            targets.append(row.watts / figures.tensor_parallel_degree)
    base, per_byte, per_operation = least_squares(equations, targets, targets)
    return PowerModel(base_watts=base, joules_per_byte=per_byte, joules_per_operation=per_operation)


def fit_prefill_rate(degree: int, step_overhead_seconds: float, chunk_tokens: int) -> float:
    """Prompt tokens per second, so that steps · overhead + tokens ÷ rate is nearest to Splitwise's times."""
    equations, targets, scales = [], [], []
    for tokens, seconds in zip(SPLITWISE_PROMPT_SIZES, SPLITWISE_PREFILL_SECONDS[degree], strict=True):
        if tokens >= MIN_FITTED_PROMPT:
            equations.append((float(tokens),))
            targets.append(seconds - -(-tokens // chunk_tokens) * step_overhead_seconds)
            scales.append(seconds)
    return 1 / least_squares(equations, targets, scales)[0]


def prefill_seconds_per_request(figures: DecodeSet) -> float:
    """Mean step − median step is prefill: seconds of it for each request, over the rows from 60 to 200."""
    shares = [
        (figures.step_seconds(row) - row.itl_seconds) * row.output_tokens / row.batch
        for row in figures.rows
        if 60 <= row.batch <= MAX_FITTED_BATCH
    ]
    return sum(shares) / len(shares)


def decode_seconds(figures: DecodeSet, row: DecodeFigure) -> float:
    """The decode step: the median, or, where most steps carry prefill, the mean step less the prefill."""
    if row.batch <= MAX_FITTED_BATCH:
        return row.itl_seconds
    prefill = prefill_seconds_per_request(figures) * row.batch / row.output_tokens
    return figures.step_seconds(row) - prefill


def _fit_kv_efficiency(short: DecodeSet, long: DecodeSet) -> float:
    """Rows of the same batch: what the longer context adds ÷ how many tokens it is."""
    added, tokens = [], []
    for row in long.rows:
        other = min(short.rows, key=lambda one: abs(one.batch - row.batch))
        added.append(row.itl_seconds - other.itl_seconds)
        tokens.append(row.batch * (long.context_tokens(row) - short.context_tokens(other)))
    (per_token,) = least_squares([(count,) for count in tokens], added, added)
    ideal = long.architecture.kv_bytes_per_token / (
        long.tensor_parallel_degree * H100_MEMORY_BYTES_PER_SECOND
    )
    return ideal / per_token


def _load(figures: DecodeSet, row: DecodeFigure, step: float) -> tuple[float, float]:
    """Bytes and operations per second of one GPU; two operations for each parameter and token."""
    architecture, degree = figures.architecture, figures.tensor_parallel_degree
    kv_bytes = row.batch * figures.context_tokens(row) * architecture.kv_bytes_per_token
    tokens = row.batch * (1 + figures.prompt_tokens / row.output_tokens)
    return (
        (architecture.weight_bytes + kv_bytes) / degree / step,
        2 * architecture.parameters * tokens / degree / step,
    )
