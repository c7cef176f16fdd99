"""The server of a shard's journal: its socket, the sessions of its clients, and what it does each second.

No peer can stop another: each has a bounded part of memory, is read only while it has room, and is dropped
when it does not take its answers. What it sends is committed in connectors/journal/commits.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from connectors.errors import JournalTaken
from connectors.journal import entries, wire
from connectors.journal.commits import Commits
from connectors.journal.connection import Connection, TooLarge
from connectors.journal.kafka_config import PartitionConfig
from connectors.journal.peers import Hello, Peer, Refused, append_of, from_shared, note_connection
from connectors.journal.store import JournalStore

if TYPE_CHECKING:
    from connectors.journal.kafka_journal import PartitionJournal

MAX_PEERS: Final = 256
HELLO_WITHIN: Final = 10.0  # seconds
END_S: Final = 30.0  # to commit what waits, at the end
KAFKA_END_S: Final = 3.5  # the brokers may be away, and all is to end within 5 s
KEEP_SECONDS: Final = 60.0
ARCHIVER: Final = "archiver"  # the name under which the archive's process reports
KEEP_UNTIL: Final = 0.5  # of the map
TRIM_PAUSE: Final = 0.002  # seconds between trimming transactions, for the commits

log = logging.getLogger("journal")


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


class JournalServer:
    """Serves one store to its clients."""

    def __init__(self, options: JournalOptions) -> None:
        self.options = options
        self.store = JournalStore(options.data / "journal", options.max_bytes)
        self.started_ms = time.time_ns() // 1_000_000
        self._thread = ThreadPoolExecutor(1, "journal-writer")
        self._commits = Commits(self.store, self._in_thread)
        self._peers = self._commits.peers
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

            told = (self._in_thread, self._commits.wake, self._commits.connected)
            self._partition = PartitionJournal(self.options.kafka, self.store, *told)
            self._commits.partition = self._partition
        listener = wire.listen(path)
        work = [self._commits.run(), self._seconds(), self._trims(), self._accepts(listener)]
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
        self._commits.end()
        if self._partition is None:
            await asyncio.wait([tasks[0]], timeout=END_S)
        elif self.failed is None:
            until = time.monotonic() + KAFKA_END_S
            if not self._partition.away():
                await asyncio.wait([tasks[0]], timeout=KAFKA_END_S)
            await self._partition.end(until - time.monotonic())
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
        self._state = "taken" if isinstance(self.failed, JournalTaken) else "stopped"
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

    # -- once a second

    async def _seconds(self) -> None:
        forget_at = 0.0
        while True:
            clock = self.store.clock
            await asyncio.sleep((1000 - clock.now_ms() % 1000) / 1000)
            step = await self._in_thread(clock.sample)
            if step and (self.options.kafka is None or self.options.kafka.runs):
                log.warning("the wall clock was set by %d ms", step)
                self._commits.queue_own("clock_step", {"step_ms": step})
            last = self.store.next_entry
            await self._commits.put([])
            if self.store.next_entry != last:
                self._commits.wake()
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
        return {
            "component": self.options.name,
            "pid": os.getpid(),
            "started_ms": self.started_ms,
            "updated_ms": int(time.time() * 1000),
            "state": "full" if full else self._state,
            "detail": self._detail(full),
            "metrics": metrics,
            **told,
        }

    def _detail(self, full: bool) -> str:
        if self._state == "taken":
            return str(self.failed)
        late = self.options.archived and self._archived < self._durable
        return "at its cap, sources wait; it is trimmed once the archive has it" if full and late else ""

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
        peer = Peer(connection)
        if len(self._peers) >= MAX_PEERS:
            peer.tell(wire.REFUSED, 0, b"too many connections")
            connection.close()
            return
        self._peers.add(peer)
        try:
            await self._hello(peer)
            while True:
                await self._message(peer, *await connection.read())
                while not self._commits.has_room(peer):
                    peer.room.clear()
                    await peer.room.wait()
        except (Refused, TooLarge, TimeoutError) as error:
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
                    self._commits.queue_own("disconnected", {"source": source})

    async def _hello(self, peer: Peer) -> None:
        kind, _, body, peer.shared = await asyncio.wait_for(peer.connection.read_first(), HELLO_WITHIN)
        if peer.shared >= 0 and not wire.is_memory(peer.shared):
            raise Refused("what it shares is no memory")
        try:
            hello = msgspec.msgpack.decode(body, type=Hello)
        except msgspec.DecodeError as error:
            raise Refused(f"greeting: {error}") from error
        if kind != wire.HELLO or len(hello.session) != 16:
            raise Refused("no greeting")
        for other in self._peers:
            if other.session == hello.session:  # the client gave that connection up
                other.replaced = True
                other.connection.close()
        # what the earlier connection left in the queue is committed first; for brokers nobody waits, and a
        # partition counts but once what is sent again
        while self._partition is None and self._commits.holds(hello.session):
            await asyncio.sleep(0.001)
        last = await self._in_thread(self.store.last_sequence, hello.session)
        peer.session, peer.name, peer.watch, peer.expected = (
            hello.session,
            hello.name[:100],
            hello.watch,
            last + 1,
        )
        peer.tell(wire.WELCOME, last)

    async def _message(self, peer: Peer, kind: int, number: int, body: bytearray | memoryview) -> None:
        if peer.replaced:
            raise Refused("its session has another connection")
        if kind in (wire.APPEND, wire.SHARED, wire.CONTROL):
            try:
                if kind == wire.SHARED:
                    body = from_shared(peer.shared, number, body)
                append = append_of(peer.session, kind, number, body, self._addresses)
            except (ValueError, msgspec.DecodeError) as error:
                raise Refused(f"append {number}: {error}") from error
            if number > peer.expected:  # one before it was refused
                peer.tell(wire.FULL, number)
                return
            peer.expected = max(peer.expected, number + 1)
            if kind == wire.CONTROL:
                note_connection(peer, append)
            self._commits.queue(peer, append)
        elif kind == wire.DURABLE and peer.name == ARCHIVER:
            self._archived = max(self._archived, number)
        elif kind == wire.DURABLE:
            self._durable = max(self._durable, number)
        elif kind == wire.STATUS:
            peer.tell(wire.ANSWER, number, json.dumps(self.status()).encode())
        else:
            raise Refused(f"message of kind {kind}")
