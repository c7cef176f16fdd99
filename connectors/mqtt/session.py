"""One connection to an MQTT broker, driven by the event loop.

The socket is read in large pieces, out of which a kernel takes the messages; not reading it is all
that back-pressure needs. A pause of 2 ms after each read makes the pieces of a busy source larger.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np

from connectors.mqtt import packets
from connectors.mqtt.config import MqttConfig
from connectors.mqtt.publish_kernels import FULL, MORE, OTHER, SINGLE
from connectors.mqtt.publishes import ALIASES, HARD_CAP, Batch, Malformed, Publishes
from connectors.mqtt.reaching import CONNECT_TIMEOUT_S, reach, tls_context, words
from operators.batch import Int64, UInt64

BUFFER: Final = 512 << 10  # bytes of one reading, and of a packet that it can hold
READ_PAUSE_S: Final = 0.002
_STATE_ID: Final = 2  # packet id; 1 is that of SUBSCRIBE
_HEADS: Final = 256 << 10  # a packet's topic and properties, beside its payload

log = logging.getLogger(__name__)


class HostState(NamedTuple):
    """What a topic tells, retained, of whether we are there."""

    topic: str
    online: bytes
    offline: bytes


class MqttSession:
    """A connection from CONNECT to its end; never reconnects.

    on_accepted is called once, before the first message, with whether the broker kept our
    session; on_subscribed once the broker has our subscriptions; on_batch with what each reading
    brought, in order; all in the loop's thread. `lost` resolves with the reason when the connection
    has ended. held: see `Publishes`. topics: what is subscribed to. state: what is told of us while
    we are there and when we are not.
    """

    def __init__(
        self,
        config: MqttConfig,
        client_id: str,
        held: UInt64,
        on_accepted: Callable[[MqttSession, bool], None],
        on_batch: Callable[[MqttSession, Batch], None],
        on_subscribed: Callable[[MqttSession], None],
        topics: Sequence[str],
        state: HostState | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._config = config
        self._client_id = client_id
        self._version5 = config.protocol == "5"
        self._on_accepted = on_accepted
        self._on_batch = on_batch
        self._on_subscribed = on_subscribed
        self._topics = topics
        self.state = state
        cap = min(config.max_payload, config.max_frame, HARD_CAP)
        self._publishes = Publishes(self._version5, held, cap, BUFFER)
        self._buffer = np.empty(BUFFER, np.uint8)
        self._start = self._end_at = 0  # of what the buffer holds
        self._head: tuple[bytes, int] | None = None  # of a packet too large to keep, and its size
        self._skip = 0  # bytes of it that are still to come
        self._out = bytearray()
        self._socket: socket.socket | None = None
        self._tls = tls_context(config)
        self._watched = self._paused = self._resting = False
        self._pinged = False
        self._in_s = self._out_s = self._loop.time()
        self._answer: asyncio.Future[None] = self._loop.create_future()
        self.lost: asyncio.Future[str] = self._loop.create_future()
        self.refused: list[str] = []  # subscriptions the broker refuses

    @property
    def repeats(self) -> int:
        """Messages that came again while the first was not acknowledged."""
        return self._publishes.repeats

    async def connect(self) -> None:
        """Reach the broker and wait for its answer. Raises OSError (with the reason in words)
        when that fails."""
        config = self._config
        self._keep_alive = min(max(config.keep_alive // 10**9, 1), 65_535)
        reached = await reach(self._config, self._tls)
        if self.lost.done():
            reached.close()
            raise ConnectionError("closed")
        reached.setblocking(False)
        self._socket = reached
        self._write(
            packets.connect(
                self._client_id,
                self._version5,
                self._keep_alive,
                config.username,
                config.password,
                min(config.session_expiry // 10**9, 0xFFFF_FFFF),
                min(config.max_inflight, 65_535),
                ALIASES,
                None if self.state is None else (self.state.topic, self.state.offline),
            )
        )
        self._watch()
        try:
            await asyncio.wait_for(asyncio.shield(self._answer), CONNECT_TIMEOUT_S)
        except TimeoutError as error:
            raise ConnectionError("the broker does not answer CONNECT") from error

    def acknowledge(self, mids: Int64) -> None:
        """PUBACK these messages, in this order."""
        if self._socket is not None and len(mids):
            self._write(packets.pubacks(mids))

    def publish(self, topic: str, payload: bytes) -> None:
        """Say something, once at most (QoS 0)."""
        if self._socket is not None:
            self._write(packets.publish(topic, payload, self._version5))

    def tell_state(self, there: bool = True) -> None:
        """Publish the state, retained."""
        if self._socket is not None and self.state is not None:
            payload = self.state.online if there else self.state.offline
            self._write(packets.publish(self.state.topic, payload, self._version5, retained_as=_STATE_ID))

    def pause(self, paused: bool) -> None:
        """Stop or resume reading from the socket."""
        self._paused = paused
        self._watch()
        if not paused and (self._start < self._end_at or self._pending()):
            self._loop.call_soon(self._readable)

    def tick(self) -> None:
        """To be called once a second: keep-alive. A paused connection is not pinged, as the
        answer would not be read; the broker may then end it, and keeps the session."""
        if self._socket is None or self._paused:
            return
        now = self._loop.time()
        if self._pinged and now - self._in_s > self._keep_alive:
            self._end("the broker does not answer")
        elif not self._pinged and now - min(self._in_s, self._out_s) > self._keep_alive * 0.75:
            self._pinged = True
            self._write(packets.PINGREQ_PACKET)

    async def close(self) -> None:
        """DISCONNECT, behind the acknowledgements so far, and wait until the broker has read it; one that
        takes nothing, or does not end the connection, within half a second each is left without."""
        if self._socket is not None:
            self.tell_state(False)
            self._write(packets.DISCONNECT_PACKET)
            until = self._loop.time() + 0.5
            while self._out and self._loop.time() < until:
                await asyncio.sleep(0.005)
            await self._read_to_the_end()
        self.abort()

    async def _read_to_the_end(self) -> None:
        """The broker ends the connection at DISCONNECT. Closing before that, with messages unread, would
        reset it, and acknowledgements that the broker has not read would be lost."""
        self.pause(True)
        until = self._loop.time() + 0.5
        while self._socket is not None and self._loop.time() < until:
            try:
                if not self._socket.recv(BUFFER):
                    return
            except (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                await asyncio.sleep(0.005)
            except OSError:
                return

    def abort(self) -> None:
        """Let go of the socket without a word."""
        self._end("closed")

    # reading

    def _watch(self) -> None:
        if self._socket is None:
            return
        wanted = not self._paused and not self._resting
        if wanted != self._watched:
            self._watched = wanted
            if wanted:
                self._loop.add_reader(self._socket, self._readable)
            else:
                self._loop.remove_reader(self._socket)

    def _readable(self) -> None:
        if self._socket is None or self._paused or self._resting:
            return
        filled = self._fill()
        if self._start < self._end_at:
            try:
                self._split()
            except Malformed as error:
                self._end(f"the broker sent what is no MQTT: {error}")
        if self._socket is None or self._paused:
            return
        if filled:  # there may be more; a busy socket is not waited for
            self._loop.call_soon(self._readable)
            return
        self._resting = True
        self._watch()
        self._loop.call_later(READ_PAUSE_S, self._rested)

    def _rested(self) -> None:
        self._resting = False
        self._watch()
        if self._pending():
            self._readable()

    def _pending(self) -> bool:
        # decrypted bytes do not make the socket readable
        return isinstance(self._socket, ssl.SSLSocket) and self._socket.pending() > 0

    def _fill(self) -> bool:
        """Read what there is; True where the buffer is full and there may be more."""
        assert self._socket is not None
        self._make_room()
        view = memoryview(self._buffer)  # type: ignore[arg-type]  # an array is a buffer
        while self._end_at < len(view):
            try:
                count = self._socket.recv_into(view[self._end_at :])
            except (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return False
            except OSError as error:
                self._lose(f"connection lost: {words(error)}")
                return False
            if not count:
                self._lose("connection lost: the broker closed it")
                return False
            self._in_s = self._loop.time()
            skipped = min(self._skip, count) if self._skip else 0
            if skipped:
                self._skip -= skipped
                if skipped < count:
                    self._buffer[self._end_at : self._end_at + count - skipped] = self._buffer[
                        self._end_at + skipped : self._end_at + count
                    ].copy()
            self._end_at += count - skipped
            if self._head is not None and not self._skip:
                head, self._head = self._head, None
                try:
                    self._on_batch(self, self._publishes.single(*head))
                except Malformed as error:
                    self._end(f"the broker sent what is no MQTT: {error}")
                    return False
        return True

    def _lose(self, reason: str) -> None:
        """The connection ended; what was read before is still taken."""
        if self._start < self._end_at:
            try:
                self._split()
            except Malformed:
                log.warning("the last bytes of the broker are no MQTT")
        self._end(reason)

    def _make_room(self) -> None:
        """Move what is left to the front; a large packet gets a buffer of its size."""
        left = self._end_at - self._start
        need = max(BUFFER, min(self._publishes.need, HARD_CAP + _HEADS) if left else 0)
        if need != len(self._buffer):
            longer = np.empty(need, np.uint8)
            longer[:left] = self._buffer[self._start : self._end_at]
            self._buffer = longer
        elif self._start:
            self._buffer[:left] = self._buffer[self._start : self._end_at].copy()
        self._start, self._end_at = 0, left

    def _split(self) -> None:
        """Hand on the messages in the buffer, answer the rest, up to a packet that is not whole."""
        publishes = self._publishes
        while self._start < self._end_at and not self.lost.done():
            why = publishes.split(self._buffer, self._start, self._end_at)
            self._start = publishes.at
            batch = publishes.take()
            if batch is not None:
                self._on_batch(self, batch)
            if why == FULL:
                continue
            need, here = publishes.need, self._end_at - self._start
            if why == MORE:
                if need > HARD_CAP + _HEADS:
                    raise Malformed(f"a packet of {need} bytes that is no message")
                return
            if (
                why == SINGLE
                and here < min(need, HARD_CAP + _HEADS)
                and (need <= HARD_CAP + _HEADS or here < _HEADS)
            ):
                return
            whole = self._buffer[self._start : min(self._start + need, self._end_at)].tobytes()
            if why == OTHER:
                self._start += need
                self._control(whole)
            elif why == SINGLE and len(whole) < need:
                self._head, self._skip = (whole, need), need - len(whole)
                self._start += len(whole)
            elif why == SINGLE:
                self._start += need
                self._on_batch(self, publishes.single(whole, need))
            else:
                raise Malformed(f"a packet that begins with {whole[:8].hex(' ')}")

    def _control(self, packet: bytes) -> None:
        kind, at = packet[0] >> 4, 1
        while packet[at] & 128:
            at += 1
        body = packet[at + 1 :]
        if kind == packets.CONNACK and len(body) >= 2 and not self._answer.done():
            said = packets.refusal(body, self._version5)
            if said is not None:
                self._answer.set_exception(ConnectionRefusedError(f"the broker refuses us: {said}"))
                self._answer.exception()  # seen, also when nobody waits any more
                return
            if self._version5:
                self._accept(packets.terms(body))
            self._write(packets.subscribe(self._topics, self._config.qos, self._version5))
            self.tell_state()
            if self.lost.done():  # the connection ended under the first words
                return
            self._on_accepted(self, bool(body[0] & 1))
            self._answer.set_result(None)
        elif kind == packets.SUBACK and len(body) >= 2:
            for said in packets.refused_topics(body, self._topics, self._config.qos, self._version5):
                self.refused.append(said)
                log.error("the broker refuses the subscription %s", said)
            self._on_subscribed(self)
        elif kind == packets.PINGRESP:
            self._pinged = False
        elif kind == packets.PUBACK and self.state is not None:
            pass  # the broker has the state
        elif kind == packets.DISCONNECT and self._version5:
            self._end(f"the broker ended the connection: {packets.farewell(body)}")
        else:
            raise Malformed(f"a packet of type {kind}")

    def _accept(self, terms: packets.Terms) -> None:
        if terms.keep_alive:
            self._keep_alive = min(self._keep_alive, terms.keep_alive)
        wanted = self._config.session_expiry // 10**9
        if terms.session_expiry is not None and terms.session_expiry < wanted:
            log.warning(
                "the broker keeps our session for %d s while we are away, not for %d; then it is lost",
                *(terms.session_expiry, wanted),
            )

    # writing

    def _write(self, data: bytes) -> None:
        was_empty = not self._out
        self._out += data
        if was_empty:
            self._writable()

    def _writable(self) -> None:
        if self._socket is None:
            return
        try:
            while self._out:
                sent = self._socket.send(self._out)
                del self._out[:sent]
                self._out_s = self._loop.time()
        except (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            self._loop.add_writer(self._socket, self._writable)
            return
        except OSError as error:
            self._end(f"connection lost: {words(error)}")
            return
        self._loop.remove_writer(self._socket)

    def _end(self, reason: str) -> None:
        gone, self._socket = self._socket, None
        if gone is not None:
            self._loop.remove_reader(gone)
            self._loop.remove_writer(gone)
            gone.close()
        if not self._answer.done():
            self._answer.set_exception(ConnectionError(reason))
            self._answer.exception()
        if not self.lost.done():
            self.lost.set_result(reason)
