"""The published figures that the profiles are fitted to, as numbers with their sources. Pure.

ML.ENERGY benchmark v3 ("The ML.ENERGY Benchmark", NeurIPS D&B 2025; its leaderboard's data at commit
0cd52da): vLLM on H100, bf16, a closed loop that keeps the batch full. Splitwise (ISCA 2024; splitwise-sim's
perf_model.csv at commit 8f99e7d, MIT): medians over its repetitions, vLLM of 2023. vidur (MLSys 2024; commit
7d47513, MIT): sums over operators, with neither attention nor all-reduce.
"""

from __future__ import annotations

from dataclasses import dataclass

H100_MEMORY_BYTES_PER_SECOND = 3.35e12
"""NVIDIA's data sheet, H100 SXM5."""
H100_TDP_WATTS = 700.0
FULL_CLOCK_MHZ = 1980


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """What a step has to move and to compute; from the model's published configuration."""

    parameters: float
    weight_bytes: float
    layers: int
    hidden_size: int
    kv_bytes_per_token: float
    """2 (K and V) × layers × KV heads × head size × 2 bytes."""


LLAMA_70B = Architecture(
    parameters=70.55e9,
    weight_bytes=141.1e9,
    layers=80,
    hidden_size=8192,
    kv_bytes_per_token=2 * 80 * 8 * 128 * 2,
)
LLAMA_8B = Architecture(
    parameters=8.03e9,
    weight_bytes=16.06e9,
    layers=32,
    hidden_size=4096,
    kv_bytes_per_token=2 * 32 * 8 * 128 * 2,
)
QWEN_32B = Architecture(
    parameters=32.76e9,
    weight_bytes=65.5e9,
    layers=64,
    hidden_size=5120,
    kv_bytes_per_token=2 * 64 * 8 * 128 * 2,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeFigure:
    """One row of ML.ENERGY: an engine kept at this batch."""

    batch: float
    """Mean number of running requests."""
    watts: float
    """All GPUs together."""
    tokens_per_second: float
    """Output tokens."""
    itl_seconds: float
    """Median."""
    output_tokens: float
    """Mean of a request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeSet:
    """The rows of one engine."""

    name: str
    architecture: Architecture
    tensor_parallel_degree: int
    rows: tuple[DecodeFigure, ...]
    prompt_tokens: float = 150.0
    """Mean of a request. Not published; assumed. At Llama-70B's fitted prefill rate it explains the gap
    between mean and median step (16 ms of prefill for each request)."""
    age_share: float = 0.95
    """Output that a running request has so far ÷ mean output: from the published histograms of output lengths
    (340 of 352 tokens for Llama, 560 of 632 for Qwen); for GPQA, without a histogram, assumed."""

    def context_tokens(self, row: DecodeFigure) -> float:
        """KV tokens of one running request, in the mean."""
        return self.prompt_tokens + self.age_share * row.output_tokens

    def step_seconds(self, row: DecodeFigure) -> float:
        """Mean step, prefill in it: every running request gets one token."""
        return row.batch / row.tokens_per_second


def _rows(*rows: tuple[float, float, float, float, float]) -> tuple[DecodeFigure, ...]:
    return tuple(
        DecodeFigure(
            batch=batch,
            watts=watts,
            tokens_per_second=rate,
            itl_seconds=milliseconds / 1000,
            output_tokens=output,
        )
        for batch, watts, rate, milliseconds, output in rows
    )


LLAMA_70B_TP4 = DecodeSet(
    name="Llama-3.1-70B TP 4",
    architecture=LLAMA_70B,
    tensor_parallel_degree=4,
    rows=_rows(
        (8.0, 1765.4, 469.7, 16.57, 350),
        (16.0, 1803.8, 862.6, 17.70, 354),
        (31.9, 1794.2, 1486.7, 20.05, 351),
        (63.8, 2001.5, 2510.5, 22.43, 352),
        (95.7, 2101.5, 3244.3, 25.36, 357),
        (127.6, 2183.8, 3876.3, 27.87, 359),
        (191.6, 2293.1, 4461.2, 33.70, 357),
        (255.3, 2354.3, 4915.1, 39.84, 349),
        (383.0, 2343.5, 5318.8, 55.12, 364),
        (510.5, 2492.9, 5921.3, 73.89, 350),
        (766.3, 2535.3, 6507.5, 103.64, 351),
        (898.5, 2547.5, 6827.2, 105.61, 351),
    ),
)
QWEN_32B_TP1 = DecodeSet(
    name="Qwen3-32B TP 1",
    architecture=QWEN_32B,
    tensor_parallel_degree=1,
    age_share=0.89,
    rows=_rows(
        (8.0, 538.4, 312.0, 25.21, 638), (16.0, 566.2, 589.0, 26.35, 626), (29.3, 599.4, 960.5, 28.81, 629)
    ),
)
QWEN_32B_TP2 = DecodeSet(
    name="Qwen3-32B TP 2",
    architecture=QWEN_32B,
    tensor_parallel_degree=2,
    age_share=0.89,
    rows=_rows(
        (8.0, 850.1, 522.5, 15.06, 631),
        (16.0, 882.8, 970.2, 16.04, 626),
        (31.9, 944.5, 1706.1, 17.91, 642),
        (63.9, 974.1, 2653.8, 22.45, 635),
        (95.8, 1022.0, 3355.6, 26.10, 635),
        (127.8, 1073.7, 3905.3, 29.66, 624),
        (191.7, 1143.1, 4601.3, 37.02, 632),
        (255.6, 1177.9, 5155.5, 44.45, 634),
        (340.2, 1179.9, 5070.8, 54.90, 628),
    ),
)
QWEN_32B_TP2_LONG = DecodeSet(
    name="Qwen3-32B TP 2, GPQA",
    architecture=QWEN_32B,
    tensor_parallel_degree=2,
    prompt_tokens=250.0,
    age_share=0.6,
    rows=_rows(
        (8.0, 954.4, 475.3, 16.72, 6936),
        (16.0, 978.9, 827.3, 19.32, 6906),
        (32.0, 1037.6, 1294.2, 25.27, 7176),
        (63.8, 1114.2, 2078.7, 32.28, 7058),
    ),
)
LLAMA_8B_TP1 = DecodeSet(
    name="Llama-3.1-8B TP 1",
    architecture=LLAMA_8B,
    tensor_parallel_degree=1,
    rows=_rows(
        (8.0, 486.4, 1069.6, 7.32, 389),
        (16.0, 513.3, 1953.6, 7.91, 404),
        (31.9, 559.7, 3391.1, 8.91, 390),
        (63.9, 610.3, 5147.2, 11.50, 396),
        (95.7, 644.0, 6260.1, 14.08, 393),
        (127.6, 669.2, 7036.5, 16.48, 405),
        (191.7, 688.3, 8223.3, 20.91, 397),
        (255.2, 690.5, 9009.6, 26.13, 404),
        (383.0, 686.5, 9248.0, 37.70, 394),
        (510.9, 688.3, 9805.6, 47.41, 397),
        (690.9, 685.1, 9602.8, 62.93, 397),
    ),
)
DECODE_SETS = (LLAMA_70B_TP4, QWEN_32B_TP1, QWEN_32B_TP2, LLAMA_8B_TP1)

DEGREES = (2, 4, 8)

SPLITWISE_PROMPT_SIZES = (128, 256, 512, 1024, 2048, 4096, 8192)
SPLITWISE_PREFILL_SECONDS: dict[int, tuple[float, ...]] = {
    2: (0.0483, 0.0518, 0.0838, 0.1580, 0.3103, 0.6427, 1.3398),
    4: (0.0491, 0.0510, 0.0597, 0.1056, 0.2007, 0.4635, 0.9536),
    8: (0.0582, 0.0517, 0.0539, 0.0779, 0.1368, 0.3903, 0.8449),
}
"""Llama-2-70B on H100, one prompt alone, by prompt tokens as above."""

SPLITWISE_BATCHES = (1, 16, 32, 64)
SPLITWISE_ITL_SECONDS: dict[int, tuple[float, ...]] = {
    2: (0.0371, 0.0420, 0.0523, 0.0423),
    4: (0.0294, 0.0328, 0.0369, 0.0524),
    8: (0.0306, 0.0342, 0.0386, 0.0502),
}
"""Token time of prompts of 512 tokens, by batch. The last at TP 2 is below the one before it, and its prompt
time a seventh of it: not a batch of 64."""

VIDUR_TOKENS = (1, 64, 256, 512, 1024, 2048, 4096)
VIDUR_SECONDS: dict[int, tuple[float, ...]] = {
    2: (0.0255, 0.0269, 0.0326, 0.0567, 0.1152, 0.2191, 0.4370),
    4: (0.0143, 0.0153, 0.0192, 0.0300, 0.0621, 0.1121, 0.2223),
    8: (0.0084, 0.0090, 0.0115, 0.0177, 0.0326, 0.0637, 0.1223),
}
"""Llama-2-70B on H100, 80 layers, by tokens in the step: linear layers, norms and activations only."""
VIDUR_ALL_REDUCE_SECONDS: dict[int, tuple[float, ...]] = {
    2: (0.0018, 0.0069, 0.0069, 0.0074, 0.0118, 0.0218, 0.0392),
    4: (0.0061, 0.0066, 0.0075, 0.0099, 0.0150, 0.0267, 0.0509),
    8: (0.0046, 0.0054, 0.0082, 0.0118, 0.0184, 0.0314, 0.0515),
}
"""Two all-reduces a layer on a DGX H100, by tokens as above."""
