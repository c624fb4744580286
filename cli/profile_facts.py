"""What an engine and its GPUs say of themselves, for the file that `heron profile run` writes.

Rule: what they do not say, or say in a way that cannot be, is unknown. Nothing is changed on a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from pydantic import ValidationError

from fleet.profiles.document import EngineFacts
from replay.profile_sweep import SweepError
from site_agent.drivers import nvml
from site_agent.drivers.interface import DriverError

CACHE_INFO = "vllm:cache_config_info{"
MAX_LINES = 100_000
"""Of a metrics page."""


def max_model_len(cards: Sequence[Any], model: str) -> int | None:
    """By the entry of `/v1/models`."""
    for card in cards:
        if card.get("id") == model:
            length = card.get("max_model_len")
            return length if isinstance(length, int) and length > 0 else None
    return None


def kv_tokens(page: str) -> int | None:
    """By vLLM's metrics page: the size in tokens, of an older one blocks × tokens a block; of all engines."""
    total = 0
    for line in page.splitlines()[:MAX_LINES]:
        if line.startswith(CACHE_INFO):
            labels = _labels(line[len(CACHE_INFO) :].partition("}")[0])
            found = _count(labels, "kv_cache_size_tokens")
            total += found or _count(labels, "num_gpu_blocks") * _count(labels, "block_size")
    return total or None


def _labels(text: str) -> dict[str, str]:
    pairs = (part.partition("=") for part in text.split(","))
    return {name: value.strip('"') for name, _, value in pairs}


def _count(labels: dict[str, str], name: str) -> int:
    value = labels.get(name, "")
    return int(value) if value.isascii() and value.isdigit() else 0


def engine_facts(
    said: dict[str, Any],
    *,
    gpus: Sequence[int],
    tensor_parallel_degree: int | None,
    library: Any = None,
) -> EngineFacts:
    """All that is known; `library` stands in for `pynvml` in tests.

    Raises:
        SweepError: no NVIDIA driver or no such GPU, or a figure that cannot be.
    """
    gpu_facts: dict[str, Any] = _gpu_facts(gpus, library) if gpus else {}
    degree = tensor_parallel_degree
    if degree is None and gpus:
        degree = len(gpus)
    try:
        return EngineFacts(tensor_parallel_degree=degree, **gpu_facts, **said)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        raise SweepError(f"{fault['loc'][0]} = {fault['input']!r}: {fault['msg']}") from None


def _gpu_facts(gpus: Sequence[int], library: Any) -> dict[str, Any]:
    """The GPUs' name, the highest clock that all of them have, and their power limits together."""
    try:
        nvidia = nvml.load() if library is None else library
    except DriverError as error:
        raise SweepError(str(error)) from None
    try:
        nvidia.nvmlInit()
    except nvidia.NVMLError as error:
        raise SweepError(f"NVML: {error}") from None
    try:
        handles = [nvidia.nvmlDeviceGetHandleByIndex(index) for index in gpus]
        names = sorted({str(nvidia.nvmlDeviceGetName(handle)) for handle in handles})
        if len(names) > 1:
            raise SweepError(f"--gpus: one engine on different GPUs ({', '.join(names)})")
        return {
            "gpu_model": names[0],
            "full_clock_mhz": _highest_clock(nvidia, handles),
            "power_limit_watts": _power_limit(nvidia, handles),
        }
    except nvidia.NVMLError as error:
        raise SweepError(f"NVML: {error}") from None
    except IndexError:
        raise SweepError(f"--gpus {','.join(map(str, gpus))}: there is no such GPU") from None
    finally:
        with suppress(nvidia.NVMLError):
            nvidia.nvmlShutdown()


def _power_limit(nvidia: Any, handles: Sequence[Any]) -> float | None:
    """Watts of all together: what is enforced now, whoever set it."""
    try:
        return float(sum(nvidia.nvmlDeviceGetEnforcedPowerLimit(handle) for handle in handles)) / 1000
    except nvidia.NVMLError:
        return None


def _highest_clock(nvidia: Any, handles: Sequence[Any]) -> int | None:
    try:
        return min(
            int(
                max(
                    nvidia.nvmlDeviceGetSupportedGraphicsClocks(
                        handle, max(nvidia.nvmlDeviceGetSupportedMemoryClocks(handle))
                    )
                )
            )
            for handle in handles
        )
    except (nvidia.NVMLError, ValueError):
        return None  # an old card, or one that keeps its clocks to itself
