"""Reads the official files that the profile's figures were taken from: ML.ENERGY, Splitwise, vidur.

Rule: a file that is absent or of another shape is an error that names it; nothing is left out in silence.
"""

from __future__ import annotations

import csv
import json
import statistics
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fleet.config import ConfigError
from fleet.profiles import figures
from fleet.profiles.check import SHIPPED, BySize, PublishedFigures
from fleet.profiles.figures import DecodeFigure, DecodeSet

ML_ENERGY_FILES: Mapping[str, tuple[str, str]] = {
    figures.LLAMA_70B_TP4.name: (
        "mlenergy_v3_meta-llama__Llama-3.1-70B-Instruct__lm-arena-chat.json",
        "meta-llama/Llama-3.1-70B-Instruct",
    ),
    figures.QWEN_32B_TP1.name: ("mlenergy_v3_Qwen__Qwen3-32B__lm-arena-chat.json", "Qwen/Qwen3-32B"),
    figures.QWEN_32B_TP2.name: ("mlenergy_v3_Qwen__Qwen3-32B__lm-arena-chat.json", "Qwen/Qwen3-32B"),
    figures.LLAMA_8B_TP1.name: (
        "mlenergy_v3_meta-llama__Llama-3.1-8B-Instruct__lm-arena-chat.json",
        "meta-llama/Llama-3.1-8B-Instruct",
    ),
    figures.QWEN_32B_TP2_LONG.name: ("mlenergy_v3_gpqa.json", "Qwen/Qwen3-32B"),
}
SPLITWISE_FILE = "splitwise_perf_model.csv"
VIDUR_FILE = "vidur_h100_meta-llama_Llama-2-70b-hf_mlp.csv"
VIDUR_ALL_REDUCE_FILE = "vidur_h100_dgx_all_reduce.csv"
_LAYERS = 80
_ALL_REDUCES_PER_STEP = 2 * _LAYERS
_BYTES_PER_TOKEN = 8192 * 2


class ProfileFileError(ConfigError):
    """A file that is missing or is not what its name says; the command line prints it and exits 2."""


def read_published(directory: Path) -> PublishedFigures:
    """All figures from the files in `directory` or below it.

    Raises:
        ProfileFileError: a file is absent, or has not the fields that it should have.
    """
    return PublishedFigures(
        decode_sets=tuple(_decode_set(directory, one) for one in SHIPPED.decode_sets),
        splitwise_prefill_seconds=_splitwise(directory, "prompt_time", SHIPPED.splitwise_prefill_seconds),
        splitwise_itl_seconds=_splitwise(directory, "token_time", SHIPPED.splitwise_itl_seconds),
        vidur_step_seconds=_vidur(directory),
    )


def _find(directory: Path, name: str) -> Path:
    found = sorted(directory.rglob(name)) if directory.is_dir() else []
    if not found:
        raise ProfileFileError(f"{directory}: no {name} in it; `heron data list` says where it comes from")
    return found[0]


def _decode_set(directory: Path, shipped: DecodeSet) -> DecodeSet:
    name, model = ML_ENERGY_FILES[shipped.name]
    path = _find(directory, name)
    try:
        document: dict[str, Any] = json.loads(path.read_bytes())
        rows = [
            DecodeFigure(
                batch=float(one["avg_batch_size"]),
                watts=float(one["avg_power_watts"]),
                tokens_per_second=float(one["output_throughput_tokens_per_sec"]),
                itl_seconds=float(one["median_itl_ms"]) / 1000,
                output_tokens=float(one["avg_output_len"]),
            )
            for one in document["configurations"]
            if one["gpu_model"] == "H100"
            and one["num_gpus"] == shipped.tensor_parallel_degree
            and (one.get("model_id") or document.get("model_id")) == model
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise ProfileFileError(f"{path}: not a file of the ML.ENERGY leaderboard, v3: {error!r}") from error
    if not rows:
        raise ProfileFileError(f"{path}: no row of {model} on {shipped.tensor_parallel_degree} H100")
    return replace(shipped, rows=tuple(sorted(rows, key=lambda row: row.batch)))


def _splitwise(directory: Path, column: str, wanted: BySize) -> BySize:
    """Medians over repetitions: prompt time by prompt size at batch 1, token time by batch at 512 tokens."""
    path = _find(directory, SPLITWISE_FILE)
    seconds: dict[tuple[int, int], list[float]] = defaultdict(list)
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines):
                if row["model"] != "llama2-70b" or row["hardware"] != "h100-80gb":
                    continue
                prompt, batch = int(row["prompt_size"]), int(row["batch_size"])
                size = prompt if column == "prompt_time" else batch
                if (batch if column == "prompt_time" else prompt) == (1 if column == "prompt_time" else 512):
                    seconds[int(row["tensor_parallel"]), size].append(float(row[column]) / 1000)
        return {
            degree: {size: statistics.median(seconds[degree, size]) for size in sizes}
            for degree, sizes in wanted.items()
        }
    except (ValueError, KeyError, statistics.StatisticsError) as error:
        raise ProfileFileError(f"{path}: not Splitwise's perf_model.csv: {error!r}") from error


def _vidur(directory: Path) -> BySize:
    """Medians of a layer's operators × layers, and of the nearest all-reduce × 2 × layers."""
    path, reduce_path = _find(directory, VIDUR_FILE), _find(directory, VIDUR_ALL_REDUCE_FILE)
    linear: dict[tuple[int, int], list[float]] = defaultdict(list)
    reduces: dict[tuple[int, int], list[float]] = defaultdict(list)
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines):
                medians = [name for name in row if name.endswith(".median") and ".emb." not in name]
                milliseconds = sum(float(row[name] or 0) for name in medians)
                key = int(row["num_tensor_parallel_workers"]), int(row["num_tokens"])
                linear[key].append(milliseconds / 1000 * _LAYERS)
        with reduce_path.open(encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines):
                key = int(row["num_workers"]), int(row["size"])
                milliseconds = float(row["time_stats.all_reduce.median"])
                reduces[key].append(milliseconds / 1000 * _ALL_REDUCES_PER_STEP)
        return {
            degree: {
                tokens: statistics.mean(linear[degree, tokens]) + _nearest(reduces, degree, tokens)
                for tokens in sizes
            }
            for degree, sizes in SHIPPED.vidur_step_seconds.items()
        }
    except (ValueError, KeyError, statistics.StatisticsError) as error:
        raise ProfileFileError(f"{path}, {reduce_path}: not vidur's profiles: {error!r}") from error


def _nearest(reduces: Mapping[tuple[int, int], list[float]], degree: int, tokens: int) -> float:
    size = min(
        (size for workers, size in reduces if workers == degree),
        key=lambda one: (abs(one - tokens * _BYTES_PER_TOKEN), one),
    )
    return statistics.mean(reduces[degree, size])
