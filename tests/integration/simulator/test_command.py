"""`heron simulate` as a person runs it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import official_data
from support.heron_command import HERON
from support.processes import pids_with
from support.wait import until

from cli import main as command_line
from cli import simulate
from simulator.batch import Store
from simulator.inputs import read_inputs

ROOT = Path(__file__).resolve().parents[3]
WORDS = ("simulate", "--days", "1:1", "--sample", "1d:2m:1m", "--jobs", "2", "--load", "0.2")


def test_a_run_shows_keeps_and_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Table, JSON and a page that needs nothing else; a second run finds what the first kept."""
    monkeypatch.setenv("HERON_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "80")
    out, page = tmp_path / "out.json", tmp_path / "out.html"
    words = [*WORDS, "--policy", "round_robin,planned", "--json", str(out), "--report", str(page)]
    assert command_line.main(words) == 0
    shown = capsys.readouterr().out
    assert "round_robin" in shown
    assert "attained  refused  broken" in shown
    cells = json.loads(out.read_text())["cells"]
    assert [one["cell"]["policy"] for one in cells] == ["round_robin", "planned"]
    for one in cells:
        part = one["result"]["all"]
        assert part["offered"] == sum(part[name] for name in ("served", "shed", "broken", "in_flight")) > 0
        assert one["result"]["cap_exceeded_seconds"] == 0
    assert cells[1]["result"]["plans"]
    html = page.read_text()
    assert html.count("<svg") >= 4
    assert "http://" not in html.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )
    kept = sorted((tmp_path / "cache").rglob("*.json"))
    before = [path.read_bytes() for path in kept]
    assert len(kept) == 2
    assert command_line.main(words) == 0
    assert [path.read_bytes() for path in sorted((tmp_path / "cache").rglob("*.json"))] == before


