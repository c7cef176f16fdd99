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
import os
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from confluent_kafka import KafkaError

from connectors.backoff import Backoff
from connectors.errors import AuthError, ConnectError, JournalFull, JournalTaken
from connectors.journal import entries
from connectors.journal.kafka_claim import BEAT_S, Claim
from connectors.journal.kafka_config import PartitionConfig
from connectors.journal.kafka_follower import Follower, Trimmed
from connectors.journal.kafka_messages import (
    Arrival,
    By,
    Reached,
    append_message,
    arrival_of,
    tick_message,
)
from connectors.journal.kafka_sender import Sender
from connectors.journal.store import REFUSE_AT, Append, JournalStore, Jump, Place
from connectors.kafka.call_thread import CallThread
from connectors.kafka.client import told

log = logging.getLogger("journal")

BACKOFF_MIN: Final = 0.2  # seconds
BACKOFF_MAX: Final = 5.0
AWAY_S: Final = 3.0  # unanswered for so long: the brokers are away
AGAIN_S: Final = 5.0  # a message that is acknowledged and did not count is sent again
CLOSE_S: Final = 0.5
LOOK_S: Final = 5.0  # while the brokers are away: between two looks at why
FULL_S: Final = 0.1
SHARE: Final = 32  # of the map one transaction takes one part in so many
REACHED_S: Final = 0.8  # between two looks at what ticks tell

InThread = Callable[..., Awaitable[Any]]


