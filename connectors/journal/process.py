"""The journal process: the one writer of a shard's journal, behind a Unix socket.

Everything that waits when a commit begins, whoever sent it, goes into one durable transaction;
then each sender is told. While the disk works, the next group gathers. No peer can stop another:
each has a bounded part of memory, is read only while it has room, and is dropped when it does not
take its answers.

`python -m connectors.journal.process DATA` serves DATA/journal at DATA/run/journal.sock until
SIGTERM or SIGINT, then writes `stopped` and ends with 0; 3 where the environment fails. With
`--config FILE` the journal is a partition of a Kafka topic (connectors/journal/kafka_journal.py), and
DATA/journal a copy of it; all else is the same.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import json
import logging
import os
import signal
import socket
import sys
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
import numpy as np

from connectors.errors import JournalError, PenstockError
from connectors.journal import entries, wire
from connectors.journal.connection import Connection, TooLarge
from connectors.journal.kafka_config import PartitionConfig, partition_config
from connectors.journal.store import Append, JournalStore, Place
from connectors.json_logs import log_as_json
from connectors.memory import keep_memory

GROUP_BYTES: Final = 32 << 20  # of one commit: its second sync costs as much as megabytes
PEER_BYTES: Final = 2 * GROUP_BYTES  # of one peer, being committed and next; then it is not read
WAITING_BYTES: Final = 4 * GROUP_BYTES  # of all peers; then none is read that has something waiting
PEER_ANSWERS: Final = 1 << 20  # bytes of answers that a peer has not taken; then it is dropped
MAX_PEERS: Final = 256
HELLO_WITHIN: Final = 10.0  # seconds
END_S: Final = 30.0  # to commit what waits, at the end
KAFKA_END_S: Final = 3.0  # the brokers may be away
KEEP_SECONDS: Final = 60.0
ARCHIVER: Final = "archiver"  # the name under which the archive's process reports
KEEP_UNTIL: Final = 0.5  # of the map
TRIM_PAUSE: Final = 0.002  # seconds between trimming transactions, for the commits

if TYPE_CHECKING:
    from connectors.journal.kafka_journal import PartitionJournal

log = logging.getLogger("journal")
T = TypeVar("T")


@dataclass(slots=True)
class JournalOptions:
    """data: the data directory; max_bytes: of the LMDB map; name: the component's name in logs.

    keep_seconds: how long an entry stays after it is durable everywhere, so that what follows the
    journal without holding it back (a capture) need not keep up to the moment; given up while the
    journal is over half full. archived: an archive holds entries back too: what its archiver (the
    peer of that name) has not reported as archived is not trimmed. status: the file in which it tells
    about itself (None: DATA/run/journal.json). kafka: the partition that is the journal; None: it is here.
    """

    data: Path
    max_bytes: int = 20_000_000_000
    name: str = "journal"
    keep_seconds: float = KEEP_SECONDS
    archived: bool = False
    status: Path | None = None
    kafka: PartitionConfig | None = None


class _Peer:
    """One connection."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.session = b""
        self.name = "?"
        self.watch = False
        self.shared = -1  # descriptor of its shared memory
        self.expected = 1  # the next sequence to queue
        self.waiting = 0  # bytes queued and not committed
        self.room = asyncio.Event()
        self.replaced = False  # its session has another connection now
        self.connected: set[str] = set()  # sources that it said are connected

    def tell(self, kind: int, number: int, body: bytes = b"") -> None:
        """Queue an answer, never waiting; a peer that takes none is dropped."""
        if self.connection.unsent > PEER_ANSWERS:
            log.warning("dropped %s: it does not take its answers", self.name)
            self.connection.close()
            return
        self.connection.send(wire.message(kind, number, body))


class _Refused(Exception):
    """The peer broke the protocol."""


