"""Where requests are lost, by kept results and by a block of its own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from support.scenes import no_file

from benchmarks.experiments.document import fill
from benchmarks.experiments.late import counts_of
from benchmarks.experiments.losses import table
from simulator.cell import Cell, Sample
from simulator.inputs import blocks_of, read_inputs, scene
from simulator.request import Outcome
from simulator.world import simulate


def row(policy: str, **changes: Any) -> dict[str, Any]:
    every = {
        "seconds": 600.0,
        "offered": 1000,
        "good": 800,
        "shed": 100,
        "broken": 10,
        "served": 890,
        "ttft_in_time_ratio": 0.85,
    }
    short = {"seconds": 300.0, "offered": 400, "good": 250}
    return {"week": "w", "load": 0.5, "policy": policy, "all": every | changes, "power_short": short}


def test_what_is_lost_adds_up_over_seeds() -> None:
    """Refused, first token late, the rest late and broken are all that is not within the SLO."""
    lines = table([row("heron"), row("heron", good=820), row("round_robin")]).splitlines()
    assert len(lines) == 3, "of two policies only"
    cells = [cell.strip() for cell in lines[2].strip("|").split("|")]
    assert cells == ["w", "0.5", "`heron`", "81.0%", "10.0%", "4.0%", "4.0%", "1.0%", "50%", "79%"]


def test_nothing_offered_is_no_share() -> None:
    """A dash for each."""
    empty = dict.fromkeys(("seconds", "offered", "good", "shed", "broken", "served", "ttft_in_time_ratio"), 0)
    nothing = {"week": "w", "load": 0.5, "policy": "heron", "all": empty, "power_short": empty}
    assert table([nothing]).splitlines()[2].count("–") == 7


def test_the_document_takes_them_from_the_paper_tables_file(tmp_path: Path) -> None:
    """Beside its summary."""
    document = tmp_path / "results.md"
    document.write_text("<!-- losses: one -->\nold\n<!-- end -->\n<!-- results: one -->\nold\n<!-- end -->\n")
    (tmp_path / "one.json").write_text(json.dumps({"summary": "new", "rows": [row("heron")]}))
    assert fill(tmp_path, document) == ["one", "one"]
    text = document.read_text()
    assert text.startswith("<!-- losses: one -->\n| week |")
    assert "old" not in text
    assert text.endswith("<!-- results: one -->\nnew\n<!-- end -->\n")


def test_late_answers_are_counted_by_their_classes_limit() -> None:
    """Against the record itself."""
    cell = Cell(
        wind="synthetic-far",
        first_day=4,
        last_day=4,
        trace="synthetic-conv",
        load=0.4,
        sample=Sample.parse("1d:150s:90s"),
        site_count=2,
    )

    inputs = read_inputs(cell, no_file)
    block = simulate(scene(inputs, *blocks_of(cell)[0]))
    every, late, long = counts_of(inputs, block)
    record = block.record
    counted = (record.arrived_at >= 90) & (record.arrived_at < 150) & (record.outcome >= 0)
    assert every == np.count_nonzero(counted)
    served = np.count_nonzero(counted & (record.outcome == Outcome.SERVED))
    assert 0 <= long <= late <= served
    tight = {name: replace(slo, e2e_seconds=0.0) for name, slo in inputs.class_slos.items()}
    assert counts_of(replace(inputs, class_slos=tight), block)[1] > late
