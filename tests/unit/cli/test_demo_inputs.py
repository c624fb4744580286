"""The demo's arguments: what they become, and how each mistake is refused before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli import demo_inputs, main
from cli.demo_config import SITES
from fleet.config import ConfigError
from replay.runner import ReplayPlan

WIND = "time,a,b,c,d\n" + "".join(f"{900 * step},0.5,0.4,0.3,{step / 10}\n" for step in range(5))


def options(tmp_path: Path, *arguments: str) -> demo_inputs.DemoOptions:
    return demo_inputs.demo_options(main.parse(["demo", *arguments]), tmp_path)


@pytest.fixture
def wind_file(tmp_path: Path) -> Path:
    path = tmp_path / "my wind.csv"
    path.write_text(WIND)
    return path


def test_defaults_are_synthetic_and_say_so(tmp_path: Path) -> None:
    """Without a file the wind is generated, a minute of it a second, and is called synthetic."""
    made = options(tmp_path)
    assert (made.seconds, made.wind_speed) == (60.0, 60.0)
    assert demo_inputs.describe_wind(made).startswith("synthetic wind")
    assert demo_inputs.describe_engine(made).startswith("emulated: 3 sites × 3 engines")
    assert len(set(made.ports)) == len(made.ports)


@pytest.mark.parametrize(
    ("arguments", "speed"),
    [
        ([], 60.0),
        (["--speed", "2"], 120.0),
        (["--wind-speed", "5"], 5.0),
        (["--speed", "2", "--wind-speed", "5"], 5.0),
        (["--wind", "FILE"], 1.0),
        (["--wind", "FILE", "--speed", "3"], 3.0),
        (["--wind", "FILE", "--speed", "3", "--wind-speed", "60"], 60.0),
    ],
)
def test_speed_is_trace_and_wind_alike_and_wind_speed_the_winds_alone(
    arguments: list[str], speed: float
) -> None:
    """`--speed` moves both, `--wind-speed` overrides it for the wind, generated wind is 60 times faster."""
    assert demo_inputs.wind_speed(main.parse(["demo", *arguments])) == speed


def test_wind_columns_are_mapped_in_order(tmp_path: Path, wind_file: Path) -> None:
    """The file's first columns blow at the sites in their order, and the description says which where."""
    made = options(tmp_path, "--wind", str(wind_file))
    assert made.wind is not None
    assert made.wind.columns == {"north": "a", "coast": "b", "ridge": "c"}
    assert demo_inputs.describe_wind(made) == "my wind.csv (north = a, coast = b, ridge = c) at speed 1"


def test_a_scenario_over_a_file_names_both(tmp_path: Path, wind_file: Path) -> None:
    """Scenario and file together are described together."""
    text = demo_inputs.describe_wind(options(tmp_path, "--wind", str(wind_file), "--scenario", "all-dark"))
    assert text.startswith("scenario all-dark")
    assert "over my wind.csv" in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("time,a,b\n0,0.1,0.2\n900,0.1,0.2\n", r"has 2 columns of wind \(a, b\); the demo's 3 sites"),
        ('{"a": 1}', "JSON, not CSV"),
        ("", "empty"),
        (None, "no such file"),
    ],
)
def test_a_wind_file_that_does_not_fit_is_refused(tmp_path: Path, content: str | None, message: str) -> None:
    """Too few columns, another kind of file, no file: each is said, with what was expected."""
    path = tmp_path / "wind.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        options(tmp_path, "--wind", str(path))


def test_a_scenario_needs_to_know_how_long_a_trace_runs(tmp_path: Path) -> None:
    """A third of a run whose end is not known cannot be found."""
    with pytest.raises(ConfigError, match="needs --seconds"):
        options(tmp_path, "--trace", "trace.csv", "--scenario", "sudden-drop")


def test_vllm_that_is_not_there_is_refused_with_what_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the command looked for, the extra, and the script that installs the CPU build."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        ConfigError, match=r"no command 'vllm'(?s:.*)pip install '\.\[vllm\]'(?s:.*)scripts/vllm-env"
    ):
        options(tmp_path, "--engine", "vllm")


def test_vllm_takes_its_command_and_model_from_the_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command with words, a model directory and a number of GPUs arrive as given."""
    command = tmp_path / "my vllm"
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    made = options(
        tmp_path,
        *("--engine", "vllm", "--vllm-command", f"'{command}' --verbose"),
        *("--vllm-model", "/models/x", "--vllm-gpus", "2"),
    )
    assert made.vllm is not None
    assert made.vllm.command == (str(command), "--verbose")
    assert (made.vllm.model_path, made.vllm.gpus_per_instance) == ("/models/x", 2)
    assert made.sites == SITES["vllm"]


def plan_of(*arguments: str) -> tuple[str, ReplayPlan, int]:
    with demo_inputs.open_traffic(main.parse(["demo", *arguments])) as (load, plan):
        return load.description, plan, sum(1 for _ in load.requests)


def test_synthetic_traffic_is_bounded_and_named() -> None:
    """The default load: thousands of requests in 60 s, called synthetic, every answer verified."""
    description, plan, count = plan_of()
    assert description.startswith("synthetic trace")
    assert 2000 < count < 3000
    assert plan.is_verifying
    assert plan.slo is not None


def test_the_load_fits_two_of_the_three_sites() -> None:
    """At most 60 % of what two sites decode and prefill: the sudden drop of one is no overload."""
    shape = demo_inputs.LOADS["emulated"]
    profile = demo_inputs.PROFILE
    engines = 2 * demo_inputs.INSTANCES["emulated"]
    decode = 16 / profile.itl_seconds(16, profile.full_clock_mhz) * engines
    prefill = profile.prefill_tokens_per_second * engines
    share = shape.requests_per_second * (
        shape.mean_output_tokens / decode + shape.mean_prompt_tokens / prefill
    )
    assert share <= 0.6


def test_a_trace_runs_to_its_end_unless_told_otherwise(tmp_path: Path) -> None:
    """All rows of a trace are sent at `--speed`; `--seconds` cuts it."""
    trace = tmp_path / "trace.csv"
    rows = "".join(f"2023-11-16 18:17:{second:02d}.0000000,100,10\n" for second in range(50))
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + rows)
    assert plan_of("--trace", str(trace))[2] == 50
    assert plan_of("--trace", str(trace), "--speed", "2", "--seconds", "10")[2] == 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trace", "missing.csv"], "missing.csv: no such file"),
        (["--trace", "missing.csv", "--rate", "5"], "--rate is for the synthetic load"),
        (["--rate", "1e9"], "heron demo: requests_per_second = 1e.09: must be at most 100000"),
        (["--seconds", "1e9"], "heron demo: 40 requests/s for 1e.09 s of the load are more than 100000000"),
    ],
)
def test_traffic_that_cannot_be_made_is_refused(arguments: list[str], message: str) -> None:
    """A trace that is not there, a rate for a trace."""
    with pytest.raises(ConfigError, match=message):
        plan_of(*arguments)