@dataclass(slots=True, eq=False)
class _Sent:
    """An append on its way. answered: resolved with its place once it is acknowledged and in the copy."""

    append: Append
    ms: int
    at: float
    answered: asyncio.Future[Place]
    by: By | None = None  # of `started` and `stopped`
    acknowledged: bool = False
    place: Place | None = None


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
        self._connected = connected
        self._waited = False  # the brokers were away, and sources waited
        self._loop = asyncio.get_running_loop()
        self._reading = CallThread("journal-follower")
        self._follower = Follower(config, store, self._on_error)
        self._claim = Claim(config, store)
        self._deciding = asyncio.Lock()  # who runs the shard
        self._rival = ""
        self._claiming: asyncio.Task[None] | None = None
        self._sender: Sender | None = None
        self._waiting: dict[tuple[bytes, int], _Sent] = {}  # in the order of sending
        self._number = 0  # of the last message that was given to the sender
        self._numbered: dict[int, _Sent] = {}
        self._tick_number = 0  # of the tick that is not acknowledged yet
        self._ticked_ms = self._tick_at = 0
        self._tick_since = 0.0
        self._renewing: asyncio.Task[None] | None = None
        self._renew_after = BACKOFF_MIN
        self._looked_at = 0.0
        self._session = os.urandom(16)  # of the journal's own entries
        self._own = 0
        self._addresses = entries.Addresses()
        self._reached = Reached(0, 1, 0, 0, 0, {})
        self._reached_at = 0.0
        self._caught_up = asyncio.Event()
        self._open = False
        self._error = ""
        self._told = ""  # of it, in the log
        self._refused = ""  # why we may not read; until something is read
        self.strangers = 0  # messages that are nobody's entries
        self.gaps = 0
        self.gap_messages = 0

    async def begin(self) -> None:
        """Once the copy holds what stood in the partition at the start, the entry `started`, where the
        shard runs here."""
        await self._caught_up.wait()
        self._renew_sender()
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
        self._ticked_ms = self.store.clock.now_ms() // 1000 * 1000  # as JournalStore.begin
        await self.commit([Append(b"", 0, entries.pack_control("started", {"clean": clean}))])
        self._claim.is_under_way = False

    async def end(self, within: float) -> None:
        """The entry `stopped`, if the brokers take it within so many seconds."""
        if self._sender is not None and self.config.runs and not self.away() and within > 0:
            with contextlib.suppress(TimeoutError):
                stopped = self.commit([Append(b"", 0, entries.pack_control("stopped", {}))])
                await asyncio.wait_for(stopped, within)

    async def close(self) -> None:
        """Let go of the brokers; nothing calls this object any more."""
        for task in (self._renewing, self._claiming):
            if task is not None:
                task.cancel()
        closing = self._loop.create_task(self._reading.call(self._follower.close))
        if self._sender is not None:
            await self._loop.run_in_executor(None, self._sender.close)
        await asyncio.wait({closing}, timeout=CLOSE_S)  # behind a question that brokers may not answer
        closing.cancel()

    async def commit(self, appends: Sequence[Append]) -> list[Place | None]:
        """See `JournalStore.commit`: returns when all of it stands in the partition and in the copy, however
        long the brokers are away."""
        now = self.store.clock.now_ms()
        if self._waited:
            self._tell_wait(now)
        self._tick(now)
        size = self.store.used_bytes
        is_full = False
        sent: list[_Sent | None] = []
        for append in appends:
            size += len(append.body)
            is_full = self.store.full = is_full or size > self.store.map_bytes * REFUSE_AT
            if is_full and append.session:
                self.store.totals["refused"] += 1
                sent.append(None)
            else:
                sent.append(self._send(append, now))
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
                        self._told_away(await self._reading.call(self._follower.look) or self._error)
            except Trimmed:
                log.warning("the partition was trimmed beyond the copy's end")

    def away(self) -> bool:
        """Whether the brokers have not answered for a while."""
        return self._unanswered() > AWAY_S or not self._open

    def status(self) -> dict[str, Any]:
        """state and detail, or {} where all is well."""
        if self._rival:
            return {"state": "claiming", "detail": f"looks whether {self._rival} still runs the shard"}
        if not self.away() and not self._refused:
            if self.store.full:
                return {}
            if not self._caught_up.is_set():
                return {"state": "catching up", "detail": f"{self._follower.lag()} messages to read"}
            return {"state": "taken", "detail": self.config.taken} if self.config.taken else {}
        where = f"Kafka {self.config.journal.bootstrap}"
        if not self._open and not self._error:
            return {"state": "connecting", "detail": where}
        waits = f"{where}: {self._refused or self._error or 'no answer'}; sources wait"
        return {"state": "disconnected", "detail": waits}

    def metrics(self) -> dict[str, float]:
        """Numbers for the status file."""
        return {
            "journal_kafka_offset": self._follower.next_offset,
            "journal_kafka_lag": self._follower.lag(),
            "journal_kafka_waiting": len(self._waiting),
            "journal_kafka_strangers_total": self.strangers,
            "journal_kafka_gaps_total": self.gaps,
            "journal_kafka_gap_messages_total": self.gap_messages,
        }

    # -- sending

    def _send(self, append: Append, ms: int) -> _Sent:
        key, by = append.key or _key_of(append), None
        if not append.session:
            self._own += 1
            is_claim = entries.decode_entry(0, bytes(append.body)).control().kind in ("started", "stopped")
            by = self._claim.by if is_claim else None
            append = Append(self._session, self._own, append.body, key, append.bundle)
        elif key:
            append = Append(append.session, append.sequence, append.body, key, append.bundle)
        again = self._waiting.get((append.session, append.sequence))
        if again is not None:  # its client has another connection and asks once more
            return again
        sent = _Sent(append, ms, time.monotonic(), self._loop.create_future(), by)
        self._waiting[append.session, append.sequence] = sent
        self._put(sent)
        return sent

    def _put(self, sent: _Sent) -> None:
        if self._sender is None or self._renewing is not None:
            return  # all that waits is sent once there is a sender
        self._number += 1
        self._numbered[self._number] = sent
        known = self.store.known_sequence(sent.append.session)
        self._sender.send(self._number, *append_message(sent.append, sent.ms, known, sent.by))

    def _tick(self, now: int) -> None:
        """A tick, if a second has passed and the shard runs here; one at a time, so that none pile up
        while the brokers are away."""
        second = now // 1000 * 1000
        if second <= self._ticked_ms or self._tick_number or not self._claim.is_made:
            return
        if second <= self.store.last_tick_ms and time.monotonic() - self._tick_since < BEAT_S:
            return  # those of others moved the clock; now and then one tells that we live
        if self._sender is None or self._renewing is not None:
            return
        self._ticked_ms, self._tick_since = second, time.monotonic()
        self._number += 1
        self._tick_number = self._number
        self._sender.send(self._number, *tick_message(second, self._reached, self._claim.by))

    def _tell_wait(self, now: int) -> None:
        """What devices sent meanwhile waits in the receivers: they were not silent. So the sources count as
        away from the clock's last moment before the wait until now, and no tick in between finds them so."""
        self._waited = False
        for source in sorted(self._connected()):
            for kind, ms in (("disconnected", self.store.last_ms), ("connected", now)):
                self._send(Append(b"", 0, entries.pack_control(kind, {"source": source})), ms)

    def _renew_sender(self) -> None:
        self._numbered.clear()
        if self._tick_number:  # what the failed producer had in hand waited as well
            self._waited |= time.monotonic() - self._tick_since > AWAY_S
        self._tick_number = self._ticked_ms = 0
        self._sender = Sender(
            self.config,
            lambda number: self._from_thread(self._acknowledged, number),
            lambda why: self._from_thread(self._sender_failed, why),
            self._on_error,
        )
        for sent in list(self._waiting.values()):
            self._put(sent)

    def _acknowledged(self, number: int) -> None:
        if number == self._tick_number:
            self._tick_number = 0
            self._waited |= time.monotonic() - self._tick_since > AWAY_S
            return
        sent = self._numbered.pop(number, None)
        if sent is not None:
            self._waited |= time.monotonic() - sent.at > AWAY_S
            sent.acknowledged = True
            self._answer(sent)

    def _sender_failed(self, why: str) -> None:
        if self._renewing is None:
            if why != self._error:
                log.warning("the producer has failed: %s", why)
            self._error = why
            self._renewing = self._loop.create_task(self._renew())

    async def _renew(self) -> None:
        """Another producer; all that waits is sent again, and counts once."""
        failed = self._sender
        if failed is not None:
            await self._loop.run_in_executor(None, failed.close)
        await asyncio.sleep(self._renew_after)
        self._renew_after = min(self._renew_after * 2, BACKOFF_MAX)
        self._renewing = None
        self._renew_sender()

    def _answer(self, sent: _Sent) -> None:
        if sent.acknowledged and sent.place is not None and not sent.answered.done():
            del self._waiting[sent.append.session, sent.append.sequence]
            sent.answered.set_result(sent.place)
            if self._told:
                log.info("the brokers are back")
            self._error = self._told = ""
            self._renew_after = BACKOFF_MIN

    def _unanswered(self) -> float:
        """Seconds that the oldest message waits; 0.0 where none does."""
        oldest = next(iter(self._waiting.values()), None)
        since = [oldest.at] if oldest is not None else []
        since += [self._tick_since] if self._tick_number else []
        return time.monotonic() - min(since) if since else 0.0

    # -- following

    async def _find_place(self) -> None:
        backoff = Backoff(BACKOFF_MIN, BACKOFF_MAX)
        while True:
            try:
                jump = await self._reading.call(self._follower.open)
                break
            except ConnectError as error:
                self._told_away(str(error))
            await asyncio.sleep(backoff.next())
        if self._told:
            log.info("the brokers are back")
        self._error = self._told = ""
        await self._in_thread(self.store.load_sessions)
        self._reached_at = 0.0
        if jump is not None:
            if jump.told is not None:
                self.gaps += 1
                self.gap_messages += int(jump.told["missing"])
            await self._replicate([], self._follower.next_offset, jump)
        self._open = True
        self._look_caught_up()

    def _told_away(self, why: str) -> None:
        if why != self._told:
            log.warning("the brokers are away: %s", why or "no answer")
        self._error = self._told = why

    async def _take(self, messages: list[Any]) -> None:
        """Into the copy, in transactions that have room beside what is there."""
        self._refused = ""
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
                    self._error = str(error)
                    await asyncio.sleep(backoff.next())
                except JournalTaken as error:
                    self._claim.is_made, self._claim.lost = False, error  # no tick of ours any more
                    raise
            if self._claim.is_made:  # it was of the past: the shard is ours again
                self._claim.is_under_way = self._waited = True
                self._claiming = self._loop.create_task(self._say_started(clean=False))
        log.info("%s does not live any more", self._rival)
        self._rival = ""

    async def _put_in(self, arrivals: list[Arrival], offset: int) -> None:
        """Into the copy; answers those whose appends these are. offset: of the next message."""
        places = await self._replicate(arrivals, offset)
        for arrival, place in zip(arrivals, places, strict=True):
            append = arrival.append
            sent = self._waiting.get((append.session, append.sequence)) if append is not None else None
            if sent is None:
                continue
            if place is not None:
                sent.place = sent.place or place
                self._answer(sent)
            else:  # a late copy, before one that it comes after; unless another one follows, again
                self._loop.call_later(AGAIN_S, self._again, sent)
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
                self._reached = await self._in_thread(self._reach, offset)
                self._reached_at = time.monotonic()
            return places

    def _reach(self, offset: int) -> Reached:
        """In the store's thread: what a follower would have to know to go on at `offset`."""
        store = self.store
        place = (offset, store.next_entry, store.next_position, store.last_ms, store.last_tick_ms)
        return Reached(*place, store.recent_sessions())

    def _again(self, sent: _Sent) -> None:
        if sent.place is None and not sent.answered.done():
            self._put(sent)

    def _look_caught_up(self) -> None:
        if self._follower.next_offset >= self._follower.caught_up_at:
            self._caught_up.set()

    # -- threads

    def _from_thread(self, call: Callable[..., None], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(call, *arguments)

    def _on_error(self, error: KafkaError) -> None:
        """From any thread; what the connections say, the reason of a refusal before anything else."""
        words = told(error)
        if isinstance(words, AuthError) or not self._error:
            self._error = str(words)
        if isinstance(words, AuthError) and self._refused != str(words):
            self._refused = str(words)
            log.warning("%s", words)


def _key_of(append: Append) -> bytes:
    """What makes an applied plant count once in a partition, whoever brings it there: its apply id."""
    if append.bundle is None:
        return b""
    apply_id = entries.decode_entry(0, bytes(append.body)).control().data.get("apply_id", "")
    return f"apply {apply_id}".encode() if apply_id else b""
