"""Modbus TCP: a few registers, read once a period.

Rule: an exception from the device (a wrong address, say) is answered by saying so and asking again; no answer
or bytes that are no Modbus end the connection.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Sequence

from pymodbus.client import AsyncModbusTcpClient
from pymodbus.exceptions import ModbusException

from power_feed.live_config import REGISTERS, ModbusSource, Register, RegisterType
from power_feed.sources.live import Listener, keep_quiet
from power_feed.sources.signals import SourceFaultError

_FORMATS: dict[RegisterType, str] = {
    "int16": ">h",
    "uint16": ">H",
    "int32": ">i",
    "uint32": ">I",
    "int64": ">q",
    "uint64": ">Q",
    "float32": ">f",
    "float64": ">d",
}
MAX_EXPONENT = 10
"""SunSpec's scale factors go from -10 to 10; another value is no scale factor."""
EXCEPTIONS = {
    1: ("refused", "the device does not know the function: try the other table"),
    2: ("missing", "the device has no such register: check address (from 0), table and unit_id"),
    3: ("refused", "the device refuses so many registers: check address and type"),
    4: ("refused", "the device failed: see its own diagnosis"),
    6: ("refused", "the device is busy: lengthen period_seconds"),
    10: ("connect", "the gateway has no path to the device: check unit_id"),
    11: ("timeout", "the device behind the gateway does not answer: is it on, is unit_id right?"),
}
"""Exception code (Modbus Application Protocol 1.1b3, section 7) → fault and what to do."""


class ModbusLink:
    """One device."""

    def __init__(self, config: ModbusSource) -> None:
        keep_quiet("pymodbus")
        self._config = config
        self.description = (
            f"modbus {config.host}:{config.port} unit {config.unit_id} "
            f"{config.power.table} {config.power.address}"
        )

    async def listen(self, listener: Listener) -> None:
        """Read for ever. Raises SourceFaultError when the connection is of no more use."""
        config = self._config
        client = AsyncModbusTcpClient(
            config.host, port=config.port, timeout=config.timeout_seconds, retries=0, reconnect_delay=0
        )
        loop = asyncio.get_running_loop()
        try:
            if not await client.connect():
                raise SourceFaultError(
                    "connect",
                    f"{config.host}:{config.port} takes no connection: is the address right, the device on, "
                    "a firewall between?",
                )
            is_known = False
            while True:
                due_at = loop.time() + config.period_seconds
                await self._read_once(client, listener)
                if not is_known:
                    listener.connected()
                    is_known = True
                await asyncio.sleep(max(0.0, due_at - loop.time()))
        finally:
            client.close()

    async def _read_once(self, client: AsyncModbusTcpClient, listener: Listener) -> None:
        """All registers; the curtailment signal first, so that no curtailed value passes as a free one."""
        if self._config.curtailment is not None:
            try:
                listener.heard_curtailment(await self._read(client, self._config.curtailment))
            except _DeviceRefusalError as refusal:
                listener.lose_curtailment(refusal)
        try:
            listener.heard(await self._power(client))
        except _DeviceRefusalError as refusal:
            listener.fault(refusal)

    async def _power(self, client: AsyncModbusTcpClient) -> float | None:
        config = self._config
        value = await self._read(client, config.power)
        if config.missing_value is not None and value == config.missing_value:
            return None
        if config.exponent_address is None:
            return value
        beside = Register(address=config.exponent_address, table=config.power.table, type="int16")
        exponent = await self._read(client, beside)
        if abs(exponent) > MAX_EXPONENT:
            raise _DeviceRefusalError("missing", f"exponent_address holds {exponent:g}: no power of ten")
        return float(value * 10.0**exponent)

    async def _read(self, client: AsyncModbusTcpClient, register: Register) -> float:
        read = client.read_holding_registers if register.table == "holding" else client.read_input_registers
        count = REGISTERS[register.type]
        try:
            answer = await read(register.address, count=count, device_id=self._config.unit_id)
        except ModbusException as error:
            raise SourceFaultError(
                "timeout",
                f"no Modbus answer for register {register.address} within {self._config.timeout_seconds:g} s "
                f"({error.string})",
            ) from None
        if answer.isError():
            kind, advice = EXCEPTIONS.get(answer.exception_code, ("refused", "see the device's manual"))
            raise _DeviceRefusalError(
                kind,  # type: ignore[arg-type]
                f"register {register.address}: exception {answer.exception_code}: {advice}",
            )
        if len(answer.registers) != count:
            raise SourceFaultError(
                "protocol", f"{len(answer.registers)} registers came for {count} asked: is this Modbus TCP?"
            )
        return number_in(answer.registers, register)


class _DeviceRefusalError(SourceFaultError):
    """The device answers, but not with a value; the connection is good."""


def number_in(registers: Sequence[int], register: Register) -> float:
    """The number that registers (16 bits each, as on the wire) hold."""
    ordered = registers if register.word_order == "big" else registers[::-1]
    raw = b"".join(word.to_bytes(2, register.byte_order) for word in ordered)
    value: float = struct.unpack(_FORMATS[register.type], raw)[0]
    return value
