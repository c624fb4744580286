"""The NVML driver on a fake of the library; no GPU was at hand."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.fake_drivers import specs
from support.wait import until

from fleet.profile import SitePowerModel
from site_agent.drivers import gpu_settings, gpus, nvml
from site_agent.drivers.fake_nvml import FakeNvml
from site_agent.drivers.gpu_power import ASSUMED_SPARE_WATTS
from site_agent.drivers.interface import DriverContext, DriverError
from site_agent.drivers.nvml import SETTINGS_NAME, NvmlGpus
from site_agent.drivers.options import VllmOptions


def driver(fake: FakeNvml, state_dir: Path, **options: Any) -> NvmlGpus:
    return NvmlGpus(fake, specs(2), state_dir=state_dir, **options)


async def test_power_is_the_sum_of_the_sites_gpus_and_each_is_read(tmp_path: Path) -> None:
    """Those that no instance uses too: they draw as well. The fake says that it is one."""
    fake = FakeNvml(count=4)
    fake.devices[2].milliwatts = 70_000
    fake.devices[1].millijoules = 5000
    site = driver(fake, tmp_path, visible_devices="0,1,2,GPU-gone")
    assert await site.power_watts() == 300.0
    assert site.spare_gpus == 1
    assert len(await site.readings()) == 3
    second = (await site.readings())[1]
    assert (second.index, second.power_watts, second.clock_mhz, second.temperature_celsius) == (
        1,
        115.0,
        1980,
        40,
    )
    assert second.energy_joules == 5.0
    assert (site.is_fake, site.can_set_clock, site.problems) == (True, True, [])
    await site.aclose()
    await site.aclose()
    assert await site.power_watts() is None


async def test_clocks_are_a_ceiling_and_are_given_back_at_the_end(tmp_path: Path) -> None:
    """Only those of the instance; idle GPUs may go lower."""
    fake = FakeNvml()
    site = driver(fake, tmp_path)
    await site.set_clock("i1", 1200)
    assert [one.locked for one in fake.devices] == [None, (345, 1200)]
    await site.set_clock("i1", None)
    assert fake.devices[1].locked is None
    await site.set_clock("i0", 800)
    await site.aclose()
    assert fake.devices[0].locked is None


async def test_what_a_crashed_agent_left_is_put_back_before_anything_starts(tmp_path: Path) -> None:
    """Its clocks are unlocked, its power limit is what it found, not what it set."""
    fake = FakeNvml()
    fake.devices[0].limit_milliwatts = 650_000
    crashed = driver(fake, tmp_path, power_limit_watts=500.0)
    await crashed.set_clock("i0", 800)
    assert [one.limit_milliwatts for one in fake.devices] == [500_000, 500_000]
    again = driver(fake, tmp_path, power_limit_watts=400.0)
    assert fake.devices[0].locked is None
    assert [one.limit_milliwatts for one in fake.devices] == [400_000, 400_000]
    assert json.loads((tmp_path / SETTINGS_NAME).read_text())["power_limit_watts"]["GPU-fake-0"] == 650.0
    await again.aclose()
    assert [one.limit_milliwatts for one in fake.devices] == [650_000, 700_000]
    assert not (tmp_path / SETTINGS_NAME).exists()


async def test_without_permission_it_reads_and_says_what_it_cannot_do(tmp_path: Path) -> None:
    """And how to grant it."""
    site = driver(FakeNvml(is_permitted=False), tmp_path, power_limit_watts=500.0)
    assert await site.power_watts() == 230.0
    assert not site.can_set_clock
    assert any("clocks cannot be locked" in one and "root" in one for one in site.problems)
    assert any("power limit of GPU 1" in one for one in site.problems)
    await site.set_clock("i0", None)
    with pytest.raises(DriverError, match="root"):
        await site.set_clock("i0", 800)
    await site.aclose()


async def test_a_limit_that_the_gpu_does_not_take_is_not_set(tmp_path: Path) -> None:
    """The message names the range."""
    fake = FakeNvml()
    site = driver(fake, tmp_path, power_limit_watts=100.0)
    assert "200 to 700" in site.problems[0]
    assert fake.devices[0].limit_milliwatts == 700_000
    await site.aclose()


async def test_a_limit_that_cannot_be_noted_is_not_set(tmp_path: Path) -> None:
    """A full disk: nobody would know any more what to put back."""
    (tmp_path / SETTINGS_NAME).with_suffix(".partial").mkdir()  # nothing can be written there
    fake = FakeNvml()
    site = driver(fake, tmp_path, power_limit_watts=500.0)
    assert "cannot be noted" in site.problems[0]
    assert fake.devices[0].limit_milliwatts == 700_000


async def test_a_gpu_without_instant_power_is_read_by_its_average(tmp_path: Path) -> None:
    """Said before anything is read: the average is a second late."""
    site = driver(FakeNvml(has_instant_power=False), tmp_path)
    assert site.is_power_late
    assert site.problems == [nvml.LATE_POWER]
    assert await site.power_watts() == 230.0
    await site.aclose()


async def test_an_error_that_passes_leaves_the_instant_reading_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both at the opening and later; the average stands in for that one reading."""
    fake = FakeNvml(count=1, instant_faults=1)
    monkeypatch.setattr(fake, "nvmlDeviceGetPowerUsage", lambda _device: 99_000)
    site = NvmlGpus(fake, specs(1), state_dir=tmp_path)
    assert not site.is_power_late
    fake.instant_faults = 1
    assert [await site.power_watts() for _ in range(3)] == [99.0, 115.0, 115.0]
    await site.aclose()


