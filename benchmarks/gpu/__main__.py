"""Runs on a machine with one free GPU and vLLM's GPU build; changes nothing on the GPU.

python -m benchmarks.gpu all --vllm PATH --model DIRECTORY --out DIRECTORY [--batches 1,8,64 --seconds 5]

Steps: `start` (one engine, how long it takes, watts without, empty), `profile` (`heron profile run` and
`check`), `sleep` (memory, watts, times), `govern` (a fleet whose wind falls, judged by the GPU's own meter;
needs the profile). `model.py` makes the model.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from benchmarks.gpu.governed import ROOT, govern
from benchmarks.gpu.meter import GpuMeter
from benchmarks.gpu.sleeping import sleeps
from cli.ports import free_ports

MODEL = "llama-8b-shape"
START_SECONDS = 300.0
ARGUMENTS = (
    "--max-model-len",
    "8192",
    "--max-num-seqs",
    "256",
    "--enable-sleep-mode",
    "--disable-uvicorn-access-log",
)


def main() -> int:
    """Every result goes into a file as soon as it is there; a step that fails says why there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("steps", choices=("all", "engine", "govern"))
    parser.add_argument("--vllm", required=True, help="the command of vLLM's GPU build")
    parser.add_argument("--model", type=Path, required=True, help="what model.py made")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--batches", default="1,2,4,8,16,32,64,128,256")
    parser.add_argument("--prompts", default="256,1024")
    parser.add_argument("--seconds", default="5")
    parser.add_argument("--profile", type=Path, help="of an earlier run, for `govern`")
    parser.add_argument("--govern-seconds", type=float, default=300.0)
    parser.add_argument("--rate", type=float, default=25.0, help="requests per second of `govern`")
    parser.add_argument("--engine-arguments", default="", help="further ones of `govern`'s engine")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {}
    meter = GpuMeter()
    results["gpu"] = {"name": meter.name, "driver": meter.driver, "instant_power": meter.has_instant_power}

    def keep(name: str, step: Any) -> None:
        began = time.monotonic()
        try:
            results[name] = step()
        except Exception as error:  # noqa: BLE001 - a lease is short: the next step may still work
            traceback.print_exc()
            results[name] = {"failed": repr(error)}
        print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
        (options.out / f"results-{options.steps}.json").write_text(json.dumps(results, indent=1) + "\n")

    profile = options.out / "llama-8b-h100.json"
    if options.steps in ("all", "engine"):
        keep("watts_without_engine", lambda: meter.mean_watts(5))
        began = time.monotonic()
        with _engine(options, meter) as url:
            results["start_seconds"] = time.monotonic() - began
            keep("profile", lambda: _profile(options, url, profile))
            keep("sleep", lambda: sleeps(url, MODEL, meter))
        keep("watts_after_engine", lambda: meter.mean_watts(5))
    if options.steps in ("all", "govern"):
        keep(
            "govern",
            lambda: govern(
                options.out,
                command=options.vllm,
                model_path=options.model,
                profile=options.profile or profile,
                meter=meter,
                seconds=options.govern_seconds,
                requests_per_second=options.rate,
                arguments=options.engine_arguments.split(),
            ),
        )
    failed = [name for name, value in results.items() if isinstance(value, dict) and "failed" in value]
    print(f"failed: {failed}" if failed else "all steps done")
    return 1 if failed else 0


@contextmanager
def _engine(options: argparse.Namespace, meter: GpuMeter) -> Iterator[str]:
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    command = [options.vllm, "serve", str(options.model), "--port", str(port), "--served-model-name", MODEL]
    environment = os.environ | {
        "VLLM_SERVER_DEV_MODE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    with (options.out / "engine.log").open("wb") as log:
        engine = subprocess.Popen(
            [*command, *ARGUMENTS], stdout=log, stderr=log, env=environment, start_new_session=True
        )
    try:
        _wait(engine, url)
        yield url
    finally:
        os.killpg(engine.pid, signal.SIGTERM)
        began = time.monotonic()
        try:
            engine.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(engine.pid, signal.SIGKILL)
            engine.wait()
        print(f"engine gone after {time.monotonic() - began:.1f} s, {meter.read()}", flush=True)


def _wait(engine: subprocess.Popen[bytes], url: str) -> None:
    give_up_at = time.monotonic() + START_SECONDS
    while time.monotonic() < give_up_at:
        if engine.poll() is not None:
            raise RuntimeError(f"the engine ended with status {engine.returncode}: see engine.log")
        try:
            if httpx.get(f"{url}/health", timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.25)
    raise RuntimeError(f"no engine after {START_SECONDS:.0f} s: see engine.log")


def _profile(options: argparse.Namespace, url: str, out: Path) -> dict[str, Any]:
    run = _heron(
        *("profile", "run", "--url", url, "--out", str(out), "--gpus", "0", "--batches", options.batches),
        *("--prompts", options.prompts, "--seconds", options.seconds, "--vocabulary-size", "2048"),
        *("--output-tokens", "256"),
    )
    check = _heron("profile", "check", str(out))
    return {"run": run, "check": check}


def _heron(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    print(done.stdout, done.stderr, flush=True)
    if done.returncode != 0:
        raise RuntimeError(f"heron {' '.join(arguments)}: status {done.returncode}: {done.stderr[-1000:]}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
