"""The Modbus source against a real Modbus TCP server."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pymodbus.constants import ExcCodes
from support.modbus_device import ModbusDevice
from support.raw_server import raw_server
from support.running_source import running_source

from cli.ports import free_ports


@pytest.fixture
async def device() -> AsyncIterator[ModbusDevice]:
    subject = ModbusDevice()
    await subject.start()
    yield subject
    await subject.stop()


def source(port: int, **keys: Any) -> dict[str, Any]:
    table = {"kind": "modbus", "host": "127.0.0.1", "port": port, "unit": "kW", "power": {"address": 10}}
    return table | keys


async def test_a_register_is_read_and_followed(device: ModbusDevice) -> None:
    """A float32 in kW, read each period."""
    device.hold(10, "f", 0.5)
    async with running_source(source(device.port)) as subject:
        await subject.until_watts(500.0)
        device.hold(10, "f", 0.25)
        await subject.until_watts(250.0)
        assert subject.source.status.connections == 1
        assert subject.source.status.faults == {}


@pytest.mark.parametrize(
    ("power", "code", "value"),
    [
        ({"type": "int16"}, "h", -123),
        ({"type": "uint16"}, "H", 65_000),
        ({"type": "int32"}, "i", -70_000),
        ({"type": "uint32"}, "I", 4_000_000_000),
        ({"type": "int64"}, "q", -5_000_000_000),
        ({"type": "uint64"}, "Q", 5_000_000_000),
        ({"type": "float64"}, "d", 123.25),
        ({"type": "float32", "table": "input"}, "f", 123.25),
    ],
)
async def test_every_type_is_understood(
    device: ModbusDevice, power: dict[str, Any], code: str, value: float
) -> None:
    """Integers and floats of one to four registers, of either table."""
    device.hold(10, code, value)
    async with running_source(source(device.port, unit="W", power={"address": 10, **power})) as subject:
        await subject.until_watts(value)


async def test_orders_of_words_and_bytes_are_as_configured(device: ModbusDevice) -> None:
    """Low word first, and bytes swapped inside a register."""
    high, low = 0x4040, 0x3000  # 3.0029296875 as float32
    device.registers[10:12] = [low, high]
    little = {"address": 10, "word_order": "little"}
    async with running_source(source(device.port, unit="W", power=little)) as subject:
        await subject.until_watts(3.0029296875)
    device.registers[10:12] = [0x4040, 0x0030]
    swapped = {"address": 10, "byte_order": "little"}
    async with running_source(source(device.port, unit="W", power=swapped)) as subject:
        await subject.until_watts(3.0029296875)


async def test_scale_offset_and_sunspecs_scale_factor(device: ModbusDevice) -> None:
    """(123 × 10^-1 × 2 + 5) W; an exponent that is none is a fault, and no measurement."""
    device.hold(10, "h", 123)
    device.hold(11, "h", -1)
    keys = {"unit": "W", "power": {"address": 10, "type": "int16"}, "exponent_address": 11}
    async with running_source(source(device.port, **keys, scale=2.0, offset=5.0)) as subject:
        await subject.until_watts(pytest.approx(29.6))  # type: ignore[arg-type]
        device.hold(11, "h", 77)
        assert "no power of ten" in await subject.until_fault("missing")
        await subject.until_watts(None)


async def test_the_devices_own_word_for_nothing_is_no_measurement(device: ModbusDevice) -> None:
    """SunSpec's 0x8000 is not -32,768 W."""
    device.hold(10, "h", -32768)
    keys = {"unit": "W", "power": {"address": 10, "type": "int16"}, "missing_value": -32768}
    async with running_source(source(device.port, **keys)) as subject:
        await subject.until_fault("missing")
        assert subject.watts is None


async def test_nan_and_nonsense_are_handed_on_as_measured(device: ModbusDevice) -> None:
    """A source judges nothing: NaN, a negative and an absurd value are for the quality checks."""
    device.hold(10, "f", math.nan)
    async with running_source(source(device.port)) as subject:
        await subject.until_connected()
        assert math.isnan(subject.watts or 0.0)
        device.hold(10, "f", -2.0)
        await subject.until_watts(-2000.0)
        device.hold(10, "f", 1e30)
        await subject.until_watts(pytest.approx(1e33))  # type: ignore[arg-type]


async def test_a_wrong_address_is_said_and_asked_again(device: ModbusDevice) -> None:
    """The device's exception is a fault of its own; the connection stays."""
    async with running_source(source(device.port, power={"address": 5000})) as subject:
        message = await subject.until_fault("missing", more_than=3)
        assert "no such register" in message
        assert subject.source.status.is_connected
        assert subject.source.status.connections == 1
        assert subject.watts is None


async def test_a_device_that_fails_and_recovers(device: ModbusDevice) -> None:
    """While it answers with exceptions nothing is measured; then it goes on."""
    device.hold(10, "f", 0.5)
    async with running_source(source(device.port)) as subject:
        await subject.until_watts(500.0)
        device.exception = ExcCodes.DEVICE_FAILURE
        await subject.until_fault("refused")
        await subject.until_watts(None)
        device.exception = None
        await subject.until_watts(500.0)


async def test_a_device_that_restarts_is_found_again(device: ModbusDevice) -> None:
    """By itself, and each failed attempt is counted."""
    device.hold(10, "f", 0.5)
    async with running_source(source(device.port)) as subject:
        await subject.until_watts(500.0)
        await device.stop()
        await subject.until_fault("connect")
        assert not subject.source.status.is_connected
        device.hold(10, "f", 0.75)
        await device.start()
        await subject.until_watts(750.0)
        assert subject.source.status.connections == 2


async def test_slow_answers_time_out(device: ModbusDevice) -> None:
    """And when the device is quick again the source is back."""
    device.hold(10, "f", 0.5)
    device.delay_seconds = 5.0
    async with running_source(source(device.port, timeout_seconds=0.2)) as subject:
        assert "no Modbus answer" in await subject.until_fault("timeout")
        device.delay_seconds = 0.0
        await subject.until_watts(500.0)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00" * 64, None])
async def test_what_is_no_modbus_device_is_never_a_measurement(answer: bytes | None) -> None:
    """Another protocol, zeros, silence: a fault each time, no value ever."""
    async with raw_server(answer) as port, running_source(source(port, timeout_seconds=0.2)) as subject:
        await subject.until_fault("timeout", more_than=1)
        assert subject.watts is None
        assert set(subject.source.status.faults) == {"timeout"}


async def test_nobody_there_is_a_clear_message() -> None:
    """With address and port, and what to look at."""
    port = free_ports(1)[0]
    async with running_source(source(port)) as subject:
        message = await subject.until_fault("connect", more_than=2)
        assert f"127.0.0.1:{port} takes no connection" in message


async def test_produced_power_counts_only_while_the_farm_is_free(device: ModbusDevice) -> None:
    """A set-point below 100 % means curtailed: then nothing is measured, and so when it cannot be read."""
    device.hold(10, "f", 0.5)
    device.hold(20, "H", 100)
    curtailment = {"address": 20, "curtailed_if": "below", "threshold": 99.5}
    async with running_source(source(device.port, measures="produced", curtailment=curtailment)) as subject:
        await subject.until_watts(500.0)
        device.hold(20, "H", 40)
        await subject.until_watts(None)
        device.hold(20, "H", 100)
        await subject.until_watts(500.0)
        await device.stop()
        await subject.until_watts(None)
