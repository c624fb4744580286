"""A real OPC UA server (asyncua) with a power node and a curtailment node; with or without security."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from asyncua import ua
from asyncua.crypto.permission_rules import User, UserRole
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
    """Nodes ns=2;s=Farm.Power and ns=2;s=Farm.Curtailed."""

    def __init__(
        self, *, password: str | None = None, security: tuple[Path, Path, list[Path]] | None = None
    ) -> None:
        """`security`: its certificate, its key, and the certificates of clients that it trusts."""
        self.port = free_ports(1)[0]
        self._password = password
        self._security = security
        self._server: Server | None = None
        self._power: Any = None
        self._curtailed: Any = None

    @property
    def url(self) -> str:
        return f"opc.tcp://{LOOPBACK}:{self.port}/farm"

    async def start(self) -> None:
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
        await server.start()
        self._server = server

    async def _secure(self, server: Server, certificate: Path, key: Path, trusted: list[Path]) -> None:
        from asyncua.crypto.truststore import TrustStore
        from asyncua.crypto.validator import CertificateValidator, CertificateValidatorOptions

        await server.load_certificate(str(certificate))
        await server.load_private_key(str(key))
        server.set_security_policy([ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt])
        store = TrustStore([path.parent / "trusted" for path in trusted], [])
        await store.load()
        options = CertificateValidatorOptions.TRUSTED
        server.set_certificate_validator(CertificateValidator(options, store))

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop()
            self._server = None

    async def say(
        self, value: Any, *, status: int = StatusCodes.Good, at: datetime | None = None, kind: Any = None
    ) -> None:
        """The power node's value from now on."""
        stamp = at or datetime.now(UTC)
        variant = ua.Variant(value, kind) if kind is not None else ua.Variant(value)
        data = ua.DataValue(variant, StatusCode=ua.StatusCode(status), SourceTimestamp=stamp)
        assert self._server is not None
        await self._server.write_attribute_value(self._power.nodeid, data)

    async def curtail(self, is_curtailed: bool) -> None:
        assert self._server is not None
        data = ua.DataValue(ua.Variant(is_curtailed))
        await self._server.write_attribute_value(self._curtailed.nodeid, data)