def test_the_same_seed_and_code_give_the_same_bytes(tmp_path: Path) -> None:
    """What `--json` writes, from two processes that keep and find nothing; what a run cost is not in it."""
    written = []
    for number in ("1", "2"):
        out = tmp_path / f"{number}.json"
        words = [*WORDS, "--policy", "heron,planned", "--no-cache", "--json", str(out)]
        ended = subprocess.run(
            [*HERON, *words],
            env=os.environ | {"PYTHONHASHSEED": number},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        assert "cost:" in ended.stderr
        written.append(out.read_bytes())
    assert written[0] == written[1]
    cells = json.loads(written[0])["cells"]
    assert [sorted(one) for one in cells] == [["cell", "result"]] * 2


def test_what_was_kept_is_written_as_what_was_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Byte by byte."""
    monkeypatch.setenv("HERON_CACHE", str(tmp_path / "cache"))
    outs = [tmp_path / "first.json", tmp_path / "second.json"]
    for out in outs:
        assert command_line.main([*WORDS, "--json", str(out)]) == 0
    assert outs[0].read_bytes() == outs[1].read_bytes()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("router = 1", "[router]"),
        ("[router]\nfoo = 1", "[router] foo: no such key"),
        ('[site]\nprofile_id = "x"', "'x' is no profile: known are llama-3.1-70b/h100/tp2"),
        (
            '[site]\nother_profile_ids = ["llama-3.1-70b/h100/tp16"]',
            "'llama-3.1-70b/h100/tp16' is no profile",
        ),
        ('[site]\nother_profile_ids = ["llama-3.1-70b/h100/tp4"]', "a tensor-parallel degree is given twice"),
        (
            '[site]\ninstances = 1\nother_profile_ids = ["llama-3.1-70b/h100/tp8"]',
            "llama-3.1-70b/h100/tp8 does not divide its 4 GPUs",
        ),
        ('[site]\nmax_concurrency = "a"', "[site] max_concurrency = 'a'"),
        ('count = "a"', "count = 'a'"),
        ("[site]\nround_trip_seconds = 0.1", "[site] round_trip_seconds = 0.1: no such key"),
        ('[[sites]]\nwind = "sea"', "has no column sea; it has farm1, farm2"),
    ],
)
def test_a_fleet_that_cannot_be_meant_is_told(
    text: str, message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Exit code 2, before anything runs."""
    path = tmp_path / "sites.toml"
    path.write_text(text)
    assert command_line.main([*WORDS, "--sites", str(path)]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("load", ["nan", "inf", "0", "-0.5", "11"])
def test_a_load_that_cannot_be_meant_is_told(load: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2; a share of the cluster's peak is a number above 0."""
    assert command_line.main(["simulate", "--load", load]) == 2
    assert "must be above 0, and at most 10" in capsys.readouterr().err


def test_sites_that_differ_are_simulated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of eight GPUs as one instance, one of four with another control and no server switch."""
    monkeypatch.setenv("HERON_CACHE", str(tmp_path / "cache"))
    path, out = tmp_path / "sites.toml", tmp_path / "out.json"
    path.write_text(
        '[[sites]]\nwind = "farm2"\nprofile_id = "llama-3.1-70b/h100/tp8"\ninstances = 1\n'
        '[[sites]]\nwind = "farm2"\ninstances = 1\ncontrol = "power_cap_only"\nhas_server_switch = false\n'
    )
    words = [*WORDS, "--constant-power", "--sites", str(path), "--json", str(out)]
    assert command_line.main(words) == 0
    [one] = json.loads(out.read_text())["cells"]
    assert one["result"]["all"]["served"] > 0
    assert len(one["cell"]["each_site"]) == 2


def test_a_missing_file_says_what_to_do(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Exit code 2 and the name of what is missing."""
    assert command_line.main([*WORDS, "--wind", str(tmp_path / "none.csv")]) == 2
    assert "none.csv" in capsys.readouterr().err


def test_a_fault_of_a_site_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """With the names that there are."""
    assert command_line.main([*WORDS, "--fault", "crash:nowhere:30s:10s"]) == 2
    assert "--fault: no site nowhere; there are farm1, farm2, farm3, farm4, farm5, and all" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize("at", ["2m", "99h"])
def test_a_fault_beyond_the_end_of_a_block_is_refused(at: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With both times."""
    assert command_line.main([*WORDS, "--fault", f"crash:farm1:{at}:60s"]) == 2
    seconds = {"2m": "120", "99h": "356,400"}[at]
    assert f"--fault crash:farm1: AT is {seconds} s, and a block lasts 120 s" in capsys.readouterr().err


@pytest.mark.parametrize("sample", [None, "12h:5m:2m"])
def test_the_fault_of_the_help_can_be_meant(sample: str | None) -> None:
    """With the default sample, and with that of the command's example: some of it is counted."""
    assert any("12h:5m:2m" in example for example in command_line.COMMANDS["simulate"].examples)
    words = ["simulate", "--fault", simulate.FAULT_EXAMPLE, *(("--sample", sample) if sample else ())]
    [cell] = simulate.cells_of(command_line.parse(words))
    simulate._check_faults(read_inputs(cell, Path))
    [fault] = cell.faults
    assert cell.sample is not None
    assert fault.at_seconds + fault.seconds > cell.sample.warm_up_seconds


@pytest.mark.parametrize("is_file", [True, False])
def test_a_cache_that_cannot_be_written_costs_no_result(
    is_file: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where a file is in its place, and in /proc, where nobody can make a directory. It is said once."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("HERON_CACHE", str(tmp_path / "file") if is_file else "/proc/heron")
    out = tmp_path / "out.json"
    assert command_line.main([*WORDS, "--seeds", "2", "--json", str(out)]) == 0
    assert len(json.loads(out.read_text())["cells"]) == 2
    assert capsys.readouterr().err.count("results cannot be kept") == 1


def test_a_disk_that_is_full_in_mid_run_costs_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first result that cannot be kept is said, and no further one tried."""

    def keep(_store: Store, _cell: object, _result: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setenv("HERON_CACHE", str(tmp_path))
    monkeypatch.setattr(Store, "keep", keep)
    assert command_line.main([*WORDS, "--seeds", "2"]) == 0
    shown = capsys.readouterr()
    assert "seeds 1–2" in shown.out
    assert shown.err.count("No space left on device") == 1


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A shell's background job ignores SIGINT, and what it starts does too."""
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, usual)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("is_of_terminal", [True, False])
@pytest.mark.parametrize("processes", [3, 4])
def test_an_interrupt_ends_it_at_once(processes: int, is_of_terminal: bool, tmp_path: Path) -> None:
    """Ctrl-C, which all of its processes have, or a signal to it alone: its code, no traceback, nothing left.

    While the workers are begun and after. One would be at its block, a whole day, for a minute or more.
    """
    marker = f"HERON_CACHE={tmp_path}"
    with subprocess.Popen(
        [*HERON, "simulate", "--days", "1:1", "--sample", "all", "--seeds", "2", "--jobs", "2"],
        env=os.environ | {"HERON_CACHE": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    ) as process:
        asyncio.run(until(lambda: len(pids_with(marker)) >= processes, seconds=60, what="workers"))
        if is_of_terminal:
            os.killpg(process.pid, signal.SIGINT)
        else:
            process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=10)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    asyncio.run(until(lambda: not pids_with(marker), what="the end of every process"))


def test_rows_of_the_wind_that_cannot_be_used_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On stderr, with what was taken for granted."""
    monkeypatch.setenv("HERON_CACHE", str(tmp_path / "cache"))
    wind = tmp_path / "wind.csv"
    rows = [f"{hour * 3600},{'x' if hour == 20 else 0.5 + hour % 4 / 8}" for hour in range(49)]
    wind.write_text("\n".join(["time,a", *rows]) + "\n")
    assert command_line.main([*WORDS, "--wind", str(wind)]) == 0
    told = capsys.readouterr().err
    assert "wind.csv: 1 row refused: line 22: a: not a number: 'x'" in told
    assert "taken as shares of nameplate" in told


@pytest.mark.official_data
def test_the_fleet_of_the_page_fits_the_wind_that_it_names(tmp_path: Path) -> None:
    """The example of docs/simulator.md, column by column."""
    [text] = re.findall(r"^```toml\n(.*?)^```", (ROOT / "docs/simulator.md").read_text(), re.M | re.S)
    path = tmp_path / "sites.toml"
    path.write_text(text)
    wind = official_data.path("fts213_Wind_data.csv")
    words = ["simulate", "--wind", str(wind), "--sites", str(path)]
    [cell] = simulate.cells_of(command_line.parse(words))
    assert [site.wind for site in read_inputs(cell, Path).sites] == ["Area3", "Area2"]