class JournalServer:
    """Serves one store to its clients."""

    def __init__(self, options: JournalOptions) -> None:
        self.options = options
        self.store = JournalStore(options.data / "journal", options.max_bytes)
        self.started_ms = time.time_ns() // 1_000_000
        self._thread = ThreadPoolExecutor(1, "journal-writer")
        self._queue: list[tuple[_Peer | None, Append]] = []
        self._waiting = 0  # bytes queued and not committed, of all peers
        self._work = asyncio.Event()
        self._peers: set[_Peer] = set()
        self._addresses = entries.Addresses()
        self._partition: PartitionJournal | None = None
        self._durable = 0
        self._archived = 0
        self._stopping = False
        self._state = "starting"
        self.failed: BaseException | None = None

    async def serve(self, stop: asyncio.Event, ready: asyncio.Event | None = None) -> None:
        """Serve until `stop` is set; raises JournalError where the store fails."""
        path = wire.socket_path(self.options.data)
        if self.options.kafka is None:
            own = await self._in_thread(self.store.begin)
            log.info("started at entry %s, position %d", own and own.entry, self.store.next_position)
        else:
            from connectors.journal.kafka_journal import (
                PartitionJournal,
            )  # no Kafka library where none is used

            told = (self._in_thread, self._wake, self._connected)
            self._partition = PartitionJournal(self.options.kafka, self.store, *told)
        listener = wire.listen(path)
        work = [self._commits(), self._seconds(), self._trims(), self._accepts(listener)]
        if self._partition is not None:
            work.append(self._partition.follow())
        tasks = [asyncio.create_task(part) for part in work]
        for task in tasks:
            task.add_done_callback(lambda done: self._task_ended(done, stop))
        self._state = "running"
        if ready is not None:
            ready.set()
        try:
            await stop.wait()
        finally:
            await self._end(tasks)
            listener.close()
            path.unlink(missing_ok=True)
        if self.failed is not None:
            raise self.failed

    async def _end(self, tasks: list[asyncio.Task[None]]) -> None:
        """Commit and answer what waits, write `stopped`, let go."""
        self._stopping = True
        self._work.set()
        await asyncio.wait([tasks[0]], timeout=END_S if self._partition is None else KAFKA_END_S)
        if self._partition is not None and self.failed is None:
            await self._partition.end()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for peer in list(self._peers):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(peer.connection.drain(), 1)
            peer.connection.close()
        if self._partition is not None:
            await self._partition.close()
        elif self.failed is None:
            await self._in_thread(self.store.control, "stopped", {})
        self._state = "stopped"
        self._write_status()
        self._thread.shutdown(wait=True)
        self.store.close()

    def _task_ended(self, task: asyncio.Task[None], stop: asyncio.Event) -> None:
        if not task.cancelled() and task.exception() is not None:
            self.failed = task.exception()
            stop.set()

    async def _in_thread(self, call: Any, *arguments: Any) -> Any:
        """Run in the one thread that touches the store's write side, in order."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, *arguments)

    # -- commits

    async def _commits(self) -> None:
        if self._partition is not None:
            await self._partition.begin()
            log.info("the copy holds what stood in the partition, up to entry %d", self.store.next_entry - 1)
        while True:
            await self._work.wait()
            self._work.clear()
            while self._queue:
                await self._commit(self._take())
            if self._stopping:
                return

    def _take(self) -> list[tuple[_Peer | None, Append]]:
        size = count = 0
        for _, append in self._queue:
            size += len(append.body)
            count += 1
            if size >= GROUP_BYTES:
                break
        group, self._queue = self._queue[:count], self._queue[count:]
        return group

    async def _commit(self, group: list[tuple[_Peer | None, Append]]) -> None:
        last = self.store.next_entry
        places = await self._put([append for _, append in group])
        for (peer, append), place in zip(group, places, strict=True):
            if peer is None:
                continue
            peer.waiting -= len(append.body)
            self._waiting -= len(append.body)
            if place is None:
                peer.expected = min(peer.expected, append.sequence)
                peer.tell(wire.FULL, append.sequence)
            else:
                peer.tell(wire.ACK, append.sequence, wire.ACK_BODY.pack(*place))
        for other in self._peers:
            if self._has_room(other):
                other.room.set()
        if self.store.next_entry != last:
            self._wake()

    async def _put(self, appends: list[Append]) -> list[Place | None]:
        """Durably into the journal, in order, with the tick that is due before them."""
        if self._partition is not None:
            return await self._partition.commit(appends)
        places: list[Place | None] = await self._in_thread(self.store.commit, appends)
        return places

    def _has_room(self, peer: _Peer) -> bool:
        """Whether more may be read of a peer."""
        return not peer.waiting or (peer.waiting < PEER_BYTES and self._waiting < WAITING_BYTES)

    def _wake(self) -> None:
        for peer in self._peers:
            if peer.watch and not peer.connection.unsent:
                peer.tell(wire.WAKE, self.store.next_entry - 1)

    def _connected(self) -> set[str]:
        return {source for peer in self._peers for source in peer.connected}

    def _queue_own(self, kind: str, data: dict[str, Any]) -> None:
        self._queue.append((None, Append(b"", 0, entries.pack_control(kind, data))))
        self._work.set()

    # -- once a second

    async def _seconds(self) -> None:
        forget_at = 0.0
        while True:
            clock = self.store.clock
            await asyncio.sleep((1000 - clock.now_ms() % 1000) / 1000)
            step = await self._in_thread(clock.sample)
            if step and (self.options.kafka is None or self.options.kafka.runs):
                log.warning("the wall clock was set by %d ms", step)
                self._queue_own("clock_step", {"step_ms": step})
            last = self.store.next_entry
            await self._put([])
            if self.store.next_entry != last:
                self._wake()
            if freed := self.store.sweep():
                log.warning("freed the slots of %d dead readers", freed)
            if time.monotonic() >= forget_at:
                forget_at = time.monotonic() + 3600
                connected = {peer.session for peer in self._peers}
                await self._in_thread(self.store.forget_sessions, connected)
            self._write_status()

    async def _trims(self) -> None:
        done = seen = 0
        waiting: deque[tuple[float, int]] = deque()  # when an entry was reported durable
        while True:
            await asyncio.sleep(0.1)
            now = time.monotonic()
            if (durable := self._durable_everywhere()) > seen:
                seen = durable
                waiting.append((now, seen))
            keep = self.options.keep_seconds
            if self.store.used_bytes > KEEP_UNTIL * self.store.map_bytes:
                keep = 0.0
            target = done
            while waiting and now - waiting[0][0] >= keep:
                target = waiting.popleft()[1]
            if target > done:
                while await self._in_thread(self.store.trim, target):
                    await asyncio.sleep(TRIM_PAUSE)
                done = target

    def _durable_everywhere(self) -> int:
        if self.options.kafka is not None and not self.options.kafka.runs:  # nobody reads this copy
            return int(self.store.next_entry - 1)
        return min(self._durable, self._archived) if self.options.archived else self._durable

    def _write_status(self) -> None:
        path = self.options.status or self.options.data / "run" / "journal.json"
        temporary = path.with_suffix(".json.new")
        try:
            temporary.write_text(json.dumps(self.status()))
            temporary.replace(path)
        except OSError as error:
            log.warning("cannot write %s: %s", path, error)

    def status(self) -> dict[str, Any]:
        """What the status file holds."""
        metrics = self.store.metrics()
        metrics["journal_peers"] = len(self._peers)
        metrics["journal_durable_entry"] = self._durable
        if self.options.archived:
            metrics["journal_archived_entry"] = self._archived
        told = {}
        if self._partition is not None:
            metrics |= self._partition.metrics()
            told = self._partition.status() if self._state == "running" else {}
        full = self._state == "running" and bool(metrics["journal_full"])
        late = self.options.archived and self._archived < self._durable
        return {
            "component": self.options.name,
            "pid": os.getpid(),
            "started_ms": self.started_ms,
            "state": "full" if full else self._state,
            "detail": "at its cap, sources wait; it is trimmed once the archive has it"
            if full and late
            else "",
            "metrics": metrics,
            **told,
        }

    # -- peers

    async def _accepts(self, listener: socket.socket) -> None:
        serving: set[asyncio.Task[None]] = set()
        while True:
            try:
                sock, _ = await asyncio.get_running_loop().sock_accept(listener)
            except OSError as error:  # out of descriptors: others may give some back
                log.warning("cannot accept a connection: %s", error)
                await asyncio.sleep(0.1)
                continue
            task = asyncio.create_task(self._serve_peer(Connection(sock)))
            serving.add(task)
            task.add_done_callback(serving.discard)

    async def _serve_peer(self, connection: Connection) -> None:
        peer = _Peer(connection)
        if len(self._peers) >= MAX_PEERS:
            peer.tell(wire.REFUSED, 0, b"too many connections")
            connection.close()
            return
        self._peers.add(peer)
        try:
            await self._hello(peer)
            while True:
                await self._message(peer, *await connection.read())
                while not self._has_room(peer):
                    peer.room.clear()
                    await peer.room.wait()
        except (_Refused, TooLarge, TimeoutError) as error:
            log.warning("dropped %s: %s", peer.name, error or "no greeting")
            peer.tell(wire.REFUSED, 0, str(error).encode())
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._peers.discard(peer)
            connection.close()
            if peer.shared >= 0:
                os.close(peer.shared)
            if not self._stopping and not peer.replaced:
                for source in sorted(peer.connected):
                    self._queue_own("disconnected", {"source": source})

    async def _hello(self, peer: _Peer) -> None:
        kind, _, body, peer.shared = await asyncio.wait_for(peer.connection.read_first(), HELLO_WITHIN)
        if peer.shared >= 0 and not wire.is_memory(peer.shared):
            raise _Refused("what it shares is no memory")
        try:
            hello = msgspec.msgpack.decode(body, type=_Hello)
        except msgspec.DecodeError as error:
            raise _Refused(f"greeting: {error}") from error
        if kind != wire.HELLO or len(hello.session) != 16:
            raise _Refused("no greeting")
        for other in self._peers:
            if other.session == hello.session:  # the client gave that connection up
                other.replaced = True
                other.connection.close()
        # what the earlier connection left in the queue is committed first; for brokers nobody waits, and a
        # partition counts but once what is sent again
        while self._partition is None and any(append.session == hello.session for _, append in self._queue):
            await asyncio.sleep(0.001)
        last = await self._in_thread(self.store.last_sequence, hello.session)
        peer.session, peer.name, peer.watch, peer.expected = (
            hello.session,
            hello.name[:100],
            hello.watch,
            last + 1,
        )
        peer.tell(wire.WELCOME, last)

    async def _message(self, peer: _Peer, kind: int, number: int, body: bytearray | memoryview) -> None:
        if peer.replaced:
            raise _Refused("its session has another connection")
        if kind in (wire.APPEND, wire.SHARED, wire.CONTROL):
            try:
                if kind == wire.SHARED:
                    body = _from_shared(peer.shared, number, body)
                append = _append(peer.session, kind, number, body, self._addresses)
            except (ValueError, msgspec.DecodeError) as error:
                raise _Refused(f"append {number}: {error}") from error
            if number > peer.expected:  # one before it was refused
                peer.tell(wire.FULL, number)
                return
            peer.expected = max(peer.expected, number + 1)
            if kind == wire.CONTROL:
                _note_connection(peer, append)
            peer.waiting += len(append.body)
            self._waiting += len(append.body)
            self._queue.append((peer, append))
            self._work.set()
        elif kind == wire.DURABLE and peer.name == ARCHIVER:
            self._archived = max(self._archived, number)
        elif kind == wire.DURABLE:
            self._durable = max(self._durable, number)
        elif kind == wire.STATUS:
            peer.tell(wire.ANSWER, number, json.dumps(self.status()).encode())
        else:
            raise _Refused(f"message of kind {kind}")


class _Hello(msgspec.Struct):
    session: bytes
    name: str
    watch: bool = False


def _append(
    session: bytes, kind: int, number: int, body: bytearray | memoryview, addresses: entries.Addresses
) -> Append:
    """A client's append, checked."""
    if number < 1:
        raise ValueError("sequence below 1")
    if kind != wire.CONTROL:
        (size,) = wire.KEY_SIZE.unpack_from(body) if len(body) >= wire.KEY_SIZE.size else (0xFFFF,)
        start = wire.KEY_SIZE.size + size
        packed = memoryview(body)[start:]
        entries.check_frames(packed, addresses)
        return Append(session, number, packed, bytes(body[wire.KEY_SIZE.size : start]))
    name, data = msgspec.msgpack.decode(body, type=tuple[str, dict[str, Any]])
    bundle = None
    if name == "plant":
        sha, files = data["sha256"], data["files"]
        if not isinstance(sha, str) or not isinstance(files, dict):
            raise ValueError("a plant needs sha256 and files")
        about: dict[str, Any] = {key: data[key] for key in ("apply_id", "by", "why") if key in data}
        if not all(isinstance(text, str) for text in about.values()):
            raise ValueError("apply_id, by and why of a plant are texts")
        bundle = (sha.encode(), msgspec.msgpack.encode(files))
        data = {"sha256": sha, **about}
    if name == "quarantine":
        places = (data.get("entry"), data.get("position"))
        if not all(isinstance(place, int) and 0 <= place < 1 << 63 for place in places):
            raise ValueError("a quarantine needs entry and position")
    return Append(session, number, entries.pack_control(name, data), b"", bundle)


