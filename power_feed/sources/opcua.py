"""OPC UA: a node, subscribed to and read once a period.

A subscription alone reports changes only, so a value that stands still and a source that is gone would look
the same; the read tells them apart, and the subscription brings a fall at once. However long the period, the
library asks the server every few seconds whether it is there: a subscription that died says nothing.

Rule: with `security` only the server with the configured certificate is talked to; a status that is not good
is no measurement, whatever value came with it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from datetime import UTC
from pathlib import Path
from typing import Any

from asyncua import ua
from asyncua.client.client import Client
from asyncua.common.node import Node
from asyncua.crypto import security_policies, uacrypto
from asyncua.ua.status_codes import StatusCodes
from asyncua.ua.uaerrors import UaError, UaStatusCodeError

from power_feed.live_config import OpcUaSource
from power_feed.sources.live import Listener, keep_quiet
from power_feed.sources.secret_file import read_secret
from power_feed.sources.signals import SourceFaultError

GOODBYE_SECONDS = 1.0
"""For leaving politely."""
MIN_PUBLISHING_SECONDS = 0.1
MAX_PUBLISHING_SECONDS = 1.0
"""However long the period: this is what a fall waits for."""
MAX_MESSAGE_BYTES = 1 << 20
MAX_CHUNKS = 64
MAX_FILE_BYTES = 1 << 16
_CREDENTIALS = (
    StatusCodes.BadUserAccessDenied,
    StatusCodes.BadIdentityTokenInvalid,
    StatusCodes.BadIdentityTokenRejected,
    StatusCodes.BadUserSignatureInvalid,
)
_SECURITY = (
    StatusCodes.BadSecurityChecksFailed,
    StatusCodes.BadCertificateInvalid,
    StatusCodes.BadCertificateUntrusted,
    StatusCodes.BadCertificateTimeInvalid,
    StatusCodes.BadCertificateUriInvalid,
    StatusCodes.BadSecurityPolicyRejected,
    StatusCodes.BadSecurityModeRejected,
    StatusCodes.BadNonceInvalid,
)
_NO_NODE = (StatusCodes.BadNodeIdUnknown, StatusCodes.BadNodeIdInvalid)


class OpcUaLink:
    """One node of one server."""

    def __init__(self, config: OpcUaSource) -> None:
        keep_quiet("asyncua")
        self._config = config
        self.description = f"opcua {config.url} {config.node}"

    async def listen(self, listener: Listener) -> None:
        """Connect, subscribe, read for ever. Raises SourceFaultError when the connection ends."""
        try:
            client = await self._client()
        except (OSError, UaError, TimeoutError, ConnectionError) as error:
            raise self._fault(error) from None
        try:
            await self._within(client.connect())
            listener.connected()
            await self._follow(client, listener)
        except (OSError, UaError, TimeoutError, ConnectionError) as error:
            raise self._fault(error) from None
        finally:
            try:
                with contextlib.suppress(Exception):
                    await _within(client.disconnect(), GOODBYE_SECONDS)
            finally:
                client.disconnect_socket()

    async def _client(self) -> Client:
        config = self._config
        client = Client(config.url, timeout=config.timeout_seconds, watchdog_intervall=config.timeout_seconds)
        client.max_messagesize = MAX_MESSAGE_BYTES
        client.max_chunkcount = MAX_CHUNKS
        client.name = client.description = "Heron power feed"
        if config.username is not None:
            client.set_user(config.username)
        if config.password_file is not None:
            client.set_password(read_secret(config.password_file))
        if config.security is not None:
            security = config.security
            client.application_uri = security.application_uri
            try:
                await client.set_security(
                    getattr(security_policies, f"SecurityPolicy{security.policy}"),
                    certificate=_file(security.certificate_file),
                    private_key=_file(security.private_key_file),
                    server_certificate=_file(security.server_certificate_file),
                    mode=getattr(ua.MessageSecurityMode, security.mode),
                )
            except (ValueError, TypeError) as error:
                raise SourceFaultError(
                    "credentials", f"a certificate or key file cannot be used: {error}"
                ) from None
        return client

    async def _follow(self, client: Client, listener: Listener) -> None:
        config = self._config
        node = _node(client, config.node)
        curtailment = None if config.curtailment is None else _node(client, config.curtailment.node)
        lost: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

        async def lose(error: Exception) -> None:
            if not lost.done():
                lost.set_result(error)

        client.connection_lost_callback = lose
        await self._read(node, curtailment, listener)
        publishing_seconds = min(config.period_seconds / 4, MAX_PUBLISHING_SECONDS)
        publishing_seconds = max(MIN_PUBLISHING_SECONDS, publishing_seconds)
        handler = _Changes(self, node, listener)
        subscription = await self._within(client.create_subscription(1000 * publishing_seconds, handler))
        nodes = [node] if curtailment is None else [curtailment, node]
        await self._within(subscription.subscribe_data_change(nodes))
        while True:
            await asyncio.wait({lost}, timeout=config.period_seconds)
            if lost.done():
                raise lost.result()
            await self._read(node, curtailment, listener)

    async def _read(self, node: Node, curtailment: Node | None, listener: Listener) -> None:
        """Both nodes; the curtailment signal first, so that no curtailed value passes as a free one."""
        if curtailment is not None:
            self.take_curtailment(await self._within(_value(curtailment)), listener)
        self.take_power(await self._within(_value(node)), listener)

    def take_power(self, data: ua.DataValue, listener: Listener) -> None:
        """A value of the power node, read or reported."""
        if not _is_good(data):
            listener.fault(_bad_status(self._config.node, data))
            return
        observed_at = None
        if self._config.timestamp == "source":
            stamp = data.SourceTimestamp
            if stamp is None:
                error = SourceFaultError("clock", 'no SourceTimestamp came: set timestamp = "arrival"')
                listener.fault(error)
                return
            observed_at = (stamp if stamp.tzinfo is not None else stamp.replace(tzinfo=UTC)).timestamp()
        listener.heard(_content(data), observed_at=observed_at)

    def take_curtailment(self, data: ua.DataValue, listener: Listener) -> None:
        """A value of the curtailment node; unknown where its status is not good."""
        if _is_good(data):
            listener.heard_curtailment(_content(data))
            return
        node = "" if self._config.curtailment is None else self._config.curtailment.node
        listener.lose_curtailment(_bad_status(node, data))

    async def _within(self, work: Coroutine[Any, Any, Any]) -> Any:
        return await _within(work, self._config.timeout_seconds)

    def _fault(self, error: Exception) -> SourceFaultError:
        """What an error of the library means for an operator."""
        url = self._config.url
        code = error.code if isinstance(error, UaStatusCodeError) else None
        if isinstance(error, TimeoutError):
            text = f"{url} did not answer within {self._config.timeout_seconds:g} s"
            return SourceFaultError("timeout", f"{text}: is the network slow, or timeout_seconds short?")
        if code in _CREDENTIALS:
            return SourceFaultError("credentials", f"{url} refuses the user: check username, password_file")
        if code in _SECURITY:
            return SourceFaultError(
                "credentials",
                f"{url} refuses the channel ({error}): let the server trust certificate_file; check policy, "
                "mode, application_uri and both clocks",
            )
        if code in _NO_NODE:
            return SourceFaultError("missing", f"{url} has no such node ({error}): check node")
        if isinstance(error, OSError):
            what = "ended the connection" if error.errno is None else "takes no connection"
            return SourceFaultError("connect", f"{url} {what}: {error.strerror or error}")
        return SourceFaultError("protocol", f"{url}: {type(error).__name__}: {error}")


class _Changes:
    """What the subscription calls."""

    def __init__(self, link: OpcUaLink, node: Node, listener: Listener) -> None:
        self._link = link
        self._node = node
        self._listener = listener

    def datachange_notification(self, node: Node, _value: Any, data: Any) -> None:
        value = data.monitored_item.Value
        if node == self._node:
            self._link.take_power(value, self._listener)
        else:
            self._link.take_curtailment(value, self._listener)


async def _within(work: Coroutine[Any, Any, Any], seconds: float) -> Any:
    """Its result. Unlike `wait_for` it does not wait for what cannot be cancelled, as much of asyncua cannot.

    Raises:
        TimeoutError: it took longer.
    """
    task = asyncio.ensure_future(work)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    try:
        await asyncio.wait({task}, timeout=seconds)
        if not task.done():
            raise TimeoutError
        return task.result()
    finally:
        task.cancel()


async def _value(node: Node) -> ua.DataValue:
    return await node.read_data_value(raise_on_bad_status=False)


def _node(client: Client, text: str) -> Node:
    try:
        return client.get_node(text)
    except (ValueError, UaError) as error:
        raise SourceFaultError(
            "missing", f"{text!r} is no node id ({error}): write it like ns=2;s=Name or ns=2;i=42"
        ) from None


def _is_good(data: ua.DataValue) -> bool:
    return data.StatusCode is None or data.StatusCode.is_good()


def _content(data: ua.DataValue) -> object:
    return None if data.Value is None else data.Value.Value


def _bad_status(node: str, data: ua.DataValue) -> SourceFaultError:
    code = data.StatusCode
    name = "unknown" if code is None else code.name
    if code is not None and code.value in _NO_NODE:
        return SourceFaultError("missing", f"the server has no node {node} ({name}): check the node id")
    return SourceFaultError("bad_status", f"{node}: status {name}: the server does not trust the value")


def _file(path: Path) -> uacrypto.CertProperties:
    """A certificate or key; PEM or DER by what is in it, whatever its name ends with."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES)
    except OSError as error:
        raise SourceFaultError("credentials", f"{path}: cannot be read: {error.strerror}") from None
    return uacrypto.CertProperties(content, "pem" if content.startswith(b"-----BEGIN") else "der")
