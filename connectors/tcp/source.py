"""TCP receiver: a server that devices and gateways connect to.

This is the exemplar of a source: `config.py` holds the typed keys, the framing is pure (bytes in,
frames out) in `framing.py`, and this file is sockets, caps and acknowledgements.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import resource
import socket
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, cast

from connectors.backoff import Backoff
from connectors.errors import ConfigError
from connectors.gather import Gather
from connectors.source import Appender, Frame, SourceStatus, Surroundings
from connectors.tcp.config import TcpConfig, listen_address
from connectors.tcp.framing import Part, framer
from connectors.tls import in_folder, server_context

WAITING_FRAMES: Final = 50_000  # of all connections, received and not yet durable, before reading pauses
WAITING_BYTES: Final = 64_000_000
CONNECTION_BYTES: Final = 1_000_000  # of one connection: the others go on
PARTIAL_BYTES: Final = 256_000_000  # of begun frames, all connections together
KEEP_IDLE_S: Final = 30  # Linux defaults to two hours
KEEP_INTERVAL_S: Final = 10
KEEP_COUNT: Final = 3
USER_TIMEOUT_MS: Final = 30_000  # acknowledgements that the peer's host never confirms
HANDSHAKE_S: Final = 10.0
OTHER_FILES: Final = 200  # open beside the connections
FINISH_S: Final = 3.0  # of the 5 s in which a receiver ends

log = logging.getLogger(__name__)


class TcpReceiver:
    """A TCP server as a source.

    topic of a frame: the peer's host; its header `peer`: `host:port`. With `acknowledge` the
    bytes are sent for each frame (or once for each commit) after the journal has it on disk.
    While the journal is behind, sockets are not read.
    """

    def __init__(self, name: str, config: TcpConfig, folder: Path = Path()) -> None:
        self.name = name
        self.config = config
        self.status = SourceStatus()
        self.port = 0  # bound; tells a port 0 of the configuration
        self.connections: set[_Connection] = set()
        self.by_host: Counter[str] = Counter()
        self.most = config.max_connections  # or fewer, where the system allows fewer open files
        self.partial_bytes = 0
        self.last_frame = time.monotonic()
        self.gather: Gather[tuple[_Connection, int]]
        try:
            self._host, self._port = listen_address(config.listen)
            self.acknowledge = bytes.fromhex(config.acknowledge or "")
        except ValueError as error:
            raise ConfigError(f"source {name}: {error}") from error
        self._files = [
            in_folder(folder, name) for name in (config.cert_file, config.key_file, config.ca_file)
        ]
        framer(config.framing, config.max_frame)  # says now what is wrong with it

    @classmethod
    def build(cls, name: str, config: TcpConfig, surroundings: Surroundings) -> TcpReceiver:
        """See `connectors.source.Receiver`."""
        return cls(name, config, surroundings.folder)

    async def run(self, appender: Appender, stop: asyncio.Event) -> None:
        """See `connectors.source.Receiver`. Raises `ConfigError` for an address that can never be
        listened on, TLS files that are none, and `JournalError` when the journal is gone for good."""
        self.gather = Gather(
            appender, self._durable, self._press, max_frames=WAITING_FRAMES, max_bytes=WAITING_BYTES
        )
        sender = asyncio.create_task(self.gather.run(), name=f"{self.name}-append")
        stopping = asyncio.create_task(stop.wait())
        server: asyncio.Server | None = None
        try:
            server = await self._listen(stop)
            while server is not None and not stopping.done() and not sender.done():
                await asyncio.wait({stopping, sender}, timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
                self._sweep()
        finally:
            stopping.cancel()
            if server is not None:
                server.close()
                for connection in self.connections:
                    connection.hold("stop")
                self.gather.control("disconnected", {"source": self.name})
            whole = await self.gather.finish(sender, FINISH_S)
            for connection in list(self.connections):
                connection.transport.close()  # behind the acknowledgements written to it
            await asyncio.sleep(0)
            for connection in list(self.connections):
                connection.transport.abort()
            self.status.state = "stopped"
            if not whole:
                log.warning("stopped with %d frames not durable; none is acknowledged", self.gather.frames)
        if not sender.cancelled():
            sender.result()

    async def _listen(self, stop: asyncio.Event) -> asyncio.Server | None:
        backoff = Backoff(limit_s=5.0)
        loop = asyncio.get_running_loop()
        secure: dict[str, Any] = {}
        if self.config.tls:
            secure = {"ssl": server_context(*self._files), "ssl_handshake_timeout": HANDSHAKE_S}
        wanted = self.config.max_connections + OTHER_FILES
        self.most = max(1, min(self.config.max_connections, allow_files(wanted) - OTHER_FILES))
        while not stop.is_set():
            try:
                server = await loop.create_server(
                    lambda: _Connection(self),
                    self._host or None,
                    self._port,
                    backlog=1024,
                    reuse_address=True,
                    **secure,
                )
            except OSError as error:
                said = f"cannot listen on {self.config.listen}: {error.strerror or error}"
                # create_server words several errors into one without a number
                if error.errno in (errno.EACCES, errno.EPERM) or isinstance(error, socket.gaierror):
                    raise ConfigError(f"source {self.name}: {said}") from error
                self.status.state, self.status.detail = "disconnected", said
                log.warning("%s", said)
                await backoff.wait(stop)
                continue
            self.port = int(server.sockets[0].getsockname()[1])
            self.status.state = "connected"
            self.status.detail = f"listening on {self._host or '*'}:{self.port}"
            self.last_frame = time.monotonic()
            log.info("listening on %s:%d", self._host or "*", self.port)
            self.gather.control("connected", {"source": self.name})
            return server
        return None

    def _sweep(self) -> None:
        """Once a second: connections that are idle or whose frame never ends, and silence."""
        now = time.monotonic()
        idle, frame = self.config.idle_timeout / 1e9, self.config.frame_timeout / 1e9
        for connection in list(self.connections):
            if connection.held:
                connection.heard = now  # the time in which we did not listen does not count
                if connection.frame_began is not None:
                    connection.frame_began = now
            elif connection.frame_began is not None and now - connection.frame_began > frame:
                connection.drop(f"no end of a frame within {frame:g} s")
            elif now - connection.heard > idle:
                connection.drop(f"no byte for {idle:g} s")
        status = self.status
        if self.gather.frames:
            self.last_frame = now  # who waits for the journal is not silent
        if now - self.last_frame > self.config.silent_after / 1e9 and status.state == "connected":
            log.warning("no frame from any peer for %d s", self.config.silent_after // 10**9)
            status.state = "silent"
        status.extra["waiting_frames"] = float(self.gather.frames)
        status.extra["paused"] = float(self.gather.under_pressure)

    def _durable(self, tokens: Sequence[tuple[_Connection, int]]) -> None:
        counts: Counter[_Connection] = Counter()
        sizes: Counter[_Connection] = Counter()
        for connection, size in tokens:
            counts[connection] += 1
            sizes[connection] += size
        for connection, count in counts.items():
            connection.durable(count, sizes[connection])

    def _press(self, pressed: bool) -> None:
        if pressed:
            log.warning("the journal is behind: reading from %d peers pauses", len(self.connections))
        else:
            log.info("the journal has caught up: reading again")
        for connection in self.connections:
            connection.hold("journal", pressed)

    def refuse(self, why: str, peer: str) -> None:
        """Count what no frame can tell: a connection beyond a cap, a begun frame that was cut."""
        self.status.refused += 1
        if self.status.refused < 100 or self.status.refused % 1000 == 0:
            log.warning("%s: %s (refused so far: %d)", peer, why, self.status.refused)


class _Connection(asyncio.Protocol):
    """One peer. Reading pauses while any reason to hold it stands."""

    def __init__(self, receiver: TcpReceiver) -> None:
        self.receiver = receiver
        self.transport: asyncio.Transport
        self.framer = framer(receiver.config.framing, receiver.config.max_frame)
        self.held: set[str] = set()
        self.heard = time.monotonic()
        self.frame_began: float | None = None
        self.waiting_frames = self.waiting_bytes = 0  # not yet durable
        self.ended = False  # the peer sends no more, and may still wait for acknowledgements
        self.partial = 0
        self.open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        receiver = self.receiver
        self.transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.host = str(peer[0]) if peer else "?"
        self.peer = f"{self.host}:{peer[1]}" if peer else "?"
        self.headers = (("peer", self.peer),)
        if len(receiver.connections) >= receiver.most:
            receiver.refuse(f"more than {receiver.most} connections", self.peer)
            self.transport.abort()
            return
        if receiver.by_host[self.host] >= receiver.config.max_connections_per_peer:
            receiver.refuse(
                f"more than {receiver.config.max_connections_per_peer} connections of one host", self.peer
            )
            self.transport.abort()
            return
        self.open = True
        receiver.connections.add(self)
        receiver.by_host[self.host] += 1
        receiver.status.peers = len(receiver.connections)
        _keep_alive(transport.get_extra_info("socket"))
        if receiver.gather.under_pressure:
            self.hold("journal")

    def connection_lost(self, error: Exception | None) -> None:
        if not self.open:
            return
        receiver = self.receiver
        self.open = False
        receiver.connections.discard(self)
        receiver.by_host[self.host] -= 1
        if not receiver.by_host[self.host]:
            del receiver.by_host[self.host]
        receiver.status.peers = len(receiver.connections)
        if "stop" not in self.held:
            self._put(self.framer.end("the connection ended"))
        self._count_partial(0)

    def data_received(self, data: bytes) -> None:
        if not self.open:
            return
        receiver = self.receiver
        self.heard = time.monotonic()
        receiver.status.bytes += len(data)
        parts = self.framer.feed(data)
        if parts:
            self.frame_began = None
            self._put(parts)
        partial = self.framer.partial
        self._count_partial(partial)
        if not partial:
            self.frame_began = None
        elif self.frame_began is None:
            self.frame_began = self.heard
        if self.framer.broken:
            log.warning("%s: %s; the connection is closed", self.peer, parts[-1].why)
            self.transport.close()
        elif partial and receiver.partial_bytes > PARTIAL_BYTES:
            self.drop(f"more than {PARTIAL_BYTES} bytes of begun frames in hand")

    def eof_received(self) -> bool:
        self.ended = True
        self._put(self.framer.end("the peer ended the connection"))
        self._count_partial(0)
        self.frame_began = None
        return self.waiting_frames > 0 and not self.receiver.config.tls  # TLS ends on both sides at once

    def pause_writing(self) -> None:
        self.hold("acknowledgements")  # a peer that does not read them need not be read

    def resume_writing(self) -> None:
        self.hold("acknowledgements", False)

    def durable(self, count: int, size: int) -> None:
        """So many frames and bytes of this peer are on disk."""
        self.waiting_frames -= count
        self.waiting_bytes -= size
        if self.waiting_bytes * 2 <= CONNECTION_BYTES:
            self.hold("own", False)
        acknowledge = self.receiver.acknowledge
        if acknowledge and not self.transport.is_closing():
            each = self.receiver.config.acknowledge_each == "frame"
            self.transport.write(acknowledge * count if each else acknowledge)
        if self.ended and not self.waiting_frames:
            self.transport.close()

    def hold(self, reason: str, wanted: bool = True) -> None:
        """Pause reading for a reason, or end that reason."""
        before = bool(self.held)
        if wanted:
            self.held.add(reason)
        else:
            self.held.discard(reason)
        if bool(self.held) == before or self.transport.is_closing():
            return
        if self.held:
            self.transport.pause_reading()
        else:
            self.heard = time.monotonic()
            self.transport.resume_reading()

    def drop(self, why: str) -> None:
        """End the connection; a begun frame is told as garbage."""
        self.receiver.refuse(f"{why}; the connection is closed", self.peer)
        self._put(self.framer.end(why))
        self.transport.abort()

    def _put(self, parts: list[Part]) -> None:
        receiver = self.receiver
        if not parts:
            return
        for payload, why, port in parts:
            headers = (*self.headers, ("resync", why)) if why else self.headers
            self.waiting_frames += 1
            self.waiting_bytes += len(payload)
            receiver.gather.put(Frame(self.host, payload, 0, port, headers), (self, len(payload)))
        receiver.status.frames += len(parts)
        receiver.status.last_frame_ms = int(time.time() * 1000)
        receiver.status.state = "connected"
        receiver.last_frame = self.heard
        if self.waiting_bytes > CONNECTION_BYTES:
            self.hold("own")

    def _count_partial(self, partial: int) -> None:
        self.receiver.partial_bytes += partial - self.partial
        self.partial = partial


def allow_files(wanted: int) -> int:
    """Let this process have so many files open, as far as its hard limit goes; a shortfall is logged.
    Returns how many it may have, `wanted` at most."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        log.warning("the limit of open files is %d: less than max_connections needs (ulimit -Hn)", hard)
        wanted = hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        log.info("raised the limit of open files from %d to %d", soft, wanted)
    return wanted


def _keep_alive(sock: Any) -> None:
    """A peer that vanished without a word is noticed within a minute."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", KEEP_IDLE_S),
        ("TCP_KEEPINTVL", KEEP_INTERVAL_S),
        ("TCP_KEEPCNT", KEEP_COUNT),
        ("TCP_USER_TIMEOUT", USER_TIMEOUT_MS),
    ):
        option = getattr(socket, name, None)  # not on every system
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
