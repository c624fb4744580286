"""A real OPC UA server (asyncua) with a power node and a curtailment node; with or without security."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from asyncua import ua
from asyncua.crypto.permission_rules import User, UserRole
from asyncua.server.binary_server_asyncio import BinaryServer
from asyncua.server.server import Server
from asyncua.ua.status_codes import StatusCodes

from cli.ports import LOOPBACK, free_ports

URI = "urn:heron:test:turbine"


class _Users:
    """Everybody without a password; or one user with the right one."""

    def __init__(self, password: str | None) -> None:
        self._password = password

    def get_user(
        self, _iserver: Any, username: str | None = None, password: Any = None, certificate: Any = None
    ) -> User | None:
        given = password.decode() if isinstance(password, bytes) else password
        if self._password is None or (username == "feed" and given == self._password):
            return User(role=UserRole.User)
        return None


class OpcUaServer:
    """Nodes Farm.Power, Farm.Curtailed, and some that hold no number, in namespace 2."""

    def __init__(
        self,
        *,
        password: str | None = None,
        security: tuple[Path, Path, list[Path]] | None = None,
        policies: Sequence[str] = ("Basic256Sha256_SignAndEncrypt",),
    ) -> None:
        """`security`: its certificate, its key, and the certificates of clients that it trusts.
        `policies`: what it offers then, by name of `ua.SecurityPolicyType`.
        """
        self.port = free_ports(1)[0]
        self._password = password
        self._security = security
        self._policies = policies
        self._server: Server | None = None
        self._power: Any = None
        self._curtailed: Any = None

    @property
    def url(self) -> str:
        return f"opc.tcp://{LOOPBACK}:{self.port}/farm"

    def start(self) -> None:
        """Returns once it answers; it runs in a thread of its own, since it takes seconds to build."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._run(self._start())

    def stop(self) -> None:
        """The whole server, address space and sessions too; `start` makes another at the same port."""
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=20)

    def say(self, value: Any, *, status: int = StatusCodes.Good, at: datetime | None = None) -> None:
        """The power node's value from now on."""
        self._run(self._say(value, status, at))

    def curtail(self, is_curtailed: bool) -> None:
        """The curtailment node's value from now on."""
        data = ua.DataValue(ua.Variant(is_curtailed))
        self._run(self._the_server.write_attribute_value(self._curtailed.nodeid, data))

    def hang_up(self) -> None:
        """Close all connections and the port."""
        assert self._the_server.bserver is not None
        self._run(self._the_server.bserver.stop())

    def listen_again(self) -> None:
        """After `hang_up`."""
        server = self._the_server
        server.bserver = BinaryServer(server.iserver, LOOPBACK, self.port, server.limits)
        server.bserver.set_policies(server._policies)
        self._run(server.bserver.start())

    @property
    def _the_server(self) -> Server:
        assert self._server is not None
        return self._server

    def _run(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=60)

    async def _start(self) -> None:
        server = Server(user_manager=_Users(self._password))  # type: ignore[arg-type]
        await server.init()
        server.set_endpoint(self.url)
        await server.set_application_uri(URI)
        if self._password is not None:
            server.set_identity_tokens([ua.UserNameIdentityToken])
        if self._security is None:
            server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        else:
            await self._secure(server, *self._security)
        await server.register_namespace("urn:heron:test")
        objects = server.nodes.objects
        self._power = await objects.add_variable(
            ua.NodeId.from_string("ns=2;s=Farm.Power"), "Power", 0.5, varianttype=ua.VariantType.Double
        )
        self._curtailed = await objects.add_variable(
            ua.NodeId.from_string("ns=2;s=Farm.Curtailed"), "Curtailed", False
        )
        for name, value in (("Text", "0.5"), ("Array", [1.0, 2.0]), ("Flag", True)):
            await objects.add_variable(ua.NodeId.from_string(f"ns=2;s=Farm.{name}"), name, value)
        await server.start()
        self._server = server

    async def _secure(self, server: Server, certificate: Path, key: Path, trusted: list[Path]) -> None:
        from asyncua.crypto.truststore import TrustStore
        from asyncua.crypto.validator import CertificateValidator, CertificateValidatorOptions

        await server.load_certificate(str(certificate), "pem")
        await server.load_private_key(str(key), None, "pem")
        server.set_security_policy([ua.SecurityPolicyType[name] for name in self._policies])
        store = TrustStore([path.parent / "trusted" for path in trusted], [])
        await store.load()
        options = CertificateValidatorOptions.TRUSTED
        server.set_certificate_validator(CertificateValidator(options, store))

    async def _stop(self) -> None:
        await self._the_server.stop()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _say(self, value: Any, status: int, at: datetime | None) -> None:
        stamp = at or datetime.now(UTC)
        data = ua.DataValue(ua.Variant(value), StatusCode=ua.StatusCode(status), SourceTimestamp=stamp)
        await self._the_server.write_attribute_value(self._power.nodeid, data)
