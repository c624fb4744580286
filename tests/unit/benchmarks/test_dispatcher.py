"""The dispatcher that sees every queue: it loses nobody, and uses what it sees."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from support.scenes import no_file

from benchmarks.experiments.dispatcher import Dispatcher
from simulator.cell import Cell, Sample
from simulator.inputs import Inputs, read_inputs, scenes
from simulator.workload import Arrivals
from simulator.world import Scene


def inputs_of(**changes: object) -> Inputs:
    cell = Cell(
        wind="synthetic-far",
        first_day=2,
        last_day=2,
        trace="synthetic-conv",
        load=0.3,
        sample=Sample.parse("30h:3m:1m"),
        policy="heron",
        constant_power=True,
    )
    return read_inputs(cell.with_(**changes), no_file)


def with_requests(scene: Scene, requests: list[tuple[float, int, int]]) -> Scene:
    """The block with these: (at, prompt, output)."""
    at, prompt, output = zip(*requests, strict=True)
    arrivals = Arrivals(
        at_seconds=np.array(at),
        prompt_tokens=np.array(prompt, dtype=np.int64),
        output_tokens=np.array(output, dtype=np.int64),
    )
    return replace(scene, arrivals=arrivals)


def run(inputs: Inputs, scene: Scene, *, refuses: bool) -> tuple[int, int]:
    dispatcher = Dispatcher(inputs, refuses=refuses)
    dispatcher.run(scene)
    return dispatcher.good, dispatcher.offered


def test_with_room_for_all_every_request_is_in_time_and_counted_once() -> None:
    """Of the block's counted seconds only."""
    inputs = inputs_of(load=0.1)
    scene = next(scenes(inputs))
    at = scene.arrivals.at_seconds
    counted = int(((at >= scene.warm_up_seconds) & (at < scene.seconds)).sum())
    for refuses in (False, True):
        good, offered = run(inputs, scene, refuses=refuses)
        assert offered == counted
        assert 0.98 * counted <= good <= counted


def test_requests_of_one_moment_go_to_different_engines() -> None:
    """As many long prompts as there are engines, each in time alone; one more waits too long."""
    inputs = inputs_of(site_count=2, round_trip_seconds=0.01)
    scene = next(scenes(inputs))
    engines = sum(site.instances for site in inputs.sites)
    start = float(scene.warm_up_seconds)
    assert run(inputs, with_requests(scene, [(start, 6000, 2)] * engines), refuses=False) == (
        engines,
        engines,
    )
    crowd = with_requests(scene, [(start, 6000, 2)] * (20 * engines))
    good, offered = run(inputs, crowd, refuses=False)
    assert offered == 20 * engines
    assert good < offered


def test_refusing_keeps_what_it_takes_in_time() -> None:
    """Of far too many at once it takes those that can be served; who refuses nobody ends with no more."""
    inputs = inputs_of(site_count=2)
    scene = next(scenes(inputs))
    start = float(scene.warm_up_seconds)
    crowd = with_requests(scene, [(start + index / 200, 2500, 40) for index in range(600)])
    kept, offered = run(inputs, crowd, refuses=True)
    assert offered == 600
    assert 0 < kept < offered
    assert kept > 2 * run(inputs, crowd, refuses=False)[0]
