"""The thread that reads a Kafka source's partitions, notes what it is about to append, and hands it on."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from connectors.errors import ConnectError, PenstockError
from connectors.kafka.assignment import Assignment, Gap
from connectors.kafka.client import made_client, told
from connectors.kafka.config import KafkaConfig
from connectors.kafka.progress import Part, Planned, Progress
from connectors.kafka.rows import Addressing, rows_of
from connectors.kafka.watch import Look, Watch
from connectors.source import FrameRows

AT_ONCE: Final = 8192  # messages
WAIT_S: Final = 0.2  # for the first of them
BUSY: Final = 50  # so many at once tell of a busy source, whose batches are given 2 ms to grow
BUSY_PAUSE_S: Final = 0.002
WAITING_BYTES: Final = 32 << 20  # handed on and not yet durable; then nothing is read
FETCHED_KB: Final = 16 << 10  # read ahead by the client
_OUT_OF_RANGE: Final = frozenset({KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE})
_GONE: Final = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC})

log = logging.getLogger(__name__)


class Chunk(NamedTuple):
    """What is appended under one key; rows None: nothing, but what was planned is over."""

    number: int
    key: str
    rows: FrameRows | None
    ends: bool = True  # of what was planned under this number


Handed = Chunk | Gap


class Fetching(threading.Thread):
    """Reads until `end` is called, then waits for `finish` and lets go of the consumer.

    hand: takes chunks and gaps in order, from this thread. failed: told what ended the thread. Where
    reading begins, and what is there, it is told by `look`.
    """

    def __init__(
        self,
        config: KafkaConfig,
        settings: Mapping[str, Any],
        progress: Progress,
        watch: Watch,
        *,
        where: str,
        hand: Callable[[Sequence[Handed]], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        super().__init__(name="kafka-fetching", daemon=True)
        self._config, self._progress, self._watch = config, progress, watch
        self._hand, self._failed = hand, failed
        self._addressing = Addressing(config)
        self._settings = {
            **settings,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
            "isolation.level": f"read_{config.isolation}",
            "queued.max.messages.kbytes": FETCHED_KB,
            "fetch.max.bytes": FETCHED_KB << 10,
            "fetch.error.backoff.ms": 100,
            "socket.timeout.ms": 5000,
            "check.crcs": True,
            "error_cb": self._on_error,
        }
        self._where = where
        self._ending, self._finished = threading.Event(), threading.Event()
        self._assignment = Assignment(
            config, progress, watch, give=self._give, say=self._say, ending=self._ending
        )
        self._room = threading.Event()
        self._lock = threading.Lock()
        self._waiting = 0
        self._again = deque(progress.planned)
        self._committed: dict[Part, int] = {}
        self._said: set[str] = set()
        self.paused = False
        self.down = threading.Event()  # no broker is reached by the consumer

    @property
    def cut(self) -> int:
        """Headers and keys that were left out, or cut."""
        return self._addressing.cut

    @property
    def trouble(self) -> Mapping[Part, str]:
        """What the brokers say of partitions that cannot be read."""
        return self._assignment.trouble

    def take(self, look: Look | None) -> None:
        """What is there now; None: no broker answers, so nothing is tried before the next look. Of any
        thread."""
        self._assignment.look = look

    def settled(self, bytes_: int) -> None:
        """So many bytes of what was handed on are durable; of any thread."""
        with self._lock:
            self._waiting -= bytes_
        self._room.set()

    def end(self) -> None:
        """Read nothing more."""
        self._ending.set()
        self._room.set()

    def finish(self) -> None:
        """What can become durable is."""
        self._finished.set()

    def lag(self, look: Look) -> dict[Part, int]:
        """Messages (or offsets without one) that wait at the brokers, by partition."""
        durable, position, eof = self._progress.durables, self._assignment.position, self._assignment.eof
        found = {}
        for part, end in look.ends.items():
            at = durable.get(part)
            if at is None:
                continue
            if at >= position.get(part, at):  # behind the last message may be marks of transactions
                at = max(at, eof.get(part, at))
            found[part] = max(0, end - at)
        return found

    def run(self) -> None:
        try:
            self._read_for_ever()
        except BaseException as error:
            if not isinstance(error, PenstockError):
                log.exception("reading ended")
            self._failed(error)
        finally:
            self._finished.wait(10.0)
            self._assignment.let_go()
            self.tell_group()
            self._watch.close()

    def _read_for_ever(self) -> None:
        busy = False
        while not self._ending.is_set():
            look = self._assignment.look
            if look is None:
                self._assignment.let_go()
                self._ending.wait(0.05)
                continue
            if self._assignment.consumer is None:
                self._assignment.consumer = made_client(Consumer, self._settings, self._where)
            if look is not self._assignment.followed:
                self._assignment.drop_those_made_anew(look)
                while self._again and self._make_again(self._again[0], look):
                    self._again.popleft()
                if self._again:
                    continue
                self._assignment.followed = look if self._assignment.follow(look) else None
            if not self._has_room():
                continue
            if busy:
                time.sleep(BUSY_PAUSE_S)
            messages = self._consume()
            if messages:
                self._plan(messages)
            busy = len(messages) >= BUSY

    # -- messages

    def _consume(self) -> list[Message]:
        """What is there; events of partitions are looked at and left out."""
        messages: list[Message] = self._assignment.consumer.consume(1, WAIT_S)
        if not messages:
            return messages
        messages += self._assignment.consumer.consume(AT_ONCE - 1, 0)
        if any(map(Message.error, messages)):
            good = [one for one in messages if one.error() is None]
            for one in messages:
                if one.error() is not None:
                    self._event(one, good)
            messages = good
        return messages

    def _event(self, message: Message, before: list[Message]) -> None:
        error = message.error()
        topic, number = message.topic(), message.partition()
        assert error is not None
        if topic is None or number is None or Part(topic, number) not in self._assignment.position:
            self._say(str(told(error)))
            return
        part = Part(topic, number)
        if error.code() == KafkaError._PARTITION_EOF:
            self._assignment.eof[part] = message.offset() or 0
            self._assignment.trouble.pop(part, None)
        elif error.code() in _OUT_OF_RANGE:
            if before:  # what came before the event is handed on before reading goes on elsewhere
                self._plan(before)
                before.clear()
            self._assignment.beyond(part)
        else:
            self._assignment.trouble[part] = str(told(error)).removeprefix("Kafka: ")
            if error.code() not in _GONE:
                self._say(f"{topic}, partition {number}: {self._assignment.trouble[part]}")

    def _plan(self, messages: Sequence[Message]) -> None:
        found = rows_of(
            messages,
            lambda topic, partition: self._assignment.position[Part(topic, partition)],
            self._addressing,
        )
        for _, ranges in found:
            self._assignment.position |= {Part(one.topic, one.partition): one.next for one in ranges}
        if self._assignment.trouble:
            for one in found[-1][1]:
                self._assignment.trouble.pop(Part(one.topic, one.partition), None)
        numbers = self._progress.plan([ranges for _, ranges in found])
        self._give(
            [
                Chunk(number, self._progress.key(number), rows)
                for number, (rows, _) in zip(numbers, found, strict=True)
            ]
        )

    def _give(self, handed: Sequence[Handed]) -> None:
        size = sum(len(one.rows.payload) for one in handed if isinstance(one, Chunk) and one.rows is not None)
        with self._lock:
            self._waiting += size
        self._hand(handed)

    def _has_room(self) -> bool:
        with self._lock:
            room = self._waiting < WAITING_BYTES
        if room and self.paused:
            log.info("the journal has caught up: reading goes on")
        elif not room and not self.paused:
            log.warning("the journal is behind: reading pauses")
        self.paused = not room
        if not room:
            self._room.clear()
            self._room.wait(0.1)
        return room

    def _make_again(self, line: Planned, look: Look) -> bool:
        """What was planned when the last process ended: the same messages under the same key. False: it
        was not to be had."""
        wanted = {Part(r.topic, r.partition): r for r in line.ranges if r.first < r.next}
        open_ = {part for part in wanted if part.partition in look.partitions.get(part.topic, ())}
        taken: list[Message] = []
        starts = [TopicPartition(part.topic, part.partition, wanted[part].first) for part in sorted(open_)]
        if starts:
            self._assignment.consumer.incremental_assign(starts)
        while open_ and not self._ending.is_set() and self._assignment.look is not None:
            for one in self._assignment.consumer.consume(AT_ONCE, 0.05):
                part = Part(one.topic(), one.partition())
                if part not in wanted:
                    continue
                error, offset = one.error(), one.offset()
                if error is None and offset < wanted[part].next:
                    taken.append(one)
                    offset += 1
                elif error is not None and error.code() in _OUT_OF_RANGE | _GONE:
                    offset = wanted[part].next  # they are there no more
                elif error is not None and error.code() != KafkaError._PARTITION_EOF:
                    self._say(str(told(error)))
                    continue
                if offset >= wanted[part].next:
                    open_.discard(part)
        if starts:
            self._assignment.consumer.incremental_unassign(starts)
        if open_:
            return False
        key = self._progress.key(line.number)
        found = rows_of(taken, lambda topic, partition: 0, self._addressing) if taken else []
        # as cut the first time; in more pieces only where the configuration lets addresses grow
        chunks = [
            Chunk(line.number, f"{key}.{at}" if at else key, rows, at == len(found) - 1)
            for at, (rows, _) in enumerate(found)
        ]
        self._give(chunks or [Chunk(line.number, key, None)])
        return True

    # -- what is told

    def tell_group(self) -> None:
        """Tell the brokers how far the journal is, for those who look at the group's lag; of any thread."""
        look = self._assignment.look
        if look is None:
            return
        durable = self._progress.durables
        there = {part: at for part, at in durable.items() if part in look.ends}
        changed = {part: at for part, at in there.items() if self._committed.get(part) != at}
        if not changed:
            return
        try:
            self._watch.tell_group(self._settings["group.id"], changed)
        except ConnectError as error:
            self._say(f"the group's offsets are not kept by the brokers: {error}")
        self._committed |= changed

    def _on_error(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self.down.set()

    def _say(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            log.warning("%s", text)
            if len(self._said) > 100:
                self._said.clear()
