"""`heron profile run` against emulated engines: rows, going on, failures, a meter, a picture."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from support.fake_hardware import MODEL, PROFILE, fake_hardware

from cli import profile_meter
from cli.main import main
from fleet.profile import PROFILES
from fleet.profiles.document import Row
from replay import profile_run
from replay.client import Endpoint
from replay.profile_sweep import Document, SweepError, points
from replay.prompts import WordPrompts
from site_agent.drivers.fake_nvml import FakeNvml


class CountingMeter:
    """100 W at any clock, by its counter; or none."""

    def __init__(self) -> None:
        self.clocks: list[int | None] = []
        self.is_closed = False

    async def joules(self) -> float | None:
        return 100.0 * asyncio.get_running_loop().time()

    async def clock_mhz(self) -> float | None:
        return 1234.0

    async def set_clock(self, clock_mhz: int | None) -> None:
        if clock_mhz == 555:
            raise SweepError("no such clock")
        self.clocks.append(clock_mhz)

    async def aclose(self) -> None:
        self.is_closed = True


async def sweep(
    url: str, document: Document, clocks: list[int | None], meter: Any, **values: Any
) -> list[int]:
    """Two batches of short answers; returns how many rows each keeping found."""
    kept: list[int] = []

    async def keep() -> None:
        kept.append(len(document.rows))

    await profile_run.sweep(
        document,
        points([1, 4], [50], clocks),
        endpoint=Endpoint.parse(url),
        prompts=WordPrompts(values.pop("model", MODEL), ignore_eos=True),
        api_key=None,
        output_tokens=20,
        seconds=1.5,
        meter=meter,
        keep=keep,
        on_row=lambda _row, _number, _of: None,
    )
    return kept


def empty() -> Document:
    return Document(settings={}, provenance={}, rows=[])


async def test_rows_follow_the_engines_profile_and_each_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens come as the engine makes them; joules are the meter's, which gives the clock back."""
    monkeypatch.setattr(profile_run, "SETTLE_SECONDS", 0.1)
    document, meter = empty(), CountingMeter()
    async with fake_hardware(max_concurrency=16) as hardware:
        kept = await sweep(await hardware.start_engine(), document, [1980, 800], meter)
    assert kept == [1, 2, 3, 4]
    assert meter.clocks == [1980, 800]
    assert meter.is_closed
    profile = PROFILES[PROFILE]
    for row in document.rows:
        most = row.running_requests / profile.itl_seconds(row.running_requests, 1980)
        assert 0 < row.output_tokens_per_second <= 1.2 * most, "no faster than the engine"
        assert row.watts == pytest.approx(100.0, rel=0.05)
        assert row.mean_clock_mhz == 1234.0


async def test_a_sweep_goes_on_and_an_engine_that_fails_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was measured stays measured."""
    monkeypatch.setattr(profile_run, "SETTLE_SECONDS", 0.1)
    monkeypatch.setattr(profile_run, "BACK_OFF_SECONDS", 0.0)
    document = empty()
    async with fake_hardware(max_concurrency=16) as hardware:
        url = await hardware.start_engine()
        with pytest.raises(SweepError, match="no such clock"):
            await sweep(url, document, [1980, 555], CountingMeter())
        before: list[Row] = list(document.rows)
        assert len(before) == 2
        with pytest.raises(SweepError, match="404"):
            await sweep(url, document, [800], CountingMeter(), model="mixtral")
        assert document.rows == before
        assert await sweep(url, document, [1980], CountingMeter()) == []
    with pytest.raises(SweepError, match="connection"):
        await sweep(url, document, [800], CountingMeter())


async def test_the_meter_is_the_sites_own_nvml_driver() -> None:
    """On its fake: energy counters of the engine's GPUs, and clocks that are given back."""
    library = FakeNvml()
    library.devices[0].millijoules = 9000
    library.devices[1].millijoules = 7000
    meter = profile_meter.NvmlMeter([1], library, locks=True)
    assert meter.names == ["FAKE GPU"]
    assert await meter.joules() == 7.0
    await meter.set_clock(1200)
    assert [one.locked for one in library.devices] == [None, (345, 1200)]
    assert await meter.clock_mhz() == 1200
    await meter.aclose()
    assert library.devices[1].locked is None
    assert not library.is_open
    with pytest.raises(SweepError, match="shows 2"):
        profile_meter.NvmlMeter([5], library)
    with pytest.raises(SweepError, match="--gpus"):
        await profile_run.NoMeter().set_clock(800)


async def test_without_clocks_the_meter_changes_nothing() -> None:
    """Beside a running agent its clocks and limits stay: they are what is measured."""
    library = FakeNvml()
    library.devices[1].locked, library.devices[1].limit_milliwatts = (345, 800), 500_000
    meter = profile_meter.NvmlMeter([1], library)
    assert await meter.joules() == 0.0
    with pytest.raises(SweepError, match="read only"):
        await meter.set_clock(1200)
    await meter.aclose()
    assert library.orders == 0
    assert not library.is_open


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--out", "p.txt"], "--out p.txt: must end in .json\n"),
        (["--out", "p.json", "--plot", "p.txt"], "--plot p.txt: must end in .png or .svg or .pdf\n"),
    ],
)
def test_a_file_of_another_kind_is_refused_before_the_engine_is_asked(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A profile that cannot be named in a configuration, and a picture that cannot be drawn."""
    assert main(["profile", "run", "--url", "http://127.0.0.1:9", *words]) == 2
    assert capsys.readouterr().err == said


async def test_the_command_writes_prints_plots_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Provenance beside the rows; other settings are refused before anything is sent."""
    pytest.importorskip("matplotlib")
    out, picture = tmp_path / "p.json", tmp_path / "p.png"
    async with fake_hardware() as hardware:
        arguments = ["profile", "run", "--url", await hardware.start_engine(), "--out", str(out)]
        arguments += ["--batches", "2", "--prompts", "30", "--output-tokens", "16"]

        async def run(*more: str) -> int:
            return await asyncio.to_thread(main, [*arguments, *more])

        assert await run("--seconds", "1", "--plot", str(picture)) == 0
        assert picture.read_bytes().startswith(b"\x89PNG")
        document = json.loads(out.read_text())
        assert [row["watts"] for row in document["rows"]] == [None]
        assert document["settings"]["model"] == MODEL
        assert document["provenance"]["url"] == arguments[3]
        assert await run("--seconds", "1") == 0
        assert "1 points, 1 measured before" in capsys.readouterr().out
        assert await run("--seconds", "2") == 2
        assert "other settings" in capsys.readouterr().err
        assert await run("--seconds", "1", "--tensor-parallel-degree", "4") == 0, "it was not known"
        document["engine"]["max_model_len"] = 7
        out.write_text(json.dumps(document))
        assert await run("--seconds", "1") == 2
        assert "another engine (max_model_len: 7 there" in capsys.readouterr().err
        out.unlink()
        assert await run("--seconds", "1", "--clocks", "50") == 2
        assert "--clocks: 50: 100 to 20000" in capsys.readouterr().err
        assert await run("--seconds", "1", "--model", "mixtral") == 2
        capsys.readouterr()
        assert await run("--seconds", "1", "--clocks", "800") == 1
        assert capsys.readouterr().out.endswith("; nothing was measured\n")
