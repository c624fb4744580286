"""Runs one cell from its files to its summary. What the worker processes of a batch call."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from simulator.cell import Cell
from simulator.inputs import blocks_of, read_inputs, scene
from simulator.power_short import short_minutes
from simulator.summary import Summary
from simulator.world import simulate

Resolve = Callable[[str], Path]
KIBIBYTE = 1024


def run_cell(
    cell: Cell, resolve: Resolve, on_block: Callable[[int, int], object] = lambda _done, _total: None
) -> dict[str, Any]:
    """The cell's result; `on_block(done, total)` after each block.

    Everything under `result` depends on cell and code alone; `cost` says what the run took here.
    """
    began, cpu = time.perf_counter(), time.process_time()
    inputs = read_inputs(cell, resolve)
    read_seconds = time.process_time() - cpu
    summary = Summary(inputs.class_slos)
    blocks = blocks_of(cell)
    for index, (start, seconds, warm_up) in enumerate(blocks):
        one = scene(inputs, start, seconds, warm_up)
        summary.take(simulate(one), short_minutes(inputs, one, start))
        on_block(index + 1, len(blocks))
    result = summary.as_dict()
    result["load"] = {
        "description": inputs.load.description,
        "peak_requests_per_second": inputs.peak_requests_per_second,
        "mean_requests_per_second": inputs.scale * inputs.load.mean_rate,
        "mean_prompt_tokens": inputs.work.prompt_tokens,
        "mean_output_tokens": inputs.work.output_tokens,
        "slo": {
            name: {"ttft_seconds": slo.ttft_seconds, "e2e_seconds": slo.e2e_seconds}
            for name, slo in inputs.class_slos.items()
        },
        "nameplate_watts": inputs.nameplate_watts,
    }
    wall, used = time.perf_counter() - began, time.process_time() - cpu
    return {
        "cell": cell.as_dict(),
        "result": result,
        "cost": {
            "wall_seconds": round(wall, 3),
            "cpu_seconds": round(used, 3),
            "read_seconds": round(read_seconds, 3),
            "requests_per_cpu_second": round(result["simulated_requests"] / max(1e-9, used - read_seconds)),
            "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIBIBYTE,
        },
    }
