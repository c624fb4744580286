"""`heron demo`, scenario by scenario: the zeros that the project promises, and not without a governor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.heron_command import Finished

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

SECONDS = ("--seconds", "24")
EXPECTED_KEYS = {
    *("requests", "completed", "shed", "client_cancelled", "broken", "failed", "lost", "retried", "resumed"),
    *("goodput_requests_per_second", "slo_attainment_ratio", "ttft_seconds", "itl_seconds", "e2e_seconds"),
    *("cap_exceeded_seconds", "energy_joules", "sites", "inputs"),
}


def assert_whole(values: dict[str, Any]) -> None:
    """Every request ended in exactly one way, and router and load generator counted the same."""
    assert values.keys() >= EXPECTED_KEYS
    ended = ("completed", "shed", "client_cancelled", "broken", "failed")
    assert values["requests"] == sum(values[name] for name in ended)
    assert values["requests"] == values["load_generator"]["schedule"]["scheduled"] > 200
    assert {name: values["ledger"][name] for name in ("requests", *ended)} == {
        name: values[name] for name in ("requests", *ended)
    }
    assert (values["lost"], values["problems"], values["other_clients_requests"]) == (0, [], 0)
    assert values["first_answer_seconds"] > 0


def assert_zeros(values: dict[str, Any], *names: str) -> None:
    assert {name: values[name] for name in names} == dict.fromkeys(names, 0), values["load_generator"][
        "reasons"
    ]


def test_calm(demo: Callable[..., Finished]) -> None:
    """With wind all the time every request completes, at every site, and no cap is exceeded."""
    done = demo("--seconds", "10", "--scenario", "calm")
    assert done.code == 0, done.output
    values = done.values()
    assert_whole(values)
    assert_zeros(values, "failed", "shed", "broken", "resumed", "cap_exceeded_seconds")
    assert all(site["completed"] > 0 for site in values["sites"].values())
    assert values["energy_joules"] > 0


def test_workers(demo: Callable[..., Finished]) -> None:
    """Four workers count as one router does, and send no site more than it has room for."""
    done = demo("--seconds", "12", "--scenario", "calm", "--workers", "4")
    assert done.code == 0, done.output
    values = done.values()
    assert_whole(values)
    assert_zeros(values, "failed", "shed", "broken", "resumed", "cap_exceeded_seconds")
    assert values["pushbacks"]["steady_ratio"] <= 0.01


def test_sudden_drop(demo: Callable[..., Finished]) -> None:
    """One site loses its wind: its streams go on elsewhere, nothing is refused, its cap holds."""
    done = demo(*SECONDS, "--scenario", "sudden-drop")
    assert done.code == 0, done.output
    values = done.values()
    assert_whole(values)
    assert_zeros(values, "failed", "shed", "broken", "cap_exceeded_seconds")
    assert values["resumed"] > 0
    assert values["sites"]["coast"]["episodes"] >= 1


def test_sudden_drop_with_many_workers(demo: Callable[..., Finished]) -> None:
    """Eight views of the fleet, each a little old: nothing breaks, at most one pushback per request.

    On a machine too busy to look once a second there is no figure.
    """
    done = demo(*SECONDS, "--scenario", "sudden-drop", "--workers", "8")
    assert done.code == 0, done.output
    values = done.values()
    assert_whole(values)
    assert_zeros(values, "failed", "shed", "broken", "cap_exceeded_seconds")
    assert (values["pushbacks"]["worst_second_after_fall_ratio"] or 0.0) <= 1.0


def test_site_crash(demo: Callable[..., Finished]) -> None:
    """An agent is killed and takes its engines with it: its streams go on elsewhere, and it comes back."""
    done = demo(*SECONDS, "--scenario", "site-crash")
    assert done.code == 0, done.output
    values = done.values()
    assert_whole(values)
    assert_zeros(values, "failed", "shed", "broken", "cap_exceeded_seconds")
    assert values["resumed"] > 0
    assert values["sites"]["coast"]["unobserved_seconds"] > 4


def test_all_dark(demo: Callable[..., Finished]) -> None:
    """Every site loses its wind: caps hold, work waits or ends with a stated error, nothing is lost."""
    done = demo(*SECONDS, "--scenario", "all-dark")
    assert done.code == 0, done.output
    values = done.values()
    assert_whole(values)
    assert_zeros(values, "failed", "cap_exceeded_seconds")
    assert values["completed"] > values["requests"] / 2


def test_without_a_governor_the_cap_is_exceeded(demo: Callable[..., Finished]) -> None:
    """The judge sees what a governor prevents: with it off, the site stays above its fallen cap."""
    done = demo(*SECONDS, "--scenario", "sudden-drop", HERON_SITE_GOVERNOR__ENABLED="false")
    values = done.values()
    assert values["cap_exceeded_seconds"] > 1
    assert values["sites"]["coast"]["cap_exceeded_seconds"] == values["cap_exceeded_seconds"]


def test_synthetic_wind_and_trace_say_that_they_are(demo: Callable[..., Finished]) -> None:
    """Without files every output says that wind and trace are synthetic; firm power is named as assumed."""
    done = demo("--seconds", "3", "--rate", "5")
    assert done.code == 0, done.output
    inputs = done.values()["inputs"]
    assert inputs["wind"].startswith("synthetic wind")
    assert inputs["trace"].startswith("synthetic trace")
    assert "synthetic wind" in done.output
    assert "firm power: the demo's assumption" in done.output


def test_a_trace_and_a_wind_file_run_to_the_end_of_the_trace(
    demo: Callable[..., Finished], tmp_path: Path
) -> None:
    """Every row of the trace is sent and answered with its own number of tokens; a broken row is reported."""
    trace, wind = tmp_path / "my trace.csv", tmp_path / "my wind.csv"
    rows = [(index, 20 + index, 5 + index % 40) for index in range(100)]
    lines = [
        f"2023-11-16 18:17:{index // 10:02d}.{index % 10}000000,{prompt},{output}"
        for index, prompt, output in rows
    ]
    lines.insert(50, "no row at all")
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + "\n".join(lines) + "\n")
    steps = "".join(f"{900 * step},0.6{step % 7},0.5{step % 5},0.0\n" for step in range(200))
    wind.write_text("time,hill,shore,hollow\n" + steps)
    done = demo("--trace", str(trace), "--wind", str(wind), "--wind-speed", "900")
    assert done.code == 0, done.output
    values = done.values()
    generator = values["load_generator"]
    assert (values["requests"], values["completed"], values["cap_exceeded_seconds"]) == (100, 100, 0)
    assert generator["prompt_tokens"] == sum(prompt for _, prompt, _ in rows)
    assert generator["output_tokens"] == sum(output for _, _, output in rows)
    assert any("line 52" in fault for fault in generator["trace_faults"])
    assert values["inputs"]["trace"] == "my trace.csv"
    assert values["inputs"]["wind"].startswith("my wind.csv (north = hill, coast = shore, ridge = hollow)")
    assert values["sites"]["ridge"]["requests"] == 0
