"""What one process has on its way into a partition: appends of its clients, its own entries, and ticks.

Sent in order by one producer; where that fails, all that is not answered is sent again by another one, and
counts once, by session and number.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import KafkaError

from connectors.errors import AuthError
from connectors.journal import entries
from connectors.journal.kafka_claim import BEAT_S, Claim
from connectors.journal.kafka_config import PartitionConfig
from connectors.journal.kafka_messages import By, Reached, append_message, tick_message
from connectors.journal.kafka_sender import Sender
from connectors.journal.store import Append, JournalStore, Place
from connectors.kafka.client import told

log = logging.getLogger("journal")

BACKOFF_MIN: Final = 0.2  # seconds
BACKOFF_MAX: Final = 5.0
AWAY_S: Final = 3.0  # unanswered for so long: the brokers are away


@dataclass(slots=True, eq=False)
class Sent:
    """An append on its way. answered: resolved with its place once it is acknowledged and in the copy."""

    append: Append
    ms: int
    at: float
    answered: asyncio.Future[Place]
    by: By | None = None  # of `started` and `stopped`
    acknowledged: bool = False
    place: Place | None = None


class Trouble:
    """What is wrong with the brokers, in words. error: what was told last; refused: why we may not read,
    until something is read. Each is logged once."""

    def __init__(self) -> None:
        self.error = self.refused = ""
        self._logged = ""

    def told(self, error: KafkaError) -> None:
        """From any thread; what the connections say, the reason of a refusal before anything else."""
        words = told(error)
        if isinstance(words, AuthError) or not self.error:
            self.error = str(words)
        if isinstance(words, AuthError) and self.refused != str(words):
            self.refused = str(words)
            log.warning("%s", words)

    def failed(self, why: str) -> None:
        """The producer is of no more use."""
        if why != self.error:
            log.warning("the producer has failed: %s", why)
        self.error = why

    def away(self, why: str) -> None:
        """The brokers do not answer."""
        if why != self._logged:
            log.warning("the brokers are away: %s", why or "no answer")
        self.error = self._logged = why

    def over(self) -> None:
        """They do again."""
        if self._logged:
            log.info("the brokers are back")
        self.error = self._logged = ""


class Sending:
    """Of one event loop. waiting: by session and number, in the order of sending; waited: the brokers were
    away, and sources waited; reached: what ticks tell."""

    def __init__(
        self,
        config: PartitionConfig,
        store: JournalStore,
        claim: Claim,
        trouble: Trouble,
        connected: Callable[[], Collection[str]],
    ) -> None:
        """connected: the sources that said so to this process."""
        self._config = config
        self._store = store
        self._claim = claim
        self._trouble = trouble
        self._connected = connected
        self._loop = asyncio.get_running_loop()
        self.waiting: dict[tuple[bytes, int], Sent] = {}
        self.waited = False
        self.reached = Reached(0, 1, 0, 0, 0, {})
        self._sender: Sender | None = None
        self._number = 0  # of the last message that was given to the sender
        self._numbered: dict[int, Sent] = {}
        self._tick_number = 0  # of the tick that is not acknowledged yet
        self._ticked_ms = 0
        self._tick_since = 0.0
        self._renewing: asyncio.Task[None] | None = None
        self._renew_after = BACKOFF_MIN
        self._session = os.urandom(16)  # of the journal's own entries
        self._own = 0

    @property
    def has_begun(self) -> bool:
        """Whether there is a producer, or was."""
        return self._sender is not None

    def no_tick_before(self, now: int) -> None:
        """The second of `started` has no tick: see `JournalStore.begin`."""
        self._ticked_ms = now // 1000 * 1000

    async def close(self) -> None:
        """Give up what is under way; it may arrive all the same."""
        if self._renewing is not None:
            self._renewing.cancel()
        if self._sender is not None:
            await self._loop.run_in_executor(None, self._sender.close)

    def send(self, append: Append, ms: int) -> Sent:
        """Queue an append, with the clock that it is stamped with."""
        key, by = append.key or _key_of(append), None
        if not append.session:
            self._own += 1
            is_claim = entries.decode_entry(0, bytes(append.body)).control().kind in ("started", "stopped")
            by = self._claim.by if is_claim else None
            append = Append(self._session, self._own, append.body, key, append.bundle)
        elif key:
            append = Append(append.session, append.sequence, append.body, key, append.bundle)
        again = self.waiting.get((append.session, append.sequence))
        if again is not None:  # its client has another connection and asks once more
            return again
        sent = Sent(append, ms, time.monotonic(), self._loop.create_future(), by)
        self.waiting[append.session, append.sequence] = sent
        self._put(sent)
        return sent

    def _put(self, sent: Sent) -> None:
        if self._sender is None or self._renewing is not None:
            return  # all that waits is sent once there is a sender
        self._number += 1
        self._numbered[self._number] = sent
        known = self._store.known_sequence(sent.append.session)
        self._sender.send(self._number, *append_message(sent.append, sent.ms, known, sent.by))

    def tick(self, now: int) -> None:
        """A tick, if a second has passed and the shard runs here; one at a time, so that none pile up
        while the brokers are away."""
        second = now // 1000 * 1000
        if second <= self._ticked_ms or self._tick_number or not self._claim.is_made:
            return
        if second <= self._store.last_tick_ms and time.monotonic() - self._tick_since < BEAT_S:
            return  # those of others moved the clock; now and then one tells that we live
        if self._sender is None or self._renewing is not None:
            return
        self._ticked_ms, self._tick_since = second, time.monotonic()
        self._number += 1
        self._tick_number = self._number
        self._sender.send(self._number, *tick_message(second, self.reached, self._claim.by))

    def tell_wait(self, now: int) -> None:
        """What devices sent meanwhile waits in the receivers: they were not silent. So the sources count as
        away from the clock's last moment before the wait until now, and no tick in between finds them so."""
        self.waited = False
        for source in sorted(self._connected()):
            for kind, ms in (("disconnected", self._store.last_ms), ("connected", now)):
                self.send(Append(b"", 0, entries.pack_control(kind, {"source": source})), ms)

    def renew(self) -> None:
        """A producer, which is sent all that waits."""
        self._numbered.clear()
        if self._tick_number:  # what the failed producer had in hand waited as well
            self.waited |= time.monotonic() - self._tick_since > AWAY_S
        self._tick_number = self._ticked_ms = 0
        self._sender = Sender(
            self._config,
            lambda number: self._from_thread(self._acknowledged, number),
            lambda why: self._from_thread(self._failed, why),
            self._trouble.told,
        )
        for sent in list(self.waiting.values()):
            self._put(sent)

    def _acknowledged(self, number: int) -> None:
        if number == self._tick_number:
            self._tick_number = 0
            self.waited |= time.monotonic() - self._tick_since > AWAY_S
            return
        sent = self._numbered.pop(number, None)
        if sent is not None:
            self.waited |= time.monotonic() - sent.at > AWAY_S
            sent.acknowledged = True
            self.answer(sent)

    def _failed(self, why: str) -> None:
        if self._renewing is None:
            self._trouble.failed(why)
            self._renewing = self._loop.create_task(self._renew())

    async def _renew(self) -> None:
        """Another producer; all that waits is sent again, and counts once."""
        failed = self._sender
        if failed is not None:
            await self._loop.run_in_executor(None, failed.close)
        await asyncio.sleep(self._renew_after)
        self._renew_after = min(self._renew_after * 2, BACKOFF_MAX)
        self._renewing = None
        self.renew()

    def answer(self, sent: Sent) -> None:
        """Once it is acknowledged and in the copy."""
        if sent.acknowledged and sent.place is not None and not sent.answered.done():
            del self.waiting[sent.append.session, sent.append.sequence]
            sent.answered.set_result(sent.place)
            self._trouble.over()
            self._renew_after = BACKOFF_MIN

    def unanswered(self) -> float:
        """Seconds that the oldest message waits; 0.0 where none does."""
        oldest = next(iter(self.waiting.values()), None)
        since = [oldest.at] if oldest is not None else []
        since += [self._tick_since] if self._tick_number else []
        return time.monotonic() - min(since) if since else 0.0

    def again(self, sent: Sent) -> None:
        """Send it once more, unless it counts meanwhile."""
        if sent.place is None and not sent.answered.done():
            self._put(sent)

    def _from_thread(self, call: Callable[..., None], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(call, *arguments)


def _key_of(append: Append) -> bytes:
    """What makes an applied plant count once in a partition, whoever brings it there: its apply id."""
    if append.bundle is None:
        return b""
    apply_id = entries.decode_entry(0, bytes(append.body)).control().data.get("apply_id", "")
    return f"apply {apply_id}".encode() if apply_id else b""