def _from_shared(fd: int, number: int, body: bytearray | memoryview) -> memoryview:
    """The body of the APPEND that a SHARED stands for: a copy, which the peer cannot change."""
    (size,) = wire.SIZE.unpack_from(body) if len(body) >= wire.SIZE.size else (wire.SLOT + 1,)
    if fd < 0 or size > wire.SLOT:
        raise ValueError("no shared memory, or not so much")
    key = memoryview(body)[wire.SIZE.size :]
    whole = np.empty(len(key) + size, np.uint8).data  # not zeroed first, as a bytearray would be
    whole[: len(key)] = key
    if os.preadv(fd, [whole[len(key) :]], number % wire.WINDOW * wire.SLOT) != size:
        raise ValueError("the shared memory is too small")
    return whole


def _note_connection(peer: _Peer, append: Append) -> None:
    control = entries.decode_entry(0, bytes(append.body)).control()
    source = str(control.data.get("source", ""))
    if control.kind == "connected":
        peer.connected.add(source)
    elif control.kind == "disconnected":
        peer.connected.discard(source)


@contextlib.contextmanager
def _only_one(data: Path) -> Any:
    """Holds the data directory's journal lock; raises JournalError where another process does."""
    (data / "run").mkdir(parents=True, exist_ok=True)
    with (data / "run" / "journal.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise JournalError(f"another journal process serves {data}") from error
        yield


async def serve_journal(
    options: JournalOptions, stop: asyncio.Event, ready: asyncio.Event | None = None
) -> None:
    """Serve a data directory's journal until `stop` is set; raises JournalError."""
    with _only_one(options.data):
        await JournalServer(options).serve(stop, ready)


def run_journal(options: JournalOptions) -> int:
    """The process: until SIGTERM or SIGINT; returns the exit code."""

    async def main() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await serve_journal(options, stop)

    try:
        asyncio.run(main())
    except (PenstockError, OSError) as error:
        log.error("%s", error)
        return 3
    return 0


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m connectors.journal.process")
    parser.add_argument("data", type=Path, help="the data directory")
    parser.add_argument("--max-bytes", type=int, default=20_000_000_000, help="of the journal on disk")
    parser.add_argument("--keep-seconds", type=float, default=KEEP_SECONDS, help="of what is durable")
    parser.add_argument("--archived", action="store_true", help="trim only what the archiver reported, too")
    parser.add_argument("--config", type=Path, help="of the partition that is the journal")
    parser.add_argument("--name", default="journal", help="the component's name in logs")
    parser.add_argument("--status", type=Path, help="its status file, from DATA (default: run/journal.json)")
    chosen = parser.parse_args(arguments)
    log_as_json(chosen.name)
    keep_memory()
    status = chosen.data / chosen.status if chosen.status is not None else None
    try:
        kafka = partition_config(chosen.config) if chosen.config is not None else None
    except (OSError, msgspec.MsgspecError) as error:
        log.error("%s: %s", chosen.config, error)
        return 3
    limits = (chosen.max_bytes, chosen.name, chosen.keep_seconds, chosen.archived)
    return run_journal(JournalOptions(chosen.data, *limits, status, kafka))


if __name__ == "__main__":
    sys.exit(main())
