"""Topics of the alarm events: made where they are not there, checked, and read at their ends."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # it names them without exporting
    AdminClient,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from connectors.errors import AuthError, ConfigError, ConnectError

log = logging.getLogger("penstock")

ANSWER_S: Final = 5.0
MADE_S: Final = 30.0
TAIL: Final = 5_000  # messages looked back in a partition that others write to as well
NO_LEADER: Final = frozenset(
    {
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
    }
)
LOG_HEADER: Final = "penstock-log"
NUMBER_HEADER: Final = "penstock-number"


def murmur2(data: bytes) -> int:
    """The hash of Kafka's Java clients (org.apache.kafka.common.utils.Utils.murmur2), as uint32."""
    length = len(data)
    h = 0x9747B28C ^ length
    whole = length & ~3
    for at in range(0, whole, 4):
        k = int.from_bytes(data[at : at + 4], "little") * 0x5BD1E995 & 0xFFFFFFFF
        k = (k ^ k >> 24) * 0x5BD1E995 & 0xFFFFFFFF
        h = (h * 0x5BD1E995 & 0xFFFFFFFF) ^ k
    if length & 3:
        h = (h ^ int.from_bytes(data[whole:], "little")) * 0x5BD1E995 & 0xFFFFFFFF
    h = (h ^ h >> 13) * 0x5BD1E995 & 0xFFFFFFFF
    return h ^ h >> 15


def partition_of(key: bytes, partitions: int) -> int:
    """Where Kafka's Java clients put a key; a partition chosen here is one that can be looked into."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def told(error: KafkaException | KafkaError) -> ConnectError:
    """A Kafka error as ours."""
    cause = error.args[0] if isinstance(error, KafkaException) and error.args else error
    text = cause.str() if isinstance(cause, KafkaError) else str(cause)
    code = cause.code() if isinstance(cause, KafkaError) else None
    if code in (KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED):
        return AuthError(f"Kafka refuses the login: {text}")
    return ConnectError(f"Kafka: {text}")


class Topics:
    """The topics of one target. policies: topic -> cleanup.policy that it must have."""

    def __init__(self, config: Mapping[str, Any], policies: Mapping[str, str], partitions: int) -> None:
        self._config = dict(config)
        self._policies = policies
        self._partitions = partitions

    def ready(self) -> dict[str, int]:
        """Topic -> number of partitions, once all are there and right. Raises `ConnectError`, or
        `ConfigError` for a topic that would lose alarms."""
        admin = AdminClient(self._config)
        try:
            there = admin.list_topics(timeout=ANSWER_S).topics
            missing = [topic for topic in self._policies if topic not in there]
            if missing:
                self._make(admin, missing)
                there = admin.list_topics(timeout=ANSWER_S).topics
            self._check(admin)
        except KafkaException as error:
            admin.poll(0)  # calls error_cb, which is told more than we are
            raise told(error) from error
        return {topic: len(there[topic].partitions) for topic in self._policies}

    def _make(self, admin: Any, missing: list[str]) -> None:
        wanted = [
            NewTopic(
                topic,
                num_partitions=self._partitions,
                replication_factor=-1,
                config={"cleanup.policy": self._policies[topic]},
            )
            for topic in missing
        ]
        for topic, future in admin.create_topics(wanted).items():
            try:
                future.result(timeout=MADE_S)
                log.info("made the topic %s with %d partitions", topic, self._partitions)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise
        until = time.monotonic() + MADE_S
        while time.monotonic() < until:  # the answer comes before the brokers know the topic
            there = admin.list_topics(timeout=ANSWER_S).topics
            if all(t in there and there[t].error is None and there[t].partitions for t in missing):
                return
            time.sleep(0.05)
        raise ConnectError(f"Kafka does not know {', '.join(missing)} after {MADE_S:.0f} s")

    def _check(self, admin: Any) -> None:
        resources = [ConfigResource(ResourceType.TOPIC, topic) for topic in self._policies]
        for resource, future in admin.describe_configs(resources).items():
            try:
                policy = set(future.result(timeout=ANSWER_S)["cleanup.policy"].value.split(","))
            except KafkaException as error:
                if error.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                    log.warning("may not read the settings of %s; they are not checked", resource.name)
                    continue
                raise
            wanted = self._policies[resource.name]
            if (wanted == "compact") != ("compact" in policy):
                raise ConfigError(
                    f"the topic {resource.name} has cleanup.policy={','.join(sorted(policy))}, it needs"
                    f" {wanted}; change it, or name another topic in sinks.alarms"
                )


def read_tails(
    config: Mapping[str, Any], partitions: Mapping[str, int], identity: str
) -> tuple[dict[tuple[str, int], int], set[str]]:
    """(topic, partition) -> number of the last record of this output log in it (0: none), and the
    topics that nobody has ever written to."""
    consumer = Consumer(
        {
            **config,
            "group.id": "penstock-tail",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
        }
    )
    tails: dict[tuple[str, int], int] = {}
    unwritten = set(partitions)
    try:
        reading = []
        for topic, count in partitions.items():
            for partition in range(count):
                tails[topic, partition] = 0
                low, high = _ends(consumer, TopicPartition(topic, partition))
                if high > 0:
                    unwritten.discard(topic)
                if high > low:
                    reading.append(TopicPartition(topic, partition, max(low, high - TAIL)))
        if reading:
            consumer.assign(reading)
            _read(consumer, len(reading), identity.encode(), tails)
    except KafkaException as error:
        raise told(error) from error
    finally:
        consumer.close()
    return tails, unwritten


def _ends(consumer: Any, partition: TopicPartition) -> tuple[int, int]:
    """First and next offset; waits for a partition that has no leader yet."""
    until = time.monotonic() + MADE_S
    while True:
        try:
            low, high = consumer.get_watermark_offsets(partition, timeout=ANSWER_S)
            return int(low), int(high)
        except KafkaException as error:
            if error.args[0].code() not in NO_LEADER or time.monotonic() > until:
                raise
        time.sleep(0.05)


def _read(consumer: Any, open_partitions: int, identity: bytes, tails: dict[tuple[str, int], int]) -> None:
    until = time.monotonic() + MADE_S
    while open_partitions:
        message = consumer.poll(0.2)
        if message is None:
            if time.monotonic() > until:
                raise ConnectError(f"Kafka does not give the ends of its topics within {MADE_S:.0f} s")
            continue
        if message.error() is not None:
            if message.error().code() != KafkaError._PARTITION_EOF:
                raise told(message.error())
            open_partitions -= 1
            continue
        headers = dict(message.headers() or ())
        if headers.get(LOG_HEADER) == identity:
            tails[message.topic(), message.partition()] = int(headers[NUMBER_HEADER])
