"""Reads one partition from where the copy of it ends.

Where to begin: behind the last message that is in the copy; without a copy, at the partition's beginning,
or, where that has been trimmed, at the first place that a tick tells how to go on from. The same
where the partition was trimmed beyond the copy's end; what is missing in between is then told.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, Final

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from connectors.errors import ConnectError, JournalError
from connectors.journal.entries import ENTRY_ROWS
from connectors.journal.kafka_config import PartitionConfig
from connectors.journal.kafka_messages import By, Reached, by_of, is_stopped, reached_of
from connectors.journal.kafka_topic import (
    CLIENT,
    MESSAGE_BYTES,
    WHERE,
    Topic,
    look_topic,
    ready_topic,
)
from connectors.journal.store import JournalStore, Jump
from connectors.kafka.client import client_config, made_client, told
from connectors.kafka.topics import ANSWER_S
from connectors.kafka.watch import quiet

log = logging.getLogger("journal")

GROUP_BYTES: Final = 32 << 20  # of one commit of the copy
GROUP_MESSAGES: Final = 4096
POLL_S: Final = 0.2
SCAN_S: Final = 60.0  # looking for a tick from which a copy can begin
RECOVERS_S: Final = 60.0  # brokers that come back may not have found all that they have
TAIL: Final = 200  # messages before the end that are looked at for who runs the shard
PASSING: Final = frozenset(  # the client tries again by itself
    {
        KafkaError._PARTITION_EOF,
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TIMED_OUT,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.REPLICA_NOT_AVAILABLE,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.KAFKA_STORAGE_ERROR,
    }
)


class Mark(msgspec.Struct, array_like=True, frozen=True):
    """What the copy is a copy of; offset: of the next message that is not in it. identifier: of the
    topic, "" where it may not be asked for."""

    topic: str
    partition: int
    identifier: str
    offset: int


class Trimmed(Exception):
    """The next message has been trimmed away."""


class Follower:
    """One consumer of one partition. Blocking; of one thread at a time."""

    def __init__(
        self, config: PartitionConfig, store: JournalStore, on_error: Callable[[KafkaError], None]
    ) -> None:
        self.config = config
        self.store = store
        self._on_error = on_error
        self._consumer: Any = None
        self._here = TopicPartition(config.journal.topic, config.partition)
        self.identifier = ""
        self.next_offset = 0
        self._short_since = 0.0  # the partition ends before the copy does
        self.caught_up_at = 0  # the partition's end when reading began

    def open(self) -> Jump | None:
        """Find the place to begin at; the jump that the copy has to make to be there. Raises `ConnectError`
        while the brokers are away, `ConfigError` for a topic that is not right, and `JournalError`
        where the copy is of another partition than this."""
        topic = ready_topic(self.config)
        self.identifier = topic.identifier
        mark = self._mark(topic)
        self.close()
        self._consumer = self._made(self._on_error)
        try:
            low, high = self._consumer.get_watermark_offsets(self._here, timeout=ANSWER_S)
            self.caught_up_at = high
            jump = self._begin(mark.offset if mark is not None else None, low, high)
        except (KafkaException, SystemError) as error:
            raise told(error) from error
        self._consumer.assign([TopicPartition(self._here.topic, self._here.partition, self.next_offset)])
        return jump

    def poll(self) -> list[Any]:
        """The next messages, at most GROUP_BYTES of them; [] after a moment without one. Raises
        `Trimmed`, after which `open` finds the place to go on at, and `JournalError`."""
        first = self._consumer.poll(POLL_S)
        if first is None:
            return []
        found = [
            message for message in (first, *self._consumer.consume(GROUP_MESSAGES, 0)) if self._is(message)
        ]
        size = sum(len(message.value() or b"") for message in found)
        while size < GROUP_BYTES and (more := self._consumer.consume(GROUP_MESSAGES, 0)):
            more = [message for message in more if self._is(message)]
            size += sum(len(message.value() or b"") for message in more)
            found += more
        if found:
            self.next_offset = found[-1].offset() + 1
        return found

    def look(self) -> str:
        """Why nothing may come, in words; "" where the topic is as it was. Raises JournalError for a topic
        that was made anew."""
        try:
            topic = look_topic(self.config.journal)
        except ConnectError as error:
            return str(error)
        if topic is None:
            return f"the topic {self.config.journal.topic} is not there any more"
        self._mark(topic)
        return ""

    def other_alive(self, me: By, within: float) -> tuple[By | None, int]:
        """Another than `me` that sends ticks now, None where none does `within` seconds; and how far this was
        looked at. Where the last that is told of others is `stopped`, nobody is waited for. Raises
        `ConnectError`."""
        consumer = self._made(lambda error: None, **{"enable.partition.eof": True})
        until = time.monotonic() + 2 * ANSWER_S + within
        is_at_end = is_gone = False
        try:
            low, high = consumer.get_watermark_offsets(self._here, timeout=ANSWER_S)
            begin = max(low, high - TAIL)
            consumer.assign([TopicPartition(self._here.topic, self._here.partition, begin)])
            while time.monotonic() < until:
                message = consumer.poll(POLL_S)
                if message is None:
                    continue
                error = message.error()
                if error is not None:
                    if error.code() == KafkaError._PARTITION_EOF and not is_at_end:
                        if is_gone:
                            return None, int(high)
                        is_at_end, until = True, time.monotonic() + within
                    continue
                by = by_of(message.headers())
                if by is None or not me.is_another(by):
                    continue
                is_gone = is_stopped(message.value())
                if message.offset() >= high and not is_gone:
                    return by, int(high)
        except (KafkaException, SystemError) as error:
            raise told(error) from error
        finally:
            consumer.close()
        if not is_at_end:
            raise ConnectError("Kafka: the end of the partition is not read")
        return None, int(high)

    def mark(self, offset: int) -> bytes:
        """That everything before `offset` is in the copy."""
        config = self.config
        return msgspec.msgpack.encode(Mark(config.journal.topic, config.partition, self.identifier, offset))

    def lag(self) -> int:
        """Messages behind the partition's end, as the last answer of the brokers told it."""
        if self._consumer is None:
            return 0
        try:
            _, high = self._consumer.get_watermark_offsets(self._here, cached=True)
        except (KafkaException, RuntimeError):
            return 0
        return max(int(high) - self.next_offset, 0)

    def close(self) -> None:
        """Let go of the consumer."""
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None

    def _is(self, message: Any) -> bool:
        error = message.error()
        if error is None:
            return True
        if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            raise Trimmed
        if error.fatal():
            raise JournalError(f"Kafka: {error.str()}")
        if error.code() not in PASSING:
            self._on_error(error)
        return False

    def _made(self, on_error: Callable[[KafkaError], None], **more: Any) -> Any:
        settings = {
            **quiet(client_config(self.config.journal, CLIENT)),
            "group.id": CLIENT,  # nothing is committed to it: the copy keeps the offset
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "isolation.level": "read_uncommitted",  # a stranger's open transaction must hold nobody up
            "fetch.wait.max.ms": 100,
            "fetch.max.bytes": MESSAGE_BYTES + (1 << 20),
            "message.max.bytes": MESSAGE_BYTES + (1 << 20),
            "max.partition.fetch.bytes": 8 << 20,
            "queued.max.messages.kbytes": 1 << 16,
            "error_cb": on_error,
            **more,
        }
        return made_client(Consumer, settings, WHERE)

    def _mark(self, topic: Topic) -> Mark | None:
        packed = self.store.partition_mark
        if packed is None:
            if self.store.next_entry > 1:
                raise JournalError(
                    "the data directory holds a local journal; journal.kind of a plant with data cannot"
                    " change: run it over a new data directory (--data DIR)"
                )
            return None
        mark = msgspec.msgpack.decode(packed, type=Mark)
        here = (self.config.journal.topic, self.config.partition)
        if (mark.topic, mark.partition) != here:
            raise JournalError(
                f"the data directory holds a copy of {mark.topic}/{mark.partition}, not of"
                f" {here[0]}/{here[1]}; run the plant over a new data directory (--data DIR)"
            )
        if mark.identifier and topic.identifier and mark.identifier != topic.identifier:
            raise JournalError(
                f"the topic {mark.topic} was made anew since the copy in the data directory was written; name"
                " another topic in journal.topic, or run the plant over a new data directory (--data DIR)"
            )
        return mark

    def _begin(self, offset: int | None, low: int, high: int) -> Jump | None:
        if offset is not None and offset > high:
            ends = f"{self._here.topic}/{self._here.partition} ends at offset {high}, and it was read up to"
            self._short_since = self._short_since or time.monotonic()
            if time.monotonic() - self._short_since < RECOVERS_S:
                raise ConnectError(f"Kafka: {ends} {offset} before; it may be that the brokers still recover")
            raise JournalError(
                f"{ends} {offset} before: brokers lost what they had acknowledged (unclean leader election, a"
                " restored backup); run the plant over a new data directory (--data DIR)"
            )
        self._short_since = 0.0
        if low <= (offset or 0):
            self.next_offset = offset or 0
            return None
        reached = self._anchor(low, high)
        self.next_offset = reached.offset
        before = offset or 0
        gap = {
            "source": "journal",
            "what": f"messages of {self._here.topic}/{self._here.partition}",
            "from": before,
            "to": reached.offset,
            "missing": reached.offset - before,
            "position": max(reached.position, self.store.next_position),
        }
        log.warning(
            "%d messages of %s/%d from offset %d on were trimmed before they were read",
            *(gap["missing"], self._here.topic, self._here.partition, before),
        )
        place = (reached.entry, reached.position, reached.ms, reached.tick_ms, reached.sessions)
        return Jump(*place, told=gap if offset is not None else None)

    def _anchor(self, low: int, high: int) -> Reached:
        """The first place at or behind `low` of which a tick tells how to go on from it."""
        consumer = self._made(lambda error: None, **{"enable.partition.eof": True})
        until = time.monotonic() + SCAN_S
        try:
            consumer.assign([TopicPartition(self._here.topic, self._here.partition, low)])
            while time.monotonic() < until:
                message = consumer.poll(POLL_S)
                if message is None:
                    continue
                error = message.error()
                if error is not None and error.code() == KafkaError._PARTITION_EOF:
                    break
                if error is not None:
                    if error.code() in PASSING:
                        continue
                    raise told(error)
                reached = reached_of(message.headers())
                if reached is not None and reached.offset >= low:
                    return reached
        finally:
            consumer.close()
        # no message holds more frames: no position is given out twice
        log.warning("no tick tells how to go on at offset %d; positions begin beyond every earlier one", low)
        return Reached(low, 1, low * ENTRY_ROWS, 0, 0, {})
