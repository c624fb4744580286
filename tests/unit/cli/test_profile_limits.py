"""What `heron profile run` refuses before it measures."""

from __future__ import annotations

import argparse
from typing import Any

import pytest
from support.measured import document_of, row_of

from cli.profile_limits import check_arguments, check_full_clock, is_here
from cli.profile_run import add_arguments
from fleet.profile import LLAMA_70B_H100_TP4
from fleet.profiles.document import EngineFacts, Row
from replay.profile_sweep import Document, SweepError


def check(*words: str, host: str = "127.0.0.1") -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    check_arguments(parser.parse_args(["--out", "mine.json", *words]), host=host)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--gpus", "0", "--tensor-parallel-degree", "4"], "1 of them, --tensor-parallel-degree is 4"),
        (["--gpus", "0,1,2,3", "--tensor-parallel-degree", "2"], "4 of them, --tensor-parallel-degree is 2"),
        (["--gpus", "0,0,0,0"], "--gpus 0,0,0,0: a GPU is named twice"),
        (["--clocks", "1980,50"], "--clocks: 50: 100 to 20000 are allowed"),
        (["--clocks", "0"], "--clocks: 0"),
        (["--batches", "0"], "--batches: 0: 1 to"),
        (["--batches", "65537"], "--batches: 65537: 1 to 65536"),
        (["--prompts", "0"], "--prompts: 0"),
        (["--output-tokens", "0"], "--output-tokens: 0"),
        (["--max-batched-tokens", "0"], "--max-batched-tokens: 0"),
        (["--seconds", "nan"], "--seconds: nan: above 0"),
        (["--seconds", "0"], "--seconds: 0: above 0"),
    ],
)
def test_arguments_that_no_row_could_hold_or_that_name_other_gpus_are_refused(
    words: list[str], message: str
) -> None:
    """With the argument, its value and what is allowed."""
    with pytest.raises(SweepError, match=message):
        check(*words)


def test_gpus_are_read_for_an_engine_of_this_machine_only() -> None:
    """By an address that can be bound here; without --gpus it may be anywhere."""
    check("--gpus", "0,1", "--tensor-parallel-degree", "2")
    check("--gpus", "0,1")
    check(host="192.0.2.1")
    with pytest.raises(SweepError, match=r"192\.0\.2\.1 is none of its addresses"):
        check("--gpus", "0", host="192.0.2.1")
    assert not is_here("192.0.2.1")
    assert is_here("127.0.0.1")


def at(clock_mhz: int | None) -> Row:
    return row_of(LLAMA_70B_H100_TP4, 1, 512, 1980, clock_mhz=clock_mhz)


@pytest.mark.parametrize(
    ("clocks", "full", "rows", "is_refused"),
    [
        ((1700, 1200), 1980, [], True),
        ((1700, 1200), 1980, [at(1400)], True),
        ((1700, 1200), 1980, [at(1980)], False),
        ((1700, 1200), 1980, [at(None)], False),
        ((1965, 1200), 1980, [], False),
        ((1700, 1200), None, [], False),
        ((), 1980, [], False),
    ],
)
def test_a_sweep_without_the_full_clock_is_refused_before_it_is_measured(
    clocks: tuple[int, ...], full: int | None, rows: list[Any], is_refused: bool
) -> None:
    """No site would take its file; earlier rows at full clock count, and it is said what to add."""
    engine: EngineFacts = document_of([], full_clock_mhz=full).engine
    document = Document(settings={}, provenance={}, rows=rows, engine=engine)
    if not is_refused:
        check_full_clock(clocks, document)
        return
    with pytest.raises(SweepError, match=r"full clock, 1980 MHz.*--clocks 1980,1700,1200"):
        check_full_clock(clocks, document)
