"""A load's requests, told apart more finely than by class."""

from __future__ import annotations

import numpy as np
import pytest
from support.scenes import no_file

from router.policy.planner.problem import CLASSES
from simulator.cell import Cell, Sample
from simulator.inputs import CUTOFFS, read_inputs, works_of
from simulator.kinds import Kinds

LOAD = read_inputs(
    Cell(
        wind="synthetic-far",
        first_day=2,
        last_day=2,
        trace="synthetic-conv",
        load=0.5,
        sample=Sample.parse("30h:3m:1m"),
        policy="heron",
    ),
    no_file,
).load
WORKS, MEAN = works_of(LOAD)
EVERY = {name: WORKS.get(name, MEAN) for name in CLASSES}


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_kinds_divide_each_class_and_leave_nothing_out(parts: int) -> None:
    """Shares sum to one, and means weighted by shares to the classes' means; each keeps its class."""
    kinds = Kinds.of(LOAD, EVERY, parts=parts)
    assert len(kinds.works) == len(kinds.shares) == 9 * parts**2
    assert sum(kinds.shares) == pytest.approx(1.0)
    for name, work in WORKS.items():
        own = [index for index in range(len(kinds.works)) if kinds.class_of(index) == name]
        share = sum(kinds.shares[index] for index in own)
        for axis in ("prompt_tokens", "output_tokens"):
            tokens = sum(kinds.shares[index] * getattr(kinds.works[index], axis) for index in own)
            assert tokens / share == pytest.approx(getattr(work, axis))
    prompt, output, weight = LOAD.rows()
    for kind, one, other in zip(kinds.indexes(prompt, output).tolist(), prompt, output, strict=True):
        assert kinds.class_of(kind) == CUTOFFS.classify(int(one), int(other))
    counted = np.bincount(kinds.indexes(prompt, output), weights=weight, minlength=len(kinds.shares))
    assert counted.tolist() == pytest.approx(list(kinds.shares))


def test_with_one_part_a_kind_is_a_class() -> None:
    """The same means."""
    kinds = Kinds.of(LOAD, EVERY, parts=1)
    for index, name in enumerate(CLASSES):
        assert kinds.works[index].prompt_tokens == pytest.approx(EVERY[name].prompt_tokens)
        assert kinds.works[index].output_tokens == pytest.approx(EVERY[name].output_tokens)


def test_halves_of_a_class_are_about_as_large() -> None:
    """By prompt, whatever their answers; the smaller has the smaller mean."""
    kinds = Kinds.of(LOAD, EVERY, parts=2)
    for first in range(0, len(kinds.works), 4):
        small, large = kinds.shares[first : first + 2], kinds.shares[first + 2 : first + 4]
        if sum(small) + sum(large) < 0.02:
            continue
        assert sum(small) == pytest.approx(sum(large), rel=0.35)
        tokens = [work.prompt_tokens for work in kinds.works[first : first + 4]]
        assert max(tokens[:2]) < min(tokens[2:])