async def test_an_odd_spare_gpu_neither_slows_nor_blinds_the_meter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A display card: no power at all is assumed, said once; read late, it leaves the others instant."""
    fake = FakeNvml(count=4)
    fake.devices[2].has_power = False
    fake.devices[3].has_instant_power = False
    monkeypatch.setattr(fake, "nvmlDeviceGetPowerUsage", average(fake, 0.5))
    site = driver(fake, tmp_path)
    assert (site.is_power_late, site.problems, site.spare_gpus) == (False, [], 2)
    assert await site.power_watts() == 115.0 + 115.0 + ASSUMED_SPARE_WATTS + 57.5
    assert await site.power_watts() is not None
    assert [one.power_watts for one in await site.readings()] == [115.0, 115.0, None, 57.5]
    assert site.assumed_spares == (2,)
    assert caplog.text.count("no instance uses GPU 2") == 1
    await site.aclose()


def average(fake: FakeNvml, ratio: float) -> Any:
    whole = fake.nvmlDeviceGetPowerUsage
    return lambda device: whole(device) * ratio


async def test_a_spare_gpu_that_is_lost_counts_with_what_it_drew_one_of_an_instance_makes_it_unknown(
    tmp_path: Path,
) -> None:
    """Never less than is assumed of a spare."""
    fake = FakeNvml(count=3)
    fake.devices[2].milliwatts = 400_000
    site = driver(fake, tmp_path)
    assert await site.power_watts() == 630.0
    fake.devices[2].is_lost = True
    assert await site.power_watts() == 630.0
    fake.devices[1].is_lost = True
    assert await site.power_watts() is None
    assert await site.readings() == ()
    await site.aclose()


async def test_opened_with_a_lost_gpu_it_goes_on_where_no_instance_uses_that(tmp_path: Path) -> None:
    """Else it says which, and leaves the library closed."""
    fake = FakeNvml(count=3)
    fake.devices[2].is_lost = True
    site = driver(fake, tmp_path, power_limit_watts=500.0)
    assert await site.power_watts() == 230.0 + ASSUMED_SPARE_WATTS
    assert [one.power_watts for one in await site.readings()] == [115.0, 115.0, None]
    assert site.kinds() == "3 × FAKE GPU, driver fake"
    fake.devices[0].is_lost = True
    assert site.kinds() == "3 × FAKE GPU, driver fake"
    await site.aclose()
    fake.is_open = True
    with pytest.raises(DriverError, match=r"GPU 0 cannot be read .*GPU is lost") as caught:
        driver(fake, tmp_path)
    assert caught.value.reason == "missing_gpu"
    assert not fake.is_open


async def test_opened_to_read_only_it_changes_nothing(tmp_path: Path) -> None:
    """Neither at the opening nor at the close, whatever an agent noted."""
    fake = FakeNvml()
    agent = driver(fake, tmp_path, power_limit_watts=500.0)
    await agent.set_clock("i0", 800)
    orders, note = fake.orders, (tmp_path / SETTINGS_NAME).read_text()
    site = driver(fake, tmp_path, is_read_only=True)
    assert await site.power_watts() == 230.0
    await site.set_clock("i0", None)
    with pytest.raises(DriverError, match="read only"):
        await site.set_clock("i0", 1200)
    await site.aclose()
    assert fake.orders == orders
    assert (tmp_path / SETTINGS_NAME).read_text() == note
    assert not fake.is_open


async def test_a_driver_that_hangs_makes_the_power_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None, never the last value; and no further call is queued behind it."""
    monkeypatch.setattr(nvml, "POWER_SECONDS", 0.01)
    fake = FakeNvml(hang_seconds=0.3)
    site = driver(fake, tmp_path)
    assert await site.power_watts() is None
    with pytest.raises(DriverError, match="hangs"):
        await site.set_clock("i0", 800)
    fake.hang_seconds = 0.0
    await site.aclose()


