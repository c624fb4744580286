"""Points, rows and the document of a sweep: what goes on, and what is never mixed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fleet.profiles.document import EngineFacts, Row
from replay.profile_sweep import Document, Point, SweepError, go_on, lines, points, row_of

SETTINGS = {"model": "m", "seconds": 3.0, "output_tokens": 256}
POINT = Point(clock_mhz=None, prompt_tokens=64, running_requests=4)


def row(point: Point = POINT, **changes: Any) -> Row:
    values: dict[str, Any] = {
        "seconds": 2.0,
        "ttft_seconds": [0.3, 0.1, 0.2],
        "gaps_seconds": (0.02, 0.05),
        "tokens": 400,
        "requests": 3,
        "failed_requests": 0,
        "joules": None,
        "counted_prompt_tokens": [64, 66],
        "clocks_mhz": [],
    }
    return row_of(point, **values | changes)


def test_points_change_the_clock_least_often_and_come_once() -> None:
    """Highest clock first."""
    found = points([8, 1, 1], [64], [800, 1980])
    order = [(one.clock_mhz, one.running_requests) for one in found]
    assert order == [(1980, 1), (1980, 8), (800, 1), (800, 8)]
    with pytest.raises(SweepError, match="0 points"):
        points([], [64], [None])
    with pytest.raises(SweepError, match="1 to 2000"):
        points(range(3000), [64], [None])


def test_what_is_not_known_is_not_zero() -> None:
    """Watts of an engine on a CPU; first tokens where none was seen."""
    unknown = row(ttft_seconds=[], gaps_seconds=(None, None), counted_prompt_tokens=[])
    assert (unknown.watts, unknown.joules_per_output_token, unknown.ttft_seconds_p50) == (None, None, None)
    known = row(joules=1000.0)
    assert (known.watts, known.joules_per_output_token, known.output_tokens_per_second) == (500.0, 2.5, 200.0)
    assert (known.ttft_seconds_p50, known.counted_prompt_tokens) == (0.2, 65.0)
    assert unknown.mean_clock_mhz is None
    assert row(clocks_mhz=[1980, 1965.0]).mean_clock_mhz == 1972.5
    assert lines([unknown])[1].count("unknown") == 4


@pytest.mark.parametrize("changes", [{"tokens": 0}, {"failed_requests": 1}, {"seconds": 0.0}])
def test_a_window_that_says_nothing_makes_no_row(changes: dict[str, Any]) -> None:
    """An error, with why."""
    with pytest.raises(SweepError):
        row(**changes)


def test_a_document_goes_on_where_it_was() -> None:
    """By what it has measured, whatever order is asked for."""
    document = Document(settings=SETTINGS, provenance={"host": "h"}, rows=[row()])
    again = go_on(json.dumps(document.to_dict()).encode(), SETTINGS, EngineFacts(), "f.json")
    assert again == document
    other = Point(clock_mhz=None, prompt_tokens=64, running_requests=8)
    assert again.missing([other, POINT]) == [other]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "no heron_profile_version"),
        ({"heron_profile_version": 9}, "this heron reads 1"),
        (
            {"heron_profile_version": 1, "rows": [{"x": 1}], "settings": {}, "provenance": {}},
            "row 1, running_requests",
        ),
        (
            {"heron_profile_version": 1, "rows": [], "settings": SETTINGS | {"seconds": 9}, "provenance": {}},
            "seconds: 9 there, 3.0 now",
        ),
    ],
)
def test_rows_of_other_settings_are_never_mixed_in(value: Any, message: str) -> None:
    """The message names the file, the setting and the way out."""
    with pytest.raises(SweepError, match=message) as caught:
        go_on(json.dumps(value).encode(), SETTINGS, EngineFacts(), "f.json")
    assert "f.json" in str(caught.value)
    assert "--out" in str(caught.value)


@pytest.mark.parametrize(
    ("now", "message"),
    [
        ({"gpu_model": "B"}, "gpu_model: 'A' there, 'B' now"),
        ({"tensor_parallel_degree": 8}, "tensor_parallel_degree: 4 there, 8 now"),
        ({"full_clock_mhz": 1755}, "full_clock_mhz: 1980 there, 1755 now"),
        ({"max_model_len": 4096}, "max_model_len: 8192 there, 4096 now"),
        ({"kv_tokens": 50_000}, "kv_tokens: 100000 there, 50000 now"),
        ({"kv_tokens": 99_000}, None),
        (dict.fromkeys(("gpu_model", "kv_tokens", "full_clock_mhz")), None),
        ({"idle_watts": None}, None),
    ],
)
def test_rows_of_another_engine_or_gpu_are_never_mixed_in(now: dict[str, Any], message: str | None) -> None:
    """As far as both are known; the cache of the same engine started anew differs a little."""
    there = {"tensor_parallel_degree": 4, "gpu_model": "A", "full_clock_mhz": 1980, "idle_watts": 460.0}
    there |= {"kv_tokens": 100_000, "max_model_len": 8192}
    document = Document(settings=SETTINGS, provenance={}, rows=[row()], engine=EngineFacts(**there))
    data = json.dumps(document.to_dict()).encode()
    if message is None:
        assert go_on(data, SETTINGS, EngineFacts(**there | now), "f.json") == document
        return
    with pytest.raises(SweepError, match=rf"f\.json: was measured on another engine \({message}\).*--out"):
        go_on(data, SETTINGS, EngineFacts(**there | now), "f.json")
