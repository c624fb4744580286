"""MQTT: the messages of a topic.

Rule: a retained message is of an unknown age: as a measurement it counts only with a time of its own; as a
curtailment signal it is the state that the farm left there, and counts.
"""

from __future__ import annotations

import contextlib
import secrets
import ssl

import aiomqtt
from aiomqtt.exceptions import MqttConnectError

from power_feed.live_config import MqttSource, MqttTls
from power_feed.sources.json_reading import JsonPath, parse
from power_feed.sources.json_time import time_reader
from power_feed.sources.live import Listener, keep_quiet
from power_feed.sources.secret_file import read_secret
from power_feed.sources.signals import SourceFaultError

MAX_QUEUED_MESSAGES = 64
"""More than a topic sends while a message is read; beyond it the oldest wait and the newest are dropped."""
KEEPALIVE_SECONDS = 10
"""A broker that is gone without a word is noticed in one and a half times that."""
SUBSCRIPTION_REFUSED = 0x80
"""SUBACK codes from here on are failures."""
NOT_ALLOWED = (4, 5, 134, 135)
"""CONNACK codes: bad user or password, not authorised; as 3.1.1 and as paho say it."""


class MqttLink:
    """One topic of one broker, and the curtailment signal's topic beside it."""

    def __init__(self, config: MqttSource) -> None:
        """Raises SourceFaultError: an expression is no JMESPath."""
        keep_quiet("mqtt")
        self._config = config
        self._path = JsonPath(config.json_path, "json_path")
        self._time_path = None if config.time_path is None else JsonPath(config.time_path, "time_path")
        self._time = time_reader(config)
        self._curtailment_path = (
            None
            if config.curtailment is None
            else JsonPath(config.curtailment.json_path, "curtailment.json_path")
        )
        self.description = f"mqtt {config.host}:{config.port} {config.topic}"

    async def listen(self, listener: Listener) -> None:
        """Subscribe and take what comes. Raises SourceFaultError when the connection ends."""
        config = self._config
        topics = [config.topic] if config.curtailment is None else [config.curtailment.topic, config.topic]
        password = None if config.password_file is None else read_secret(config.password_file)
        client = aiomqtt.Client(
            config.host,
            config.port,
            username=config.username,
            password=password,
            identifier=config.client_id or f"heron-{secrets.token_hex(6)}",
            timeout=config.timeout_seconds,
            keepalive=KEEPALIVE_SECONDS,
            max_queued_incoming_messages=MAX_QUEUED_MESSAGES,
            tls_context=None if config.tls is None else _tls(config.tls),
        )
        try:
            async with client:
                for topic in topics:
                    await self._subscribe(client, topic)
                listener.connected()
                async for message in client.messages:
                    self._take(message, listener)
        except (aiomqtt.MqttError, OSError) as error:
            raise self._fault(error) from None
        finally:
            _hang_up(client)

    async def _subscribe(self, client: aiomqtt.Client, topic: str) -> None:
        granted = await client.subscribe(topic, qos=self._config.qos)
        if any(_number(code) >= SUBSCRIPTION_REFUSED for code in granted):
            raise SourceFaultError(
                "credentials", f"the broker does not let this user read {topic}: check its access list"
            )

    def _take(self, message: aiomqtt.Message, listener: Listener) -> None:
        config = self._config
        payload = message.payload if isinstance(message.payload, bytes) else str(message.payload).encode()
        is_power = str(message.topic) == config.topic
        try:
            document = parse(payload)
            if config.curtailment is not None and str(message.topic) == config.curtailment.topic:
                assert self._curtailment_path is not None, "made with the configuration"
                listener.heard_curtailment(self._curtailment_path.find(document))
            if is_power:
                self._take_power(document, listener, is_retained=message.retain)
        except SourceFaultError as error:
            if is_power:
                listener.fault(error)
            else:
                listener.lose_curtailment(error)

    def _take_power(self, document: object, listener: Listener, *, is_retained: bool) -> None:
        observed_at = None
        if self._time_path is not None:
            observed_at = self._time.unix_seconds(self._time_path.find(document))
        elif is_retained:
            return
        listener.heard(self._path.find(document), observed_at=observed_at)

    def _fault(self, error: Exception) -> SourceFaultError:
        where = f"{self._config.host}:{self._config.port}"
        if isinstance(error, MqttConnectError):
            if _number(error.rc) in NOT_ALLOWED:
                return SourceFaultError(
                    "credentials", f"{where} refuses the user: check username and password_file"
                )
            return SourceFaultError("refused", f"{where} refuses the connection: {error}")
        if "SSL" in str(error):
            return SourceFaultError(
                "credentials", f"{where}: TLS: {error}: check tls.ca_file and the broker's certificate"
            )
        if "timed out" in str(error).lower():
            return SourceFaultError(
                "timeout", f"{where} did not answer within {self._config.timeout_seconds:g} s"
            )
        return SourceFaultError("connect", f"{where}: {error}: is the broker up, the address right?")


def _hang_up(client: aiomqtt.Client) -> None:
    """Close the socket: aiomqtt (2.5) leaves it open, and listened to, when CONNECT is not answered."""
    with contextlib.suppress(Exception):
        client._client._sock_close()


def _number(code: object) -> int:
    """Of a reason code, which is a number or has one; -1: neither."""
    number = getattr(code, "value", code)
    return number if isinstance(number, int) else -1


def _tls(config: MqttTls) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=None if config.ca_file is None else str(config.ca_file))
        if config.certificate_file is not None:
            context.load_cert_chain(str(config.certificate_file), str(config.private_key_file))
    except OSError as error:
        raise SourceFaultError("credentials", f"a file of the tls table cannot be used: {error}") from None
    return context
