"""`heron power-feed`: each action takes its own options and refuses those of the others."""

from __future__ import annotations

import pytest

from cli.main import parse
from cli.power_feed import run
from fleet.config import ConfigError


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--wind", "nope"], "run: --wind is for backtest only"),
        (["run", "--farm", "nope"], "run: --farm is for test only"),
        (["--seconds", "2"], "run: --seconds is for test only"),
        (["--json"], "run: --json is for backtest only"),
        (["test", "--wind", "nope"], "test: --wind is for backtest only"),
        (["test", "--json"], "test: --json is for backtest only"),
        (["test", "--log-level", "debug"], "test: --log-level is for run only"),
        (["backtest", "--config", "nope.toml"], "backtest: --config is for run and test only"),
        (["backtest", "--farm", "nope"], "backtest: --farm is for test only"),
        (["backtest", "--seconds", "2"], "backtest: --seconds is for test only"),
    ],
)
def test_an_option_of_another_action_is_refused(words: list[str], message: str) -> None:
    """It would do nothing, in silence."""
    with pytest.raises(ConfigError) as refused:
        run(parse(["power-feed", *words]))
    assert str(refused.value) == f"heron power-feed {message}"


def test_a_file_that_the_environment_names_is_no_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is there for the other actions; what is said is what backtest misses."""
    monkeypatch.setenv("HERON_CONFIG", "fleet.toml")
    with pytest.raises(ConfigError, match="backtest: --wind FILE is missing"):
        run(parse(["power-feed", "backtest"]))
