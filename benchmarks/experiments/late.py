"""`python -m benchmarks.experiments.late [--data FOLDER]`: of the quick form's answers that come late though
their first token was in time, how many are longer than their class's mean, by which the SLO is made.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np

from benchmarks.experiments.setting import Setting
from router.policy.planner.problem import CLASSES
from simulator.inputs import Inputs, blocks_of, class_indexes, read_inputs, scene, works_of
from simulator.request import Outcome
from simulator.world import Block, simulate


def counts_of(inputs: Inputs, block: Block) -> tuple[int, int, int]:
    """(counted requests, late ones of which the first token was in time, those of them that are long)."""
    given, record, arrivals = block.scene, block.record, block.scene.arrivals
    counted = (record.arrived_at >= given.warm_up_seconds) & (record.arrived_at < given.seconds)
    counted &= record.outcome >= 0
    classes = class_indexes(arrivals.prompt_tokens, arrivals.output_tokens)
    works, _ = works_of(inputs.load)
    late = long = 0
    for name, slo in inputs.class_slos.items():
        one = counted & (classes == CLASSES.index(name)) & (record.outcome == Outcome.SERVED)
        one &= (record.ttft_seconds <= slo.ttft_seconds) & (record.e2e_seconds > slo.e2e_seconds)
        late += int(np.count_nonzero(one))
        long += int(np.count_nonzero(one & (arrivals.output_tokens > works[name].output_tokens)))
    return int(np.count_nonzero(counted)), late, long


def main() -> None:
    """Both weeks at the lower load, not kept."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.experiments.late", description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("HERON_OFFICIAL_DATA"))
    setting = Setting.make(size="quick", jobs=1, data=parser.parse_args().data)
    for week in setting.weeks:
        inputs = read_inputs(setting.cell(week, "heron", setting.loads[0], 1), setting.resolve())
        blocks = [simulate(scene(inputs, *block)) for block in blocks_of(inputs.cell)]
        every, late, long = np.sum([counts_of(inputs, block) for block in blocks], axis=0).tolist()
        print(
            f"{week[1]}, load {setting.loads[0]:g}: {every:,} requests, {late:,} late, {long:,} of them long"
        )


if __name__ == "__main__":
    main()
