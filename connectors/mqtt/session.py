"""One connection to an MQTT broker, driven by the event loop.

paho's own thread is not used: the socket is watched by asyncio, so that not reading it is all
that back-pressure needs, and no message is handed from thread to thread.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import threading
from collections.abc import Callable
from typing import Any, Final

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from connectors.errors import ConfigError
from connectors.mqtt.config import MqttConfig

CONNECT_TIMEOUT_S: Final = 10.0
READS_AT_ONCE: Final = 256  # messages before other work of the loop gets its turn

log = logging.getLogger(__name__)


class MqttSession:
    """A connection from CONNECT to its end; never reconnects.

    on_accepted is called once, before the first message, with whether the broker kept our
    session; on_message with each message, in order; both in the loop's thread. `lost` resolves
    with the reason when the connection has ended.
    """

    def __init__(
        self,
        config: MqttConfig,
        client_id: str,
        on_accepted: Callable[[MqttSession, bool], None],
        on_message: Callable[[MqttSession, mqtt.MQTTMessage], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._config = config
        self._on_accepted = on_accepted
        self._on_message = on_message
        self._socket: Any = None
        self._reading = False
        self._paused = False
        self._messages = 0
        self._answer: asyncio.Future[None] = self._loop.create_future()
        self.lost: asyncio.Future[str] = self._loop.create_future()
        self.refused: list[str] = []  # subscriptions the broker refuses
        self._client = self._build(client_id)

    async def connect(self) -> None:
        """Reach the broker and wait for its answer. Raises OSError (with the reason in words)
        when that fails and `ConfigError` when a certificate file is unusable."""
        client, config = self._client, self._config
        properties = None
        arguments: dict[str, Any] = {}
        if config.protocol == "5":
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho's
            properties.SessionExpiryInterval = min(config.session_expiry // 10**9, 0xFFFF_FFFF)
            properties.ReceiveMaximum = min(config.max_inflight, 65_535)
            arguments = {"clean_start": False, "properties": properties}
        keep_alive = min(max(config.keep_alive // 10**9, 1), 65_535)

        def reach() -> None:
            client.connect(config.host, config.port, keepalive=keep_alive, **arguments)

        await _in_thread(self._loop, reach)
        self._socket = client.socket()
        if self._socket is None:
            raise ConnectionError("the broker closed the connection")
        self._watch_reading()
        self._want_write()
        try:
            await asyncio.wait_for(asyncio.shield(self._answer), CONNECT_TIMEOUT_S)
        except TimeoutError as error:
            raise ConnectionError("the broker does not answer CONNECT") from error

    def acknowledge(self, mids: list[int]) -> None:
        """PUBACK these messages, in this order."""
        if self._socket is None:
            return
        for mid in mids:
            self._client.ack(mid, 1)
        self._writable()

    def pause(self, paused: bool) -> None:
        """Stop or resume reading from the socket."""
        self._paused = paused
        self._watch_reading()

    def tick(self) -> None:
        """To be called once a second: keep-alive. A paused connection is not pinged, as the
        answer would not be read; the broker may then end it, and keeps the session."""
        if self._socket is not None and not self._paused:
            self._client.loop_misc()

    async def close(self) -> None:
        """DISCONNECT, behind the acknowledgements so far; a peer that takes nothing for half a
        second is left without."""
        if self._socket is not None:
            self._client.disconnect()
            until = self._loop.time() + 0.5
            while self._socket is not None and self._client.want_write() and self._loop.time() < until:
                self._writable()
                await asyncio.sleep(0.005)
        self.abort()

    def abort(self) -> None:
        """Let go of the socket without a word."""
        open_socket = self._client.socket()
        if open_socket is not None:
            self._forget_socket()
            open_socket.close()
        self._end("closed")

    def _build(self, client_id: str) -> mqtt.Client:
        config = self._config
        version5 = config.protocol == "5"
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=None if version5 else False,
            protocol=mqtt.MQTTv5 if version5 else mqtt.MQTTv311,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client.connect_timeout = CONNECT_TIMEOUT_S
        if config.username is not None:
            client.username_pw_set(config.username, config.password)
        if config.tls:
            try:
                client.tls_set(config.ca_file, config.cert_file, config.key_file)
            except (OSError, ValueError) as error:
                files = ", ".join(
                    name for name in (config.ca_file, config.cert_file, config.key_file) if name
                )
                raise ConfigError(f"TLS files {files or '(none)'}: {_words(error)}") from error
        client.on_connect = self._connected
        client.on_disconnect = self._disconnected
        client.on_subscribe = self._subscribed
        client.on_message = self._received
        client.on_socket_close = self._closing
        client.on_socket_register_write = self._register_write
        client.on_socket_unregister_write = self._unregister_write
        return client

    # paho's callbacks; all but those during `connect` come in the loop's thread

    def _connected(self, client: Any, userdata: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        if self._answer.done():
            return
        if reason.is_failure:
            self._answer.set_exception(ConnectionRefusedError(f"the broker refuses us: {reason}"))
            self._answer.exception()  # seen, also when nobody waits any more
            return
        qos = self._config.qos
        if self._config.protocol == "5":
            options = SubscribeOptions(qos=qos, retainAsPublished=False)
            client.subscribe([(topic, options) for topic in self._config.subscribe])
        else:
            client.subscribe([(topic, qos) for topic in self._config.subscribe])
        self._on_accepted(self, bool(flags.session_present))
        self._answer.set_result(None)

    def _subscribed(
        self, client: Any, userdata: Any, mid: int, reasons: list[ReasonCode], properties: Any
    ) -> None:
        for topic, reason in zip(self._config.subscribe, reasons, strict=False):
            if reason.is_failure:
                self.refused.append(f"{topic}: {reason}")
                log.error("the broker refuses the subscription %s: %s", topic, reason)

    def _received(self, client: Any, userdata: Any, message: mqtt.MQTTMessage) -> None:
        self._messages += 1
        self._on_message(self, message)

    def _disconnected(
        self, client: Any, userdata: Any, flags: Any, reason: ReasonCode, properties: Any
    ) -> None:
        said = (
            "the broker ended the connection" if flags.is_disconnect_packet_from_server else "connection lost"
        )
        self._end(f"{said}: {reason}")

    def _closing(self, client: Any, userdata: Any, sock: Any) -> None:
        if self._socket is not None:
            self._forget_socket()

    def _register_write(self, client: Any, userdata: Any, sock: Any) -> None:
        if self._socket is not None:
            self._loop.add_writer(self._socket, self._writable)

    def _unregister_write(self, client: Any, userdata: Any, sock: Any) -> None:
        if self._socket is not None:
            self._loop.remove_writer(self._socket)

    # the socket in the event loop

    def _want_write(self) -> None:
        if self._client.want_write():
            self._loop.add_writer(self._socket, self._writable)

    def _watch_reading(self) -> None:
        wanted = self._socket is not None and not self._paused
        if wanted and not self._reading:
            self._loop.add_reader(self._socket, self._readable)
            if isinstance(self._socket, ssl.SSLSocket) and self._socket.pending():
                self._loop.call_soon(self._readable)
        elif not wanted and self._reading and self._socket is not None:
            self._loop.remove_reader(self._socket)
        self._reading = wanted

    def _readable(self) -> None:
        for _ in range(READS_AT_ONCE):
            if self._socket is None or self._paused:
                return
            before = self._messages
            self._client.loop_read()
            if self._messages == before:
                break
        if isinstance(self._socket, ssl.SSLSocket) and self._socket.pending() and not self._paused:
            self._loop.call_soon(self._readable)  # decrypted bytes do not make the socket readable

    def _writable(self) -> None:
        if self._socket is not None:
            self._client.loop_write()

    def _forget_socket(self) -> None:
        if self._reading:
            self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._reading = False
        self._socket = None

    def _end(self, reason: str) -> None:
        if not self._answer.done():
            self._answer.set_exception(ConnectionError(reason))
            self._answer.exception()
        if not self.lost.done():
            self.lost.set_result(reason)


async def _in_thread(loop: asyncio.AbstractEventLoop, work: Callable[[], None]) -> None:
    """Run blocking work in a daemon thread, which a stopping process need not wait for."""
    done: asyncio.Future[None] = loop.create_future()

    def settle(error: BaseException | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def body() -> None:
        outcome: BaseException | None = None
        try:
            work()
        except (OSError, ValueError) as error:
            outcome = error if isinstance(error, OSError) else ConnectionError(_words(error))
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, outcome)

    threading.Thread(target=body, name="mqtt-connect", daemon=True).start()
    await done


def _words(error: BaseException) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