async def test_a_note_that_cannot_be_written_keeps_nobody_from_ending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The disk is full at the close, and at the next opening: GPUs are put back, and it is said."""
    fake = FakeNvml()
    site = driver(fake, tmp_path, power_limit_watts=500.0)

    def full(_path: Path, _settings: dict[str, float]) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gpu_settings, "write", full)
    await site.aclose()
    assert [one.limit_milliwatts for one in fake.devices] == [700_000, 700_000]
    assert not fake.is_open
    await driver(fake, tmp_path).aclose()
    assert all("No space left" in line for line in caplog.messages)
    assert len(caplog.messages) == 3


async def test_a_driver_that_was_given_up_undoes_nothing_of_the_next_agents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was queued behind the call that hung would have unlocked the clocks that another has locked."""
    monkeypatch.setattr(nvml, "POWER_SECONDS", 0.01)
    monkeypatch.setattr(nvml, "SET_SECONDS", 0.05)
    fake = FakeNvml()
    old = driver(fake, tmp_path)
    fake.hang_seconds = 0.4
    assert await old.power_watts() is None
    await old.aclose()
    fake.hang_seconds = 0.0
    monkeypatch.setattr(nvml, "SET_SECONDS", 5.0)
    new = driver(fake, tmp_path)
    await new.set_clock("i0", 800)
    thread = old._thread._thread
    assert thread is not None
    await until(lambda: not thread.is_alive(), what="the call that hung has ended")
    assert fake.devices[0].locked == (345, 800)
    assert fake.is_open
    await new.aclose()
    assert fake.devices[0].locked is None


HANGS = """
import asyncio
from pathlib import Path
from support.fake_drivers import specs
from site_agent.drivers import nvml
from site_agent.drivers.fake_nvml import FakeNvml

async def main():
    nvml.POWER_SECONDS, nvml.SET_SECONDS = 0.01, 0.1
    fake = FakeNvml()
    site = nvml.NvmlGpus(fake, specs(2), state_dir=Path("."))
    fake.hang_seconds = 60.0
    assert await site.power_watts() is None
    await site.aclose()

asyncio.run(main())
"""


def test_a_call_that_hangs_does_not_hold_up_the_end_of_the_agent(tmp_path: Path) -> None:
    """The process ends, as SIGTERM wants it."""
    root = Path(__file__).parents[3]
    began_at = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-c", HANGS],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{root / 'tests'}:{root}"},
        timeout=50,
        check=False,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    assert time.monotonic() - began_at < 40


