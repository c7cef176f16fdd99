"""What waits for the journal, and the groups in which it becomes durable.

Everything that waits when a commit begins, whoever sent it, goes into one durable transaction; then each
sender is told. While the disk works, the next group gathers, as long as there is room for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from connectors.journal import entries, wire
from connectors.journal.peers import Peer
from connectors.journal.store import Append, JournalStore, Place

if TYPE_CHECKING:
    from connectors.journal.kafka_journal import PartitionJournal

GROUP_BYTES: Final = 32 << 20  # of one commit: its second sync costs as much as megabytes
PEER_BYTES: Final = 2 * GROUP_BYTES  # of one peer, being committed and next; then it is not read
WAITING_BYTES: Final = 4 * GROUP_BYTES  # of all peers; then none is read that has something waiting

log = logging.getLogger("journal")


class Commits:
    """The one who commits, for all peers. in_thread: runs a call in the thread that touches the store's
    write side, in order. partition: the journal, where it is a partition of a topic; set before `run`."""

    def __init__(self, store: JournalStore, in_thread: Callable[..., Awaitable[Any]]) -> None:
        self.store = store
        self.peers: set[Peer] = set()
        self.partition: PartitionJournal | None = None
        self._in_thread = in_thread
        self._queue: list[tuple[Peer | None, Append]] = []
        self._waiting = 0  # bytes queued and not committed, of all peers
        self._work = asyncio.Event()
        self._stopping = False

    async def run(self) -> None:
        """Commit what waits, until `end`."""
        if self.partition is not None:
            await self.partition.begin()
            log.info("the copy holds what stood in the partition, up to entry %d", self.store.next_entry - 1)
        while True:
            await self._work.wait()
            self._work.clear()
            while self._queue:
                await self._commit(self._take())
            if self._stopping:
                return

    def _take(self) -> list[tuple[Peer | None, Append]]:
        size = count = 0
        for _, append in self._queue:
            size += len(append.body)
            count += 1
            if size >= GROUP_BYTES:
                break
        group, self._queue = self._queue[:count], self._queue[count:]
        return group

    async def _commit(self, group: list[tuple[Peer | None, Append]]) -> None:
        last = self.store.next_entry
        places = await self.put([append for _, append in group])
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
        for other in self.peers:
            if self.has_room(other):
                other.room.set()
        if self.store.next_entry != last:
            self.wake()

    async def put(self, appends: list[Append]) -> list[Place | None]:
        """Durably into the journal, in order, with the tick that is due before them."""
        if self.partition is not None:
            return await self.partition.commit(appends)
        places: list[Place | None] = await self._in_thread(self.store.commit, appends)
        return places

    def has_room(self, peer: Peer) -> bool:
        """Whether more may be read of a peer."""
        return not peer.waiting or (peer.waiting < PEER_BYTES and self._waiting < WAITING_BYTES)

    def wake(self) -> None:
        """Tell those who watch that there are new entries."""
        for peer in self.peers:
            if peer.watch and not peer.connection.unsent:
                peer.tell(wire.WAKE, self.store.next_entry - 1)

    def connected(self) -> set[str]:
        """The sources that are connected."""
        return {source for peer in self.peers for source in peer.connected}

    def queue_own(self, kind: str, data: dict[str, Any]) -> None:
        """Take an entry of the process itself into the next group."""
        self._queue.append((None, Append(b"", 0, entries.pack_control(kind, data))))
        self._work.set()

    def queue(self, peer: Peer, append: Append) -> None:
        """Take a peer's append into the next group."""
        peer.waiting += len(append.body)
        self._waiting += len(append.body)
        self._queue.append((peer, append))
        self._work.set()

    def holds(self, session: bytes) -> bool:
        """Whether something of a session waits."""
        return any(append.session == session for _, append in self._queue)

    def end(self) -> None:
        """Let `run` return once nothing waits any more."""
        self._stopping = True
        self._work.set()
