"""`heron doctor` on a measured profile."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
from support.measured import document_of, row_of

from fleet.profile import LLAMA_70B_H100_TP4
from fleet.profiles.document import Row
from site_agent import profile_check
from site_agent.config import SiteConfig
from site_agent.drivers.fake_nvml import FakeNvml
from site_agent.promises import Finding

TRUTH = LLAMA_70B_H100_TP4
ROWS = [
    row_of(TRUTH, batch, prompt, clock)
    for clock, prompt, batch in itertools.product((1980, 800), (512, 4096), (1, 32, 64))
]
GPU = "FAKE GPU"


def look(tmp_path: Path, rows: list[Row], engine: dict[str, Any], **facts: Any) -> list[Finding]:
    """What the doctor finds on a site with this file."""
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(document_of(rows, **{"gpu_model": GPU} | facts).model_dump(mode="json")))
    values = {
        "kind": "vllm",
        "model": "llama-3.1-70b",
        "gpus_per_instance": 4,
        "profile": str(path),
        "max_concurrency": 64,
        "assumed_stopped_watts": 280,
    }
    config = SiteConfig.model_validate(
        {"site_id": "north", "farm_id": "farm", "state_dir": tmp_path, "engine": values | engine}
    )
    return profile_check.examine(config, nvml_library=FakeNvml(count=4))


def test_a_good_file_is_told_in_one_line(tmp_path: Path) -> None:
    """What it is of, which clocks and batches it knows, and how well it fits."""
    [found] = look(tmp_path, ROWS, {})
    assert found.status == "pass"
    for told in (
        "mine.json",
        "llama-3.1-70b on 4 × FAKE GPU",
        "800, 1980 MHz",
        "batches 1 to 64",
        "watts 0.0 %",
    ):
        assert told in found.message


@pytest.mark.parametrize(
    ("rows", "engine", "facts", "status", "message"),
    [
        (ROWS, {}, {"gpu_model": "NVIDIA B200"}, "fail", "measured on NVIDIA B200, here is FAKE GPU"),
        (ROWS, {}, {"gpu_model": None}, "warn", "does not say on which GPU"),
        (ROWS, {"model": "qwen"}, {}, "warn", "model llama-3.1-70b, the site serves qwen"),
        (ROWS, {"max_concurrency": 128}, {}, "warn", "largest batch is 64, max_concurrency is 128"),
        (ROWS, {"assumed_stopped_watts": 0}, {}, "warn", "without an engine are modelled"),
        (ROWS[:6], {}, {}, "warn", "one clock was measured"),
        ([one for one in ROWS if one.running_requests > 1], {}, {}, "warn", "prefill is derived.* batch 32"),
        (ROWS, {}, {"kv_tokens": None}, "warn", "KV cache"),
        (
            [one.model_copy(update={"watts": None}) for one in ROWS],
            {"assumed_idle_watts": 600, "assumed_busy_watts": 2000},
            {},
            "warn",
            "no power was measured",
        ),
        (
            [one.model_copy(update={"prompt_tokens": 999}) if one.clock_mhz == 800 else one for one in ROWS],
            {},
            {},
            "warn",
            "watts measured at 800 MHz are not used",
        ),
        (
            [one.model_copy(update={"mean_clock_mhz": 1000.0}) for one in ROWS],
            {},
            {},
            "warn",
            "row 1: GPUs ran at 1000 MHz in the mean, the row counts as 1980 MHz.*6 such rows",
        ),
        (
            [*ROWS, row_of(TRUTH, 32, 512, 1980, itl_seconds_p50=0.05)],
            {},
            {},
            "warn",
            r"a decode step is \d+ % off its row",
        ),
        (
            [
                row_of(TRUTH, batch, prompt, clock)
                for clock, prompt, batch in itertools.product((1980, 800), (64, 512), range(1, 66))
            ],
            {},
            {},
            "warn",
            "routers cannot be told of llama-3.1-70b/fake-gpu/tp4/.*: rows: .* at most 64 items",
        ),
    ],
)
def test_what_is_doubtful_is_said_with_what_to_do(
    rows: list[Row], engine: dict[str, Any], facts: dict[str, Any], status: str, message: str, tmp_path: Path
) -> None:
    """One more finding each."""
    _, found = look(tmp_path, rows, engine, **facts)
    assert found.status == status
    assert re.search(message, found.message), found.message


def test_one_prompt_length_leaves_context_and_prefill_in_doubt(tmp_path: Path) -> None:
    """Both are said."""
    _, context, prefill = look(tmp_path, [one for one in ROWS if one.prompt_tokens == 512], {})
    assert "one prompt length" in context.message
    assert "prefill is derived" in prefill.message


def test_a_site_with_a_shipped_profile_has_nothing_to_check(tmp_path: Path) -> None:
    """Nor one without."""
    config = SiteConfig.model_validate({"site_id": "n", "farm_id": "f", "state_dir": tmp_path})
    assert profile_check.examine(config) == []


def test_a_file_that_has_gone_since_is_a_failure(tmp_path: Path) -> None:
    """Not a traceback."""
    look(tmp_path, ROWS, {})
    path = tmp_path / "mine.json"
    engine = {"kind": "vllm", "model": "m", "gpus_per_instance": 4, "profile": str(path)}
    values = {"site_id": "n", "farm_id": "f", "state_dir": tmp_path, "engine": engine}
    config = SiteConfig.model_validate(values)
    path.unlink()
    [found] = profile_check.examine(config)
    assert (found.status, found.action) == ("fail", "heron profile run")
