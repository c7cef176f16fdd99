"""The journals of a plant's shards as one `Appender`: each frame goes to the shard of its address.

Order is kept in each shard, which is all the order there is: a device's frames have one address
and one shard. An append is durable when its part in every shard is. A receiver that is killed
between two shards has acknowledged nothing of it; what its peer sends again is, as after any such
kill, a second entry in the shards that had their part (an append with a key is none).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt

from connectors.journal.client import JournalClient, Opened
from connectors.source import Frame, FrameRows, Leaving, Where
from operators.batch import Address, Int64

ADDRESSES_KEPT: Final = 200_000  # whose shard is known without asking
SMALL_FRAME: Final = 32  # bytes


class ShardedClient(Opened):
    """One source's way into the journals of all shards; an `Appender` (connectors.source).

    clients: by shard. route: the shard of an address; None: every frame goes to every shard, as those
    that carry master data do. shard_of: the shard of a device. Of one event loop. A shard whose journal
    is away or full holds up the source as the only journal would.
    """

    def __init__(
        self,
        clients: Sequence[JournalClient],
        route: Callable[[Address], int] | None,
        shard_of: Callable[[str], int],
    ) -> None:
        self.clients = list(clients)
        self.shards = len(self.clients)
        self._route = route
        self._shard_of = shard_of
        self._source = self.clients[0].source
        self._known: dict[Where, int] = {}
        self._order = asyncio.Lock()  # parts of one append leave together, so that calls keep their order

    def start(self) -> None:
        """Begin to connect, in the background."""
        for client in self.clients:
            client.start()

    async def close(self, within: float = 5.0) -> None:
        """See `JournalClient.close`."""
        await asyncio.gather(*(client.close(within) for client in self.clients))

    def shard_of(self, device_id: str) -> int:
        """See `connectors.source.Appender`."""
        return self._shard_of(device_id)

    async def append(self, frames: Sequence[Frame], key: str | None = None) -> int:
        """See `JournalClient.append`; the position is that of the first frame in its own shard."""
        if not frames:
            raise ValueError("no frames to append")
        parts: dict[int, Sequence[Frame]] = {}  # the first frame's shard first
        if self._route is None:
            parts = dict.fromkeys(range(self.shards), frames)
        else:
            cut: dict[int, list[Frame]] = {}
            for frame in frames:
                shard = self._shard(self._route, (frame.topic, frame.port, frame.headers))
                cut.setdefault(shard, []).append(frame)
            parts.update(cut)
        futures: list[asyncio.Future[int]] = []
        async with self._order:
            for shard, part in parts.items():
                futures += await self.clients[shard].send(part, key)
        return (await _all(futures))[0]

    async def append_rows(
        self, rows: FrameRows, key: str | None = None, leaving: Leaving | None = None
    ) -> int:
        """See `connectors.source.Appender`; waits and raises as `append` does."""
        parts = self._cut(rows)
        futures: list[asyncio.Future[int]] = []
        async with self._order:
            for shard, part, chosen in parts:
                told = None if leaving is None else partial(_leaves, leaving, chosen)
                futures.append(await self.clients[shard].send_rows(part, key, told))
        return (await _all(futures))[0]

    async def appended(self, session: bytes) -> int:
        """See `connectors.source.Appender`. A session is of one shard; the others do not know it."""
        return max(await asyncio.gather(*(client.appended(session) for client in self.clients)))

    async def control(self, kind: str, data: Mapping[str, object]) -> None:
        """An entry in every shard; see `JournalClient.control`."""
        async with self._order:
            futures = [await client.send_control(kind, data) for client in self.clients]
        await _all(futures)

    def _shard(self, route: Callable[[Address], int], where: Where) -> int:
        found = self._known.get(where)
        if found is None:
            if len(self._known) >= ADDRESSES_KEPT:
                self._known.clear()
            found = self._known[where] = route(Address(self._source, *where))
        return found

    def _cut(self, rows: FrameRows) -> list[tuple[int, FrameRows, Int64 | None]]:
        """(shard, its rows, which of the whole they are or None for all), the first row's shard first."""
        if not len(rows):
            raise ValueError("no frames to append")
        route, count = self._route, len(rows.addresses)
        if route is None:
            return [(shard, rows, None) for shard in range(self.shards)]
        shards = np.fromiter((self._shard(route, where) for where in rows.addresses), np.uint16, count)
        of_row = shards[rows.where]
        first = int(of_row[0])
        if (of_row == first).all():
            return [(first, rows, None)]
        payloads = _payloads(rows, of_row)
        there = np.unique(of_row).tolist()
        parts: list[tuple[int, FrameRows, Int64 | None]] = []
        for shard in sorted(there, key=lambda one: (one != first, one)):
            chosen = np.flatnonzero(of_row == shard)
            used, where = np.unique(rows.where[chosen], return_inverse=True)
            part = FrameRows(
                payload=payloads(shard, chosen),
                lengths=rows.lengths[chosen],
                where=where.astype(np.uint32),
                flags=rows.flags[chosen],
                addresses=[rows.addresses[number] for number in used.tolist()],
            )
            parts.append((shard, part, chosen))
        return parts


def _payloads(rows: FrameRows, of_row: npt.NDArray[np.uint16]) -> Callable[[int, Int64], bytes]:
    """The payloads of a shard's rows, one after the other: of small frames chosen byte by byte (4 ns
    each), of larger ones frame by frame (120 ns each)."""
    if len(rows.payload) < SMALL_FRAME * len(rows):
        payload = np.frombuffer(rows.payload, np.uint8)
        of_byte = np.repeat(of_row, rows.lengths)
        return lambda shard, _: payload[of_byte == shard].tobytes()
    whole = rows.payload
    ends = np.cumsum(rows.lengths, dtype=np.int64)
    starts = ends - rows.lengths

    def joined(_: int, chosen: Int64) -> bytes:
        spans = zip(starts[chosen].tolist(), ends[chosen].tolist(), strict=True)
        return b"".join([whole[start:end] for start, end in spans])

    return joined


def _leaves(leaving: Leaving, chosen: Int64 | None, session: bytes, number: int) -> None:
    leaving(session, number, chosen)


async def _all(futures: Sequence[asyncio.Future[int]]) -> list[int]:
    """All results; where one raises, so does this, once none is under way any more."""
    for found in await asyncio.gather(*futures, return_exceptions=True):
        if isinstance(found, BaseException):
            raise found
    return [future.result() for future in futures]
