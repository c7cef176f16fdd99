"""How far each partition of the topics is: the number of the last record that stands in it.

Tails are read committed, so what a transaction left behind does not count, whichever way of
delivery comes after it; and up to where the partition ended when reading began, so another
producer's open transaction is waited for instead of hiding what stands behind it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from connectors.errors import ConnectError
from connectors.kafka.client import made_client, told
from connectors.kafka.topics import ANSWER_S

LOG_HEADER: Final = "penstock-log"
NUMBER_HEADER: Final = "penstock-number"
SHARD_HEADER: Final = "penstock-shard"  # of a plant that has several
TAIL: Final = 5_000  # messages looked back in a partition that others write to as well
CLOCKS_MS: Final = 60_000  # that a broker's clock, or ours after it was set, may be behind
LEADER_S: Final = 30.0
READ_S: Final = 75.0  # a stranger's transaction may be open for a minute, by Kafka's default
NO_LEADER: Final = frozenset(
    {
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
    }
)


class Tails(NamedTuple):
    """numbers: (topic, partition) -> number of the last record of this output log in it (0: none).
    unwritten: the topics that nobody has ever written to."""

    numbers: dict[tuple[str, int], int]
    unwritten: set[str]


def read_tails(
    client: Mapping[str, Any], partitions: Mapping[str, int], identity: str, since_ms: int | None = None
) -> Tails:
    """The tails of topics of so many partitions. since_ms: the wall clock when it was noted last what had
    been sent; others, such as the drainers of other shards, may have put more than TAIL behind what was
    sent since. Raises `ConnectError`."""
    settings = {
        **client,
        "group.id": "penstock-tail",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "error",
        "fetch.wait.max.ms": 20,  # the end of a partition is told by an answer without messages
    }
    everything = made_client(Consumer, {**settings, "isolation.level": "read_uncommitted"})
    committed = made_client(Consumer, {**settings, "isolation.level": "read_committed"})
    tails = Tails({}, set(partitions))
    ends: dict[tuple[str, int], int] = {}
    try:
        reading = []
        for topic, count in partitions.items():
            for partition in range(count):
                tails.numbers[topic, partition] = 0
                low, high = _ends(everything, TopicPartition(topic, partition))
                if high > 0:
                    tails.unwritten.discard(topic)
                if high > low:
                    ends[topic, partition] = high
                    start = min(high - TAIL, _offset_at(everything, topic, partition, since_ms, high))
                    reading.append(TopicPartition(topic, partition, max(low, start)))
        if reading:
            committed.assign(reading)
            _read(committed, ends, identity.encode(), tails.numbers)
    except (KafkaException, SystemError) as error:
        raise told(error) from error
    finally:
        everything.close()
        committed.close()
    return tails


def _ends(consumer: Any, partition: TopicPartition) -> tuple[int, int]:
    """First and next offset; waits for a partition that has no leader yet."""
    until = time.monotonic() + LEADER_S
    while True:
        try:
            low, high = consumer.get_watermark_offsets(partition, timeout=ANSWER_S)
            return int(low), int(high)
        except KafkaException as error:
            if error.args[0].code() not in NO_LEADER or time.monotonic() > until:
                raise
        time.sleep(0.05)


def _offset_at(consumer: Any, topic: str, partition: int, since_ms: int | None, high: int) -> int:
    """The first offset of a message that came since then, less what clocks may differ by."""
    if since_ms is None:
        return high
    asked = TopicPartition(topic, partition, max(0, since_ms - CLOCKS_MS))
    (found,) = consumer.offsets_for_times([asked], timeout=ANSWER_S)
    return int(found.offset) if found.offset >= 0 else high  # none: nothing came since then


def _read(
    consumer: Any,
    ends: dict[tuple[str, int], int],
    identity: bytes,
    numbers: dict[tuple[str, int], int],
) -> None:
    """Read on until each partition has been read up to its end."""
    until = time.monotonic() + READ_S
    while ends:
        message = consumer.poll(0.2)
        if time.monotonic() > until:
            topic, partition = next(iter(ends))
            raise ConnectError(
                f"Kafka does not give the end of {topic}, partition {partition}, within {READ_S:.0f} s:"
                " it is slow, or another producer holds a transaction open"
            )
        if message is None:
            continue
        error = message.error()
        if error is not None and error.code() != KafkaError._PARTITION_EOF:
            raise told(error)
        where = message.topic(), message.partition()
        reached = message.offset() + (error is None)  # the end of a partition says the next offset
        if error is None:
            headers = dict(message.headers() or ())
            if headers.get(LOG_HEADER) == identity:  # late bytes of a dead drainer have old numbers
                numbers[where] = max(numbers[where], int(headers[NUMBER_HEADER]))
        if reached >= ends.get(where, reached + 1):
            del ends[where]
