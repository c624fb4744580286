"""Settings of the fake hardware's process."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from site_agent.emulation.config import HostSettings

GOOD: dict[str, Any] = {
    "site_id": "north",
    "model": "m",
    "profile": "llama-3.1-70b/h100/tp4",
    "engines": [{"instance_id": "north-0", "gpu_indices": [0, 1, 2, 3]}],
}


def test_settings_survive_json() -> None:
    """They travel to the process as one line."""
    settings = HostSettings.model_validate(GOOD)
    assert HostSettings.model_validate_json(settings.model_dump_json()) == settings
    assert settings.performance_profile.tensor_parallel_degree == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"profile": "x"}, "'x' is no profile: known are"),
        ({"kv_tokens": 10}, r"at least max_model_len \(8192\)"),
        ({"engines": []}, "at least 1"),
        ({"engines": GOOD["engines"] * 2}, "two engines have one instance_id"),
        (
            {"engines": [*GOOD["engines"], {"instance_id": "north-1", "gpu_indices": [3, 3]}]},
            "engine north-1 has a GPU twice",
        ),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_wrong_settings_are_refused(change: dict[str, Any], message: str) -> None:
    """Each error says what is wrong."""
    with pytest.raises(ValidationError, match=message):
        HostSettings.model_validate(GOOD | change)
