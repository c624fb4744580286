"""`heron router`'s arguments, on their way to the router's configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import router.app
from cli import services
from cli.main import main, parse
from fleet.failure import ServiceError


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the router would have been started with."""
    found: list[Any] = []

    def serve(_fleet: Any, config: Any) -> str:
        found.append(config)
        return "a coroutine"

    monkeypatch.setattr(router.app, "serve", serve)
    return found


def test_policy_and_parameters_go_over_the_file(tmp_path: Path, configured: list[Any]) -> None:
    """The file's policy, and its tables as a whole."""
    fleet, policies = tmp_path / "fleet.toml", tmp_path / "policies.toml"
    fleet.write_text(
        '[router]\npolicy = "round_robin"\nworkers = 2\n[router.policy_parameters.heron]\npacking = 0.1\n'
    )
    policies.write_text("[power_weighted]\nage_seconds = 900\n")
    words = ["router", "--config", str(fleet)]
    services._load(parse(words))
    services._load(parse([*words, "--policy", "power_weighted", "--policy-parameters", str(policies)]))
    before, after = configured
    assert (before.policy, before.workers) == ("round_robin", 2)
    assert before.policy_parameters == {"heron": {"packing": 0.1}}
    assert (after.policy, after.workers) == ("power_weighted", 2)
    assert after.policy_parameters == {"power_weighted": {"age_seconds": 900}}


def test_a_service_that_cannot_go_on_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 1, and no traceback."""

    async def serve(_fleet: Any, _config: Any) -> None:
        raise ServiceError("no worker has served for 60 s")

    monkeypatch.setattr(router.app, "serve", serve)
    assert main(["router"]) == 1
    assert capsys.readouterr().err.endswith("heron router: no worker has served for 60 s\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--policy", "best"], "--policy best: no such policy; allowed are heron"),
        (["--policy-parameters", "/nowhere.toml"], "/nowhere.toml: cannot be read"),
    ],
)
def test_what_cannot_be_meant_is_told(
    words: list[str], message: str, configured: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 2, and nothing is started."""
    assert main(["router", *words]) == 2
    assert message in capsys.readouterr().err
    assert not configured
