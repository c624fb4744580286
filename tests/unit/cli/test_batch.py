"""`heron batch`: its arguments, its key, its words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cli import batch
from cli.main import parse
from fleet.config import ConfigError
from replay.batch.files import Checked
from replay.batch.run import BatchPlan, Tally


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in batch.KEY_VARIABLES:
        monkeypatch.delenv(name, raising=False)


def plan(*words: str) -> BatchPlan:
    return batch._plan(parse(["batch", "in.jsonl", "--out", "out.jsonl", *words]))


def test_what_is_sent_where() -> None:
    """A day, flex, this machine's router; a path before /v1 stays."""
    usual = plan()
    assert (usual.tier, usual.within_seconds, usual.api_key) == ("flex", 86_400.0, None)
    assert (usual.endpoint.origin.port, usual.path_prefix) == (8000, "")
    assert plan("--base-url", "https://example.org/llm/v1/").path_prefix == "/llm"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--base-url", "ftp://example.org/v1"), "--base-url 'ftp://example.org': the scheme must be http"),
        (("--base-url", "http://example.org/api"), "must end in /v1, as the requests' urls begin so"),
        (("--within", "soon"), "--within 'soon': such as 30m, 2h or 1d, 30d at most"),
        (("--timeout", "0s"), "--timeout '0s': such as"),
        (("--api-key-file", "none"), "--api-key-file none: cannot be read: No such file"),
    ],
)
def test_what_cannot_be_meant_is_said(words: tuple[str, ...], said: str) -> None:
    """Before a file is opened."""
    with pytest.raises(ConfigError) as error:
        plan(*words)
    assert said in str(error.value)


@pytest.mark.parametrize("number", ["0", "4097"])
def test_the_number_under_way_has_limits(number: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Connections cost both sides."""
    with pytest.raises(SystemExit):
        plan("--concurrency", number)
    assert f"{number} must be 1 to 4096" in capsys.readouterr().err


def test_whose_key_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The file's, else HERON_API_KEY, else OPENAI_API_KEY."""
    monkeypatch.setenv("OPENAI_API_KEY", "third")
    assert plan().api_key == "third"
    monkeypatch.setenv("HERON_API_KEY", "second")
    assert plan().api_key == "second"
    file = tmp_path / "key"
    file.write_text(" first\n")
    assert plan("--api-key-file", str(file)).api_key == "first"


@pytest.mark.parametrize("content", [b"", b"two words", b"line\r\nx-header: 1", b"\xff\xfe", b"x" * 5000])
def test_what_is_no_key_is_not_sent_and_not_shown(content: bytes, tmp_path: Path) -> None:
    """A file of something else must not end up in a header or in a log."""
    file = tmp_path / "key"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as error:
        plan("--api-key-file", str(file))
    assert str(error.value) == (
        f"heron batch: --api-key-file {file}: is no API key: one word of plain ASCII is"
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("in.jsonl", "--out", "in.jsonl"), "FILE, --out and --errors must be different files"),
        (("in.jsonl", "--out", "o", "--errors", "./o"), "FILE, --out and --errors must be different files"),
        (("in.jsonl", "--out", "nowhere/o"), "--out nowhere/o: cannot be written: there is no directory"),
        (("-", "--out", "o", "--errors", "-"), "--errors must be a file"),
        (("-", "--out", "-", "--json"), "--json prints to standard output, where the answers go"),
    ],
)
def test_files_that_cannot_be_meant(
    words: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Answers would overwrite questions, or each other."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.jsonl").touch()
    with pytest.raises(ConfigError) as error:
        batch._check_files(parse(["batch", *words]))
    assert said in str(error.value)


def test_the_summary_in_words() -> None:
    """What was done, what it took, what was waited for."""
    tally = Tally(completed=1200, failed=2, expired=1, prompt_tokens=5000, output_tokens=70000, seconds=61.25)
    tally.waited_seconds, tally.retries = {"no_surplus": 12.0}, 4
    values = batch.summary(tally, Checked(lines=1503, kept=300))
    assert values["not_done"] == 0
    assert batch.as_text(values) == [
        "1,503 requests: 1,200 answered, 2 failed, 1 expired, 300 answered before",
        "5,000 tokens in, 70,000 out, 61.2 s",
        "nothing sent for: 12.0 s no_surplus; sent again: 4",
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda _: None, "3 under way"),
        (lambda tally: setattr(tally, "failed", 2), "3 under way, 2 failed"),
        (lambda tally: setattr(tally, "waiting_for", "no_surplus"), "3 under way, waiting: no_surplus"),
    ],
)
def test_what_stands_beside_the_bar(change: Callable[[Tally], None], said: str) -> None:
    """Only what is the case."""
    tally = Tally(in_flight=3)
    change(tally)
    assert batch.how_it_goes(tally) == said
