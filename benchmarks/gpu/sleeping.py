"""vLLM's sleep mode on a real GPU: memory and watts before, asleep and awake again, and how long each takes.

The engine must be started with `--enable-sleep-mode` and `VLLM_SERVER_DEV_MODE=1`.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

import httpx

from benchmarks.gpu.meter import GpuMeter, Reading

TIMEOUT_SECONDS = 120.0
SETTLE_SECONDS = 2.0
WATTS_SECONDS = 5.0
PROMPT = {"prompt": "The wind", "max_tokens": 16, "temperature": 0.0, "ignore_eos": True}


def sleeps(url: str, model: str, meter: GpuMeter) -> dict[str, Any]:
    """Level 1 (weights in the host's memory) twice, then level 2 (weights dropped) and what is left after it.

    An answer before and after each level-1 sleep must be the same; after level 2 the weights are gone, and
    vLLM has to load them again (`/collective_rpc` with `reload_weights`).
    """
    with httpx.Client(base_url=url, timeout=TIMEOUT_SECONDS, trust_env=False) as client:
        before = _answer(client, model)
        rounds = [_round(client, model, meter, level=1) for _ in range(2)]
        deep = _round(client, model, meter, level=2)
    return {
        "rounds": rounds,
        "level_2": deep,
        "same_answer": [one["answer"] == before for one in rounds],
        "same_answer_after_reload": deep["answer"] == before,
    }


def _round(client: httpx.Client, model: str, meter: GpuMeter, *, level: int) -> dict[str, Any]:
    awake = _settled(meter)
    sleep_seconds = _post(client, f"/sleep?level={level}")
    asleep = _settled(meter)
    if level == 1:
        wake_seconds = _post(client, "/wake_up")
    else:
        began = time.monotonic()
        _post(client, "/wake_up?tags=weights")
        client.post("/collective_rpc", json={"method": "reload_weights"}).raise_for_status()
        _post(client, "/wake_up?tags=kv_cache")
        wake_seconds = time.monotonic() - began
    began = time.monotonic()
    answer = _answer(client, model)
    return {
        "level": level,
        "awake": awake,
        "sleep_seconds": sleep_seconds,
        "asleep": asleep,
        "wake_seconds": wake_seconds,
        "first_answer_seconds": time.monotonic() - began,
        "awake_again": _settled(meter),
        "answer": answer,
    }


def _settled(meter: GpuMeter) -> dict[str, Any]:
    time.sleep(SETTLE_SECONDS)
    watts = meter.mean_watts(WATTS_SECONDS)
    reading: Reading = meter.read()
    return {**asdict(reading), "mean_watts": watts}


def _post(client: httpx.Client, path: str) -> float:
    began = time.monotonic()
    client.post(path).raise_for_status()
    return time.monotonic() - began


def _answer(client: httpx.Client, model: str) -> str:
    answer = client.post("/v1/completions", json={"model": model, **PROMPT})
    answer.raise_for_status()
    return str(answer.json()["choices"][0]["text"])
