"""Alarm events on Kafka: the topic of all events, and the compacted topic of what is open.

Each message carries, beside its CloudEvents headers, the output log's identity and the record's
number. A drainer that starts, or whose producer has failed, reads the last number of every
partition of both topics and goes on after it, so a crash leaves nothing out and nothing twice.
`delivery: idempotent`: only bytes of a dead predecessor that the network held back could still land
as a second copy, with the same `id` and an old `sequence`; consumers apply an event only if its
sequence is newer.

The partition of a key is the one that Kafka's Java clients choose. A topic that was made anew gets
everything that the output log still keeps.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, Final

import msgspec
from confluent_kafka import KafkaError, KafkaException, Producer

from connectors.errors import ConfigError, ConnectError, DeliveryError, PermanentDeliveryError
from connectors.kafka.config import KafkaAlarmsConfig
from connectors.kafka.topics import (
    LOG_HEADER,
    NUMBER_HEADER,
    Topics,
    partition_of,
    read_tails,
    told,
)
from connectors.sink import OutputRecord

log = logging.getLogger("penstock")

DELIVER_MS: Final = 5_000  # then the producer is given up, the ends are read, and it is tried again
REFUSED: Final = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG, KafkaError.INVALID_RECORD})
HEADERS: Final = ("specversion", "id", "type", "source", "subject", "time", "sequence", "partitionkey")


class _Event(msgspec.Struct):
    """A line of alarms.jsonl; the data stay the bytes that they are."""

    specversion: str
    id: str
    type: str
    source: str
    subject: str
    time: str
    sequence: str
    partitionkey: str
    data: msgspec.Raw


_DECODER = msgspec.json.Decoder(_Event)


class _Target(msgspec.Struct, kw_only=True):
    """What the supervisor writes for this target."""

    alarms: KafkaAlarmsConfig


def kafka_config(config: Mapping[str, Any]) -> KafkaAlarmsConfig:
    """The typed form of `run/target-kafka.json`. Raises `ConfigError`."""
    try:
        return msgspec.convert(config, _Target).alarms
    except msgspec.ValidationError as error:
        raise ConfigError(f"sinks.alarms: {error}") from error


def client_config(config: KafkaAlarmsConfig) -> dict[str, Any]:
    """What every client of this target is given."""
    made: dict[str, Any] = {
        "bootstrap.servers": config.bootstrap,
        "client.id": "penstock-alarms",
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 1000,
        "socket.keepalive.enable": True,
        "logger": logging.getLogger("penstock.kafka"),
    }
    if config.tls or config.ca_file:
        made["ssl.ca.location"] = config.ca_file or "probe"
    if config.username is not None:
        made["sasl.mechanism"] = config.mechanism
        made["sasl.username"] = config.username
        made["sasl.password"] = config.password or ""
    sasl, tls = config.username is not None, config.tls or config.ca_file
    made["security.protocol"] = ("SASL_" if sasl else "") + ("SSL" if tls else "PLAINTEXT")
    return made


@lru_cache(maxsize=100_000)
def _partition(key: bytes, partitions: int) -> int:
    return partition_of(key, partitions)


class KafkaAlarms:
    """The target `kafka`; identity: of the output log that it is fed from."""

    kinds: tuple[str, ...] = ("alarms",)

    def __init__(self, config: KafkaAlarmsConfig, identity: str) -> None:
        if not config.bootstrap:
            raise ConfigError("sinks.alarms.bootstrap is empty")
        self.config = config
        self.identity = identity
        self._client = client_config(config)
        self._producer: Any = None
        self._partitions: dict[str, int] = {}
        self._tails: dict[tuple[str, int], int] = {}
        self._failures: list[KafkaError] = []
        self._refused: dict[int, str] = {}  # by number of the record; those behind it may be there
        self._last_error = ""

    def open(self) -> dict[str, int] | None:
        """See `Target`: {"alarms": 0} when a topic is new, else the drainer's cursor counts and
        records that a partition already has are passed over."""
        self.close()
        self._last_error = ""
        settings = {**self._client, "error_cb": self._on_error}
        topics = Topics(
            settings,
            {self.config.events: "delete", self.config.state: "compact"},
            self.config.partitions,
        )
        try:
            self._partitions = topics.ready()
            self._tails, unwritten = read_tails(settings, self._partitions, self.identity)
        except ConnectError as error:
            if self._last_error and self._last_error not in str(error):
                raise type(error)(f"{error} ({self._last_error})") from error
            raise
        self._failures = []
        self._producer = Producer(
            {
                **settings,
                "enable.idempotence": True,
                "linger.ms": 0,
                "message.timeout.ms": DELIVER_MS,
                "socket.connection.setup.timeout.ms": DELIVER_MS,
            }
        )
        for topic in sorted(unwritten):
            log.info("the topic %s is empty: it gets all that the output log keeps", topic)
        return {"alarms": 0} if unwritten else None

    def send(self, records: Sequence[OutputRecord]) -> None:
        """Publish; returns when the brokers have acknowledged every message."""
        state: dict[bytes, tuple[_Event, OutputRecord]] = {}
        try:
            for record in records:
                if record.number in self._refused:
                    raise PermanentDeliveryError(f"Kafka: {self._refused[record.number]}")
                event = _DECODER.decode(record.body)
                key = event.subject.encode()
                self._publish(self.config.events, key, bytes(event.data), event, record)
                state.pop(key, None)  # the last event of a key decides, at its own place in the order
                state[key] = (event, record)
            for key, (event, record) in state.items():
                closed = event.type.endswith(".closed")
                self._publish(self.config.state, key, None if closed else bytes(event.data), event, record)
            waiting = self._producer.flush(2 * DELIVER_MS / 1000)
        except KafkaException as error:
            kind = PermanentDeliveryError if error.args[0].code() in REFUSED else DeliveryError
            raise kind(str(told(error))) from error
        except SystemError as error:  # how a fatal error may leave poll() and flush()
            raise DeliveryError(f"Kafka: {error.__cause__ or error}") from error
        if self._failures:
            failure = self._failures[0]
            if all(f.code() in REFUSED for f in self._failures):
                raise PermanentDeliveryError(f"Kafka refuses {len(self._failures)}: {failure.str()}")
            raise DeliveryError(f"Kafka: {failure.str()}")
        if waiting:
            raise DeliveryError(f"Kafka: {waiting} messages are not acknowledged")

    def settle(self) -> None:
        """See `RememberingTarget`: what `send` returned from is acknowledged by the brokers."""

    def close(self) -> None:
        """Give up what is under way; the next `open` reads what arrived."""
        if self._producer is not None:
            self._producer.purge()
            self._producer.flush(0.1)
            self._producer = None

    def _publish(
        self, topic: str, key: bytes, value: bytes | None, event: _Event, record: OutputRecord
    ) -> None:
        partition = _partition(key, self._partitions[topic])
        if record.number <= self._tails.get((topic, partition), 0):
            return
        headers = [(f"ce_{name}", getattr(event, name).encode()) for name in HEADERS]
        headers.append(("content-type", b"application/json"))
        headers.append((LOG_HEADER, self.identity.encode()))
        headers.append((NUMBER_HEADER, str(record.number).encode()))
        while True:
            try:
                self._producer.produce(
                    topic,
                    value,
                    key,
                    partition=partition,
                    headers=headers,
                    on_delivery=partial(self._on_delivery, record.number),
                )
                return
            except BufferError:  # full: back-pressure
                self._producer.poll(0.01)

    def _on_delivery(self, number: int, error: KafkaError | None, message: Any) -> None:
        if error is not None:
            self._failures.append(error)
            if error.code() in REFUSED:
                self._refused[number] = error.str()

    def _on_error(self, error: KafkaError) -> None:
        self._last_error = error.str()
