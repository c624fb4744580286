"""A real Modbus TCP server (pymodbus), whose registers a test sets and whose answers it can spoil."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from cli.ports import LOOPBACK, free_ports

REGISTERS = 200


class ModbusDevice:
    """Unit 1, holding and input registers 0 … 199 in one table."""

    def __init__(self) -> None:
        self.port = free_ports(1)[0]
        self.registers = [0] * REGISTERS
        self.delay_seconds = 0.0
        self.exception: ExcCodes | None = None
        self._server: ModbusTcpServer | None = None

    async def start(self) -> None:
        data = SimData(address=0, count=REGISTERS, values=0, datatype=DataType.REGISTERS)
        device = SimDevice(id=1, simdata=[data], action=self._answer)
        self._server = ModbusTcpServer(device, address=(LOOPBACK, self.port))
        await self._server.serve_forever(background=True)

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.shutdown()
            self._server = None

    def hold(self, address: int, code: str, value: float) -> None:
        """Put a number there, big-endian words; `code` as struct's, e.g. `f`."""
        raw = struct.pack(f">{code}", value)
        for index in range(0, len(raw), 2):
            self.registers[address + index // 2] = int.from_bytes(raw[index : index + 2], "big")

    async def _answer(
        self, _code: int, start: int, address: int, count: int, current: list[int], _written: Any
    ) -> ExcCodes | None:
        if self.delay_seconds:
            await asyncio.sleep(self.delay_seconds)
        for index in range(address, address + count):
            current[index - start] = self.registers[index]
        return self.exception
