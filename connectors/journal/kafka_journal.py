"""The journal of a shard when it is a partition of a Kafka topic.

The partition is the journal; the LMDB store is a copy of it for the readers of this machine, that can be
made anew. Appends of this machine's clients, its ticks and its own entries are sent to the partition;
the follower reads all that stands in it, in its order, into the copy, together with the offset in
one transaction. An append is answered when the brokers have acknowledged it and it is in the copy, so
whatever is killed meanwhile (this process, a broker, a receiver): what was answered is in the
partition, and what was not is sent again by its client and counted once, by session and number.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import Any, Final

from connectors.backoff import Backoff
from connectors.errors import ConnectError, JournalFull, JournalTaken
from connectors.journal import entries
from connectors.journal.kafka_claim import Claim
from connectors.journal.kafka_config import PartitionConfig
from connectors.journal.kafka_follower import Follower, Trimmed
from connectors.journal.kafka_messages import (
    Arrival,
    Reached,
    arrival_of,
)
from connectors.journal.kafka_sending import AWAY_S, BACKOFF_MAX, BACKOFF_MIN, Sending, Sent, Trouble
from connectors.journal.store import REFUSE_AT, Append, JournalStore, Jump, Place
from connectors.kafka.call_thread import CallThread

log = logging.getLogger("journal")

AGAIN_S: Final = 5.0  # a message that is acknowledged and did not count is sent again
CLOSE_S: Final = 0.5
LOOK_S: Final = 5.0  # while the brokers are away: between two looks at why
FULL_S: Final = 0.1
SHARE: Final = 32  # of the map one transaction takes one part in so many
REACHED_S: Final = 0.8  # between two looks at what ticks tell

InThread = Callable[..., Awaitable[Any]]


class PartitionJournal:
    """Sends to, and follows, one partition. Of one event loop; `in_thread` runs what touches the store."""

    def __init__(
        self,
        config: PartitionConfig,
        store: JournalStore,
        in_thread: InThread,
        applied: Callable[[], None],
        connected: Callable[[], Collection[str]],
    ) -> None:
        """applied: called when the copy has grown. connected: the sources that said so to this process."""
        self.config = config
        self.store = store
        self._in_thread = in_thread
        self._applied = applied
        self._loop = asyncio.get_running_loop()
        self._reading = CallThread("journal-follower")
        self._trouble = Trouble()
        self._follower = Follower(config, store, self._trouble.told)
        self._claim = Claim(config, store)
        self._sending = Sending(config, store, self._claim, self._trouble, connected)
        self._deciding = asyncio.Lock()  # who runs the shard
        self._rival = ""
        self._claiming: asyncio.Task[None] | None = None
        self._looked_at = 0.0
        self._addresses = entries.Addresses()
        self._reached_at = 0.0
        self._caught_up = asyncio.Event()
        self._open = False
        self.strangers = 0  # messages that are nobody's entries
        self.gaps = 0
        self.gap_messages = 0

    async def begin(self) -> None:
        """Once the copy holds what stood in the partition at the start, the entry `started`, where the
        shard runs here."""
        await self._caught_up.wait()
        self._sending.renew()
        if not self.config.runs:
            return
        async with self._deciding:
            if self._claim.lost is not None:
                raise self._claim.lost
            clean = await self._in_thread(self.store.is_stopped)
            self._claim.is_made = self._claim.is_under_way = True
        await self._say_started(clean)

    async def _say_started(self, clean: bool) -> None:
        """With this the shard is ours, and whoever ran it before gives way."""
        self._sending.no_tick_before(self.store.clock.now_ms())
        await self.commit([Append(b"", 0, entries.pack_control("started", {"clean": clean}))])
        self._claim.is_under_way = False

    async def end(self, within: float) -> None:
        """The entry `stopped`, if the brokers take it within so many seconds."""
        if self._sending.has_begun and self.config.runs and not self.away() and within > 0:
            with contextlib.suppress(TimeoutError):
                stopped = self.commit([Append(b"", 0, entries.pack_control("stopped", {}))])
                await asyncio.wait_for(stopped, within)

    async def close(self) -> None:
        """Let go of the brokers; nothing calls this object any more."""
        if self._claiming is not None:
            self._claiming.cancel()
        closing = self._loop.create_task(self._reading.call(self._follower.close))
        await self._sending.close()
        await asyncio.wait({closing}, timeout=CLOSE_S)  # behind a question that brokers may not answer
        closing.cancel()

    async def commit(self, appends: Sequence[Append]) -> list[Place | None]:
        """See `JournalStore.commit`: returns when all of it stands in the partition and in the copy, however
        long the brokers are away."""
        now = self.store.clock.now_ms()
        if self._sending.waited:
            self._sending.tell_wait(now)
        self._sending.tick(now)
        size = self.store.used_bytes
        is_full = False
        sent: list[Sent | None] = []
        for append in appends:
            size += len(append.body)
            is_full = self.store.full = is_full or size > self.store.map_bytes * REFUSE_AT
            if is_full and append.session:
                self.store.totals["refused"] += 1
                sent.append(None)
            else:
                sent.append(self._sending.send(append, now))
        return [None if one is None else await one.answered for one in sent]

    async def follow(self) -> None:
        """Keep the copy. Ends only by an exception: `JournalError` or `ConfigError`."""
        while True:
            await self._find_place()
            try:
                while True:
                    messages = await self._reading.call(self._follower.poll)
                    if messages:
                        await self._take(messages)
                    elif not self._caught_up.is_set():
                        self._look_caught_up()
                    elif self.away() and time.monotonic() - self._looked_at > LOOK_S:
                        self._looked_at = time.monotonic()
                        self._trouble.away(
                            await self._reading.call(self._follower.look) or self._trouble.error
                        )
            except Trimmed:
                log.warning("the partition was trimmed beyond the copy's end")

    def away(self) -> bool:
        """Whether the brokers have not answered for a while."""
        return self._sending.unanswered() > AWAY_S or not self._open

    def status(self) -> dict[str, Any]:
        """state and detail, or {} where all is well."""
        if self._rival:
            return {"state": "claiming", "detail": f"looks whether {self._rival} still runs the shard"}
        if not self.away() and not self._trouble.refused:
            if self.store.full:
                return {}
            if not self._caught_up.is_set():
                return {"state": "catching up", "detail": f"{self._follower.lag()} messages to read"}
            return {"state": "taken", "detail": self.config.taken} if self.config.taken else {}
        where = f"Kafka {self.config.journal.bootstrap}"
        if not self._open and not self._trouble.error:
            return {"state": "connecting", "detail": where}
        waits = f"{where}: {self._trouble.refused or self._trouble.error or 'no answer'}; sources wait"
        return {"state": "disconnected", "detail": waits}

    def metrics(self) -> dict[str, float]:
        """Numbers for the status file."""
        return {
            "journal_kafka_offset": self._follower.next_offset,
            "journal_kafka_lag": self._follower.lag(),
            "journal_kafka_waiting": len(self._sending.waiting),
            "journal_kafka_strangers_total": self.strangers,
            "journal_kafka_gaps_total": self.gaps,
            "journal_kafka_gap_messages_total": self.gap_messages,
        }

    # -- following

    async def _find_place(self) -> None:
        backoff = Backoff(BACKOFF_MIN, BACKOFF_MAX)
        while True:
            try:
                jump = await self._reading.call(self._follower.open)
                break
            except ConnectError as error:
                self._trouble.away(str(error))
            await asyncio.sleep(backoff.next())
        self._trouble.over()
        await self._in_thread(self.store.load_sessions)
        self._reached_at = 0.0
        if jump is not None:
            if jump.told is not None:
                self.gaps += 1
                self.gap_messages += int(jump.told["missing"])
            await self._replicate([], self._follower.next_offset, jump)
        self._open = True
        self._look_caught_up()

    async def _take(self, messages: list[Any]) -> None:
        """Into the copy, in transactions that have room beside what is there."""
        self._trouble.refused = ""
        most, size = self.store.map_bytes // SHARE, 0
        arrivals: list[Arrival] = []
        for message in messages:
            size += len(message.value() or b"")
            if size > most and arrivals:
                await self._put_in(arrivals, message.offset())
                size, arrivals = len(message.value() or b""), []
            found = arrival_of(message.offset(), message.value(), message.headers(), self._addresses)
            if found is not None and self._claim.is_met_in(found):
                await self._put_in(arrivals, message.offset())
                size, arrivals = len(message.value() or b""), []
                await self._decide(found)
            if found is not None:
                arrivals.append(found)
                continue
            self.strangers += 1
            if self.strangers == 1:
                at = message.offset()
                log.warning("the message at offset %d is no entry of a journal; passed over", at)
        await self._put_in(arrivals, self._follower.next_offset)

    async def _decide(self, claim: Arrival) -> None:
        """Another claims the shard: go on only where it does not live any more. Raises `JournalTaken`."""
        assert claim.claims is not None
        self._rival = claim.claims.host
        log.info("%s claims the shard; looking whether it lives", self._rival)
        backoff = Backoff(BACKOFF_MIN, BACKOFF_MAX)
        async with self._deciding:
            while True:
                try:
                    await self._reading.call(partial(self._claim.look, self._follower))
                    break
                except ConnectError as error:
                    self._trouble.error = str(error)
                    await asyncio.sleep(backoff.next())
                except JournalTaken as error:
                    self._claim.is_made, self._claim.lost = False, error  # no tick of ours any more
                    raise
            if self._claim.is_made:  # it was of the past: the shard is ours again
                self._claim.is_under_way = self._sending.waited = True
                self._claiming = self._loop.create_task(self._say_started(clean=False))
        log.info("%s does not live any more", self._rival)
        self._rival = ""

    async def _put_in(self, arrivals: list[Arrival], offset: int) -> None:
        """Into the copy; answers those whose appends these are. offset: of the next message."""
        places = await self._replicate(arrivals, offset)
        for arrival, place in zip(arrivals, places, strict=True):
            append = arrival.append
            sent = (
                self._sending.waiting.get((append.session, append.sequence)) if append is not None else None
            )
            if sent is None:
                continue
            if place is not None:
                sent.place = sent.place or place
                self._sending.answer(sent)
            else:  # a late copy, before one that it comes after; unless another one follows, again
                self._loop.call_later(AGAIN_S, self._sending.again, sent)
        self._look_caught_up()
        self._applied()

    async def _replicate(
        self, arrivals: list[Arrival], offset: int, jump: Jump | None = None
    ) -> list[Place | None]:
        """Into the copy, once there is room."""
        mark = self._follower.mark(offset)
        while True:
            try:
                places: list[Place | None] = await self._in_thread(self.store.replicate, arrivals, mark, jump)
            except JournalFull:
                await asyncio.sleep(FULL_S)
                continue
            if time.monotonic() - self._reached_at > REACHED_S:
                self._sending.reached = await self._in_thread(self._reach, offset)
                self._reached_at = time.monotonic()
            return places

    def _reach(self, offset: int) -> Reached:
        """In the store's thread: what a follower would have to know to go on at `offset`."""
        store = self.store
        place = (offset, store.next_entry, store.next_position, store.last_ms, store.last_tick_ms)
        return Reached(*place, store.recent_sessions())

    def _look_caught_up(self) -> None:
        if self._follower.next_offset >= self._follower.caught_up_at:
            self._caught_up.set()
