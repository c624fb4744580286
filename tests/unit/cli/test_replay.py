"""cli.replay: arguments that do not fit together are refused before anything is sent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.measured import document_of, row_of

from cli.main import parse
from cli.replay import _profile, progress_line, run
from fleet.config import ConfigError
from fleet.profile import LLAMA_70B_H100_TP4
from replay.progress import Progress
from replay.results import Slo


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--base-url", "ftp://x"], "the scheme must be http or https"),
        (["--speed", "0"], "speed = 0.0: must be above 0"),
        (["--rate", "-1"], "requests_per_second = -1.0: must be above 0"),
        (["--rate", "1e9"], "requests_per_second = 1e+09: must be at most 100000"),
        (["--rate", "1e5", "--seconds", "1e4"], "are more than 100000000 requests: lower one of them"),
        (["--start-seconds", "1e9"], "are more than 100000000 requests"),
        (["--mean-prompt-tokens", "1e12"], "mean_prompt_tokens = 1e+12: must be at most 8"),
        (["--mean-output-tokens", "1e12"], "for the largest has then 10000000"),
        (["--keep-ratio", "2"], "keep_ratio = 2.0: must be above 0 and at most 1"),
        (["--prompt", "ids"], "--prompt ids needs --vocabulary-size"),
        (["--vocabulary-size", "128"], "--vocabulary-size is for --prompt ids"),
        (["--json", "/nowhere/at/all.json"], "--json /nowhere/at/all.json: cannot be written"),
        (["--trace", "/nowhere.csv"], "/nowhere.csv: no such file, and no data set of that name"),
        (["--profile", "llama/x"], "'llama/x' is no profile: known are llama-3.1-70b/h100/tp2"),
        (["--profile", "/nowhere.json"], "/nowhere.json"),
        (["--trace", "t.csv", "--rate", "5"], "--rate is for a synthetic load; with --trace use --speed"),
        (["--trace", "t.csv", "--mean-output-tokens", "5"], "--mean-output-tokens is for a synthetic load"),
    ],
)
def test_what_cannot_be_is_refused(words: list[str], message: str) -> None:
    """With the option or number, and what is allowed."""
    with pytest.raises(ConfigError) as raised:
        run(parse(["replay", "--model", "m", *words]))
    assert message in str(raised.value)


def test_a_wrong_trace_is_refused(tmp_path: Path) -> None:
    """A wind file as trace says so and what was expected."""
    file = tmp_path / "wind.csv"
    file.write_bytes(b"Day,Time,Area1\n1,0:00,0.5\n")
    with pytest.raises(
        ConfigError, match=r"wind\.csv: looks like a wind file .* expected a CSV of one request"
    ):
        run(parse(["replay", "--model", "m", "--trace", str(file)]))


def test_a_start_after_the_end_of_the_trace_is_said(tmp_path: Path) -> None:
    """Not a table of zeros."""
    file = tmp_path / "trace.csv"
    file.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.5,10,2\n")
    words = ["--trace", str(file), "--start-seconds", "99999", "--quiet"]
    with pytest.raises(ConfigError, match=r"no request of the trace lies after --start-seconds 99999$"):
        run(parse(["replay", "--model", "m", *words]))
    with pytest.raises(ConfigError, match="lies after --start-seconds 99999 within 5 s"):
        run(parse(["replay", "--model", "m", "--seconds", "5", *words]))


@pytest.mark.parametrize("watts", [2000.0, None])
def test_a_measured_profile_is_a_file_with_or_without_watts(tmp_path: Path, watts: float | None) -> None:
    """It makes the SLO that the shipped profile makes of which its row is."""
    file = tmp_path / "mine.json"
    rows = [row_of(LLAMA_70B_H100_TP4, batch, 512, 1980, watts=watts) for batch in (1, 8)]
    file.write_text(json.dumps(document_of(rows, idle_watts=None).model_dump(mode="json")))
    found, shipped = _profile(str(file)), Slo.from_profile(_profile("llama-3.1-70b/h100/tp4"))
    assert Slo.from_profile(found).e2e_limit_seconds(512, 256) == pytest.approx(
        shipped.e2e_limit_seconds(512, 256), rel=0.1
    )


@pytest.mark.parametrize(
    ("option", "value"), [("--max-in-flight", "0"), ("--timeout-seconds", "-1"), ("--grace-seconds", "nan")]
)
def test_limits_must_be_positive(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    """argparse's own error, exit 2."""
    with pytest.raises(SystemExit) as raised:
        parse(["replay", option, value])
    assert raised.value.code == 2
    assert option in capsys.readouterr().err


def test_the_progress_line() -> None:
    """What was sent, what waits, how fast, and how it ended."""
    progress = Progress(
        elapsed_seconds=12.3,
        sent=540,
        in_flight=33,
        unsent=0,
        late_sends=0,
        corrupted=0,
        good=0,
        outcomes={"completed": 500, "shed": 7, "client_cancelled": 0, "broken": 0, "failed": 0, "lost": 0},
        sent_per_second=45.04,
        ended_per_second=44.0,
        tokens_per_second=2000.0,
        ttft_seconds_p50=0.0843,
        ttft_seconds_p99=0.2,
        itl_seconds_p50=0.0201,
        itl_seconds_p99=None,
        e2e_seconds_p50=2.0,
    )
    assert progress_line(progress) == (
        "12 s: 540 sent (45.0/s), 33 in flight, TTFT p50 84.3 ms, ITL p50 20.1 ms; 500 completed, 7 shed"
    )