@pytest.mark.parametrize(
    ("fake", "visible", "message"),
    [
        (FakeNvml(count=1), None, "shows 1"),
        (FakeNvml(count=4), "0", "CUDA_VISIBLE_DEVICES='0' shows 1"),
        (FakeNvml(count=4), "0,GPU-other", "names 'GPU-other'"),
    ],
)
def test_gpus_that_are_not_there_are_said(
    fake: FakeNvml, visible: str | None, message: str, tmp_path: Path
) -> None:
    """Each names the setting to change."""
    with pytest.raises(DriverError, match=message) as caught:
        driver(fake, tmp_path, visible_devices=visible)
    assert caught.value.reason == "missing_gpu"


async def test_instances_count_their_gpus_among_the_visible_ones(tmp_path: Path) -> None:
    """By number or by UUID."""
    fake = FakeNvml(count=4)
    site = driver(fake, tmp_path, visible_devices="GPU-fake-3, 1")
    await site.set_clock("i0", 800)
    await site.set_clock("i1", 1200)
    assert [one.locked for one in fake.devices] == [None, (345, 1200), None, (345, 800)]
    await site.aclose()


def context(state_dir: Path, **options: Any) -> DriverContext:
    class NoProcesses:
        def add(self, label: str, pid: int) -> None: ...
        def remove(self, pid: int) -> None: ...

    return DriverContext(
        site_id="north",
        state_dir=state_dir,
        specs=tuple(specs(2)),
        options=VllmOptions.model_validate({"kind": "vllm", "model": "m", "instances": 2} | options),
        profile=None,
        power_model=SitePowerModel(),
        processes=NoProcesses(),
        environment={},
    )


def test_auto_takes_nvml_where_it_is_and_goes_on_without(tmp_path: Path) -> None:
    """With `nvml` it must be there; with `none` it is not asked."""
    made = context(tmp_path)
    assert isinstance(made.options, VllmOptions)
    assert isinstance(gpus.create(made, made.options, FakeNvml()), NvmlGpus)
    unknown = gpus.create(made, made.options, FakeNvml(has_driver=False))
    assert isinstance(unknown, gpus.UnmeasuredGpus)
    assert not unknown.is_none, "they should have been measured"
    must, never = context(tmp_path, gpu_driver="nvml"), context(tmp_path, gpu_driver="none")
    assert isinstance(must.options, VllmOptions)
    assert isinstance(never.options, VllmOptions)
    with pytest.raises(DriverError, match="nvidia-smi"):
        gpus.create(must, must.options, FakeNvml(has_driver=False))
    assert isinstance(gpus.create(never, never.options, FakeNvml()), gpus.UnmeasuredGpus)


async def test_read_only_changes_nothing_whatever_the_rights(tmp_path: Path) -> None:
    """Clocks that somebody else locked stay locked, from opening to end; the meter must be there."""
    fake = FakeNvml()
    fake.devices[0].locked = (210, 900)
    made = context(tmp_path, gpu_driver="nvml-read-only")
    assert isinstance(made.options, VllmOptions)
    site = gpus.create(made, made.options, fake)
    assert not site.can_set_clock
    assert await site.power_watts() == 230.0
    await site.set_clock("i0", None)
    with pytest.raises(DriverError, match="read only"):
        await site.set_clock("i0", 800)
    await site.aclose()
    assert fake.orders == 0
    assert fake.devices[0].locked == (210, 900)
    with pytest.raises(DriverError, match="nvidia-smi"):
        gpus.create(made, made.options, FakeNvml(has_driver=False))


def test_read_only_with_a_power_limit_is_refused(tmp_path: Path) -> None:
    """Two keys that contradict each other."""
    with pytest.raises(ValueError, match="gpu_power_limit_watts cannot be set"):
        context(tmp_path, gpu_driver="nvml-read-only", gpu_power_limit_watts=500.0)
