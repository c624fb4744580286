"""`heron power-feed test` as an operator runs it, against a real device and against what goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.heron_command import HERON
from support.modbus_device import ModbusDevice

from cli.toml_text import to_toml


@pytest.fixture
async def device() -> AsyncIterator[ModbusDevice]:
    subject = ModbusDevice()
    await subject.start()
    yield subject
    await subject.stop()


def modbus(port: int, **keys: Any) -> dict[str, Any]:
    table = {"kind": "modbus", "host": "127.0.0.1", "port": port, "unit": "kW", "period_seconds": 0.2}
    return table | {"power": {"address": 10}, "max_retry_seconds": 0.2} | keys


async def look(directory: Path, sources: dict[str, dict[str, Any]], *arguments: str) -> tuple[int, str]:
    """Exit code and all that was printed."""
    farms = [
        {"farm_id": name, "site_id": name, "nameplate_watts": 1000.0, "source": source}
        for name, source in sources.items()
    ]
    path = directory / "fleet.toml"
    path.write_text(to_toml({"power_feed": {"farms": farms}}))
    process = await asyncio.create_subprocess_exec(
        *HERON,
        "power-feed",
        "test",
        "--config",
        str(path),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await asyncio.wait_for(process.communicate(), timeout=60)
    return process.returncode or 0, out.decode()


async def test_a_good_source_is_shown_and_found_usable(device: ModbusDevice, tmp_path: Path) -> None:
    """Value, share of nameplate, age, verdict; exit code 0."""
    device.hold(10, "f", 0.525)
    code, text = await look(tmp_path, {"coast": modbus(device.port)}, "--seconds", "2")
    assert code == 0, text
    assert "525.0 W   52.5%" in text
    assert "good" in text
    assert "connected" in text
    assert "The feed can use this source." in text


async def test_what_a_check_fails_is_shown(device: ModbusDevice, tmp_path: Path) -> None:
    """With the check's name and what was measured."""
    device.hold(10, "f", -0.5)
    code, text = await look(tmp_path, {"coast": modbus(device.port)}, "--seconds", "2")
    assert code == 1
    assert "suspect (negative), measured -500.0 W" in text


async def test_a_source_that_cannot_be_used_says_what_to_do(tmp_path: Path) -> None:
    """Nobody there: the fault, the hint, exit code 1; no traceback."""
    code, text = await look(tmp_path, {"coast": modbus(1)}, "--seconds", "2")
    assert code == 1
    assert "takes no connection" in text
    assert "connect: Is the address and port right" in text
    assert "The feed cannot use this source." in text
    assert "Traceback" not in text


async def test_a_curtailed_farm_is_told_from_a_silent_one(device: ModbusDevice, tmp_path: Path) -> None:
    """Numbers come and are not used."""
    device.hold(20, "H", 1)
    source = modbus(device.port, measures="produced", curtailment={"address": 20})
    code, text = await look(tmp_path, {"coast": source}, "--seconds", "2")
    assert code == 1
    assert "the farm is curtailed" in text


async def test_of_several_farms_one_is_chosen(tmp_path: Path) -> None:
    """By name; a record can be tested too."""
    sources = {"coast": modbus(1), "hill": {"kind": "schedule", "points": [[0, 0.5]]}}
    code, text = await look(tmp_path, sources)
    assert code == 2
    assert "coast, hill" in text
    code, text = await look(tmp_path, sources, "--farm", "hill", "--seconds", "1")
    assert code == 0, text
    code, text = await look(tmp_path, sources, "--farm", "valley")
    assert code == 2
