"""replay.report: the JSON has the agreed keys, and null where nothing is known."""

from __future__ import annotations

import json

import pytest
from rich.console import Console

from replay.outcome import RequestResult
from replay.report import duration, reasons, summary, table
from replay.results import Results, Slo
from replay.schedule import ScheduleCounts

KEYS = [
    *("requests", "completed", "shed", "client_cancelled", "broken", "failed", "lost", "retried", "resumed"),
    *("goodput_requests_per_second", "slo_attainment_ratio", "ttft_seconds", "itl_seconds", "e2e_seconds"),
    *("cap_exceeded_seconds", "energy_joules", "sites", "inputs", "load_generator"),
]
INPUTS = {"wind": None, "trace": "t.csv", "engine": "emulated"}
SCHEDULE = ScheduleCounts(seconds=0.5, scheduled=4)


def filled() -> Results:
    results = Results(slo=Slo(prefill_tokens_per_second=1000.0, itl_seconds=0.02))
    for number in range(4):
        results.add(
            RequestResult(
                outcome="completed" if number else "shed",
                reason="" if number else "HTTP 503 no_power",
                wanted_prompt_tokens=100,
                wanted_output_tokens=11,
                e2e_seconds=0.5 + number,
                ttft_seconds=0.1 if number else None,
                prompt_tokens=100,
                output_tokens=11,
                site_id="north",
            )
        )
    results.itl.add(0.02)
    results.duration_seconds = 2.0
    return results


def test_all_agreed_keys_in_order() -> None:
    """Issue 2's list, then what the load generator adds; the whole is JSON."""
    values = summary(filled(), inputs=INPUTS, schedule=SCHEDULE)
    assert list(values) == KEYS
    assert json.loads(json.dumps(values)) == values


def test_goodput_and_attainment() -> None:
    """One of four requests was good, and they were offered in half a second of the run's two."""
    values = summary(filled(), inputs=INPUTS, schedule=SCHEDULE)
    assert values["goodput_requests_per_second"] == 2.0
    assert values["slo_attainment_ratio"] == 0.25 == 2.0 / (values["requests"] / SCHEDULE.seconds)
    assert values["e2e_seconds"] == {"p50": 2.5, "p99": 3.5}
    assert values["ttft_seconds"] == {"p50": 0.1, "p99": 0.1}
    assert values["itl_seconds"]["p50"] == pytest.approx(0.02, rel=0.011)


def test_unknown_is_null() -> None:
    """Without SLO, without requests, without what the caller did not give."""
    values = summary(Results(), inputs=INPUTS, schedule=ScheduleCounts())
    for name in ("retried", "resumed", "cap_exceeded_seconds", "energy_joules"):
        assert values[name] is None
    assert values["goodput_requests_per_second"] is None
    assert values["slo_attainment_ratio"] is None
    assert values["ttft_seconds"] == {"p50": None, "p99": None}
    idle = Results(slo=Slo(prefill_tokens_per_second=1, itl_seconds=1))
    empty = summary(idle, inputs=INPUTS, schedule=ScheduleCounts())
    assert (empty["goodput_requests_per_second"], empty["slo_attainment_ratio"]) == (None, None)


def test_the_callers_figures_are_taken() -> None:
    """Retries, power, energy and sites come from elsewhere."""
    values = summary(
        filled(),
        inputs=INPUTS,
        schedule=SCHEDULE,
        retried=1,
        resumed=2,
        cap_exceeded_seconds=0.0,
        energy_joules=3.6e6,
        sites={"north": {"requests": 4, "energy_joules": 1.0}},
    )
    assert (values["retried"], values["resumed"], values["cap_exceeded_seconds"]) == (1, 2, 0.0)
    assert values["sites"] == {"north": {"requests": 4, "energy_joules": 1.0}}


def test_sites_default_to_what_was_seen() -> None:
    """By the answers' header."""
    assert summary(filled(), inputs=INPUTS, schedule=SCHEDULE)["sites"] == {
        "north": {"requests": 4, "completed": 3, "output_tokens": 33}
    }


def test_the_load_generators_own_figures() -> None:
    """Token sums to hold against the trace, reasons, SLO and what the schedule changed."""
    counts = ScheduleCounts(scheduled=4, prompt_tokens=400, output_tokens=44, shortened=1)
    values = summary(filled(), inputs=INPUTS, schedule=counts)["load_generator"]
    assert (values["prompt_tokens"], values["trace_prompt_tokens"]) == (300, 300)
    assert (values["output_tokens"], values["trace_output_tokens"]) == (33, 33)
    assert values["reasons"] == {"shed: HTTP 503 no_power": 1}
    assert values["slo"]["factor"] == 5.0
    assert values["schedule"]["shortened"] == 1


def test_the_table_shows_it_all() -> None:
    """Every outcome, percentiles with units, and a dash for what is unknown."""
    console = Console(width=100, record=True, file=None, quiet=False)
    with console.capture() as capture:
        console.print(table(summary(filled(), inputs=INPUTS, schedule=SCHEDULE), title="Run"))
    text = capture.get()
    for part in ("completed", "100.0 ms / 100.0 ms", "25.0%", "t.csv", "energy", "–"):
        assert part in text
    for part in ("500.0 ms / 2.00 s", "8.00 requests/s", "16.50 tokens/s"):
        assert part in text


def test_the_most_frequent_reasons_are_told() -> None:
    """Five at most, one line each."""
    results = filled()
    results.reasons.update({f"failed: HTTP 40{digit} x": digit + 2 for digit in range(6)})
    assert reasons(summary(results, inputs=INPUTS, schedule=SCHEDULE)) == [
        f"{digit + 2} × failed: HTTP 40{digit} x" for digit in (5, 4, 3, 2, 1)
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "–"), (0.0004, "400 µs"), (0.0171, "17.1 ms"), (2.314, "2.31 s")],
)
def test_durations(seconds: float | None, text: str) -> None:
    """A unit that suits."""
    assert duration(seconds) == text
