"""Alarm events on Kafka: the topic of all events, and the compacted topic of what is open.

Each message carries, beside its CloudEvents headers, the output log's identity and the record's
number. A drainer that starts, or whose producer has failed, reads the last number of every
partition of both topics and goes on after it, so a crash leaves nothing out and nothing twice.

`delivery: idempotent`: only bytes of a dead predecessor that the network held back could still land
as a second copy, with the same `id` and an old `sequence`; consumers apply an event only if its
sequence is newer.
`delivery: transactional`: each `send` is one transaction over both topics under the plant's own
`transactional.id`; a new producer fences its predecessor before it reads any tail, so that late
bytes are refused. Strictly one committed copy.

A topic that was made anew gets everything that the output log still keeps.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
from confluent_kafka import KafkaError, KafkaException, Producer

from connectors.durable import replace_durably
from connectors.errors import AuthError, ConfigError, ConnectError, DeliveryError, PermanentDeliveryError
from connectors.kafka.client import KafkaTarget, client_config, made_client, told
from connectors.kafka.partitions import partition_of
from connectors.kafka.tails import LOG_HEADER, NUMBER_HEADER, SHARD_HEADER, read_tails
from connectors.kafka.topics import Topics
from connectors.sink import OutputRecord

log = logging.getLogger("penstock")

DELIVER_MS: Final = 10_000  # then the producer is given up, the ends are read, and it is tried again
TRANSACTION_MS: Final = 30_000  # then the brokers end the transaction of a drainer that hangs
FENCE_S: Final = 8.0
REFUSED: Final = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG, KafkaError.INVALID_RECORD})
FENCED: Final = frozenset({KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH})
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


class KafkaAlarms:
    """The target `kafka`; identity: of the output log that it is fed from. note: the file in which it
    keeps which topics it knows; without one a topic made anew is told by its being empty. cursor: the
    drainer's, whose age says how far back what it does not count may stand in the topics."""

    kinds: tuple[str, ...] = ("alarms",)

    def __init__(
        self, target: KafkaTarget, identity: str, note: Path | None = None, cursor: Path | None = None
    ) -> None:
        self.config = target.alarms
        if not self.config.bootstrap:
            raise ConfigError("sinks.alarms.bootstrap is empty")
        self.identity = identity
        self.transactional_id = f"{target.plant}/{target.shard or 0}"
        self._shard = [] if target.shard is None else [(SHARD_HEADER, str(target.shard).encode())]
        self._note = note
        self._cursor = cursor
        self._counted_ms = self._cursor_ms()  # as a predecessor left it: the drainer writes it at once
        self._client = client_config(self.config)
        self._producer: Any = None
        self._partitions: dict[str, int] = {}
        self._known: dict[str, str] = {}  # topic -> the brokers' identifier of it
        self._tails: dict[tuple[str, int], int] = {}
        self._failures: list[KafkaError] = []
        self._refused: dict[int, str] = {}  # by number of the record; those behind it may be there
        self._last_error: KafkaError | None = None

    def open(self) -> dict[str, int] | None:
        """See `Target`: {"alarms": 0} when a topic is new, else the drainer's cursor counts and
        records that a partition already has are passed over."""
        self.close()
        self._last_error = None
        self._failures = []
        settings = {**self._client, "error_cb": self._on_error}
        try:
            topics = Topics(settings, self.config).ready()
            self._partitions = {name: topic.partitions for name, topic in topics.items()}
            self._producer = self._made_producer(settings)  # fences the predecessor before tails are read
            since_ms = self._cursor_ms() if self._counted_ms is None else self._counted_ms
            self._tails, unwritten = read_tails(settings, self._partitions, self.identity, since_ms)
            self._counted_ms = None
        except ConnectError as error:
            raise self._told_more(error) from error
        before = self._noted()
        self._known = {name: topic.identifier for name, topic in topics.items()}
        anew = {name for name in before if self._known.get(name, "") not in ("", before[name])}
        for topic in sorted(anew - unwritten):
            log.info("the topic %s was made anew: it gets all that the output log keeps", topic)
        for topic in sorted(unwritten):
            log.info("the topic %s is empty: it gets all that the output log keeps", topic)
        return {"alarms": 0} if unwritten or anew else None

    def send(self, records: Sequence[OutputRecord]) -> None:
        """Publish; returns when the brokers have acknowledged every message, and committed them where
        delivery is transactional."""
        for record in records:
            if record.number in self._refused:
                raise PermanentDeliveryError(f"Kafka: {self._refused[record.number]}")
        if self._producer is None:
            raise DeliveryError("Kafka: the producer has failed")
        try:
            waiting = self._publish(records)
        except (KafkaException, SystemError) as error:  # how a fatal error may leave poll() and flush()
            why = self._why(error)
            self._give_up()
            raise why from error
        if self._failures or waiting:
            failures = list(self._failures)  # giving up adds those that it purges
            self._give_up()
            if failures and all(failure.code() in REFUSED for failure in failures):
                raise PermanentDeliveryError(f"Kafka refuses {len(failures)}: {failures[0].str()}")
            if failures:
                raise DeliveryError(str(told(failures[0])))
            raise DeliveryError(f"Kafka: {waiting} messages are not acknowledged")

    def settle(self) -> None:
        """See `RememberingTarget`: what `send` returned from is acknowledged by the brokers."""
        if self._note is not None and self._known and self._noted() != self._known:
            replace_durably(self._note, msgspec.json.encode(self._known))

    def close(self) -> None:
        """Give up what is under way; the next `open` reads what arrived."""
        producer, self._producer = self._producer, None
        if producer is not None:
            with suppress(KafkaException, SystemError):
                producer.purge()
                producer.flush(0.1)

    def _made_producer(self, settings: dict[str, Any]) -> Any:
        made = {
            **settings,
            "enable.idempotence": True,  # and with it acks=all
            "linger.ms": 0,
            "message.timeout.ms": DELIVER_MS,
            "socket.connection.setup.timeout.ms": DELIVER_MS,
        }
        if self.config.delivery == "transactional":
            made["transactional.id"] = self.transactional_id
            made["transaction.timeout.ms"] = TRANSACTION_MS
        producer = made_client(Producer, made)
        if self.config.delivery == "transactional":
            try:
                producer.init_transactions(FENCE_S)
            except (KafkaException, SystemError) as error:
                raise self._not_begun(error) from error
        return producer

    def _not_begun(self, error: BaseException) -> ConnectError:
        code = error.args[0].code() if isinstance(error, KafkaException) else None
        if code != KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
            return told(error)
        user = self.config.username
        return AuthError(
            f"the brokers do not permit {f'{user} ' if user else ''}transactions; permit them with"
            f" kafka-acls --add --allow-principal User:{user or 'NAME'} --transactional-id"
            f" {self.transactional_id} --operation Write --operation Describe, or write delivery: idempotent"
        )

    def _publish(self, records: Sequence[OutputRecord]) -> int:
        """Hand all to the producer and wait; returns how many are not acknowledged."""
        if self.config.delivery == "transactional":
            self._producer.begin_transaction()
            self._stage(records)
            self._producer.commit_transaction(DELIVER_MS / 1000 + 1.0)
            return 0
        self._stage(records)
        return int(self._producer.flush(DELIVER_MS / 1000 + 1.0))

    def _stage(self, records: Sequence[OutputRecord]) -> None:
        """Every event, and behind them the newest state of each key among them."""
        state: dict[bytes, tuple[_Event, OutputRecord]] = {}
        for record in records:
            event = _DECODER.decode(record.body)
            key = event.subject.encode()
            self._produce(self.config.events, key, bytes(event.data), event, record)
            state.pop(key, None)  # the last event of a key decides, at its own place in the order
            state[key] = (event, record)
        for key, (event, record) in state.items():
            closed = event.type.endswith(".closed")
            self._produce(self.config.state, key, None if closed else bytes(event.data), event, record)

    def _produce(
        self, topic: str, key: bytes, value: bytes | None, event: _Event, record: OutputRecord
    ) -> None:
        """One CloudEvent in binary mode (Kafka protocol binding 1.0.2); one without data is a tombstone."""
        partition = partition_of(key, self._partitions[topic])
        if record.number <= self._tails.get((topic, partition), 0):
            return
        headers = [(f"ce_{name}", getattr(event, name).encode()) for name in HEADERS]
        if value is not None:
            headers.append(("content-type", b"application/json"))
        headers.append((LOG_HEADER, self.identity.encode()))
        headers.append((NUMBER_HEADER, str(record.number).encode()))
        headers.extend(self._shard)
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

    def _why(self, error: BaseException) -> DeliveryError:
        """What made a producer fail, as an error of ours."""
        reported = [failure for failure in self._failures if failure.code() in REFUSED]
        cause = error.__cause__ if isinstance(error, SystemError) and error.__cause__ else error
        code = cause.args[0].code() if isinstance(cause, KafkaException) else None
        if code in REFUSED or (reported and len(reported) == len(self._failures)):
            words = reported[0].str() if reported else str(told(cause)).removeprefix("Kafka: ")
            return PermanentDeliveryError(f"Kafka refuses it: {words}")
        if code in FENCED:
            return DeliveryError(f"Kafka: another drainer has taken over as {self.transactional_id}")
        return DeliveryError(str(told(cause)))

    def _told_more(self, error: ConnectError) -> ConnectError:
        """The same, with what the brokers' connections said meanwhile."""
        if self._last_error is None or self._last_error.str() in str(error):
            return error
        more = told(self._last_error)
        if isinstance(more, AuthError):
            return more
        return type(error)(f"{error} ({self._last_error.str()})")

    def _give_up(self) -> None:
        """The producer is not used again: an open transaction is ended, and the next `open` reads what
        arrived."""
        if self._producer is not None and self.config.delivery == "transactional":
            with suppress(KafkaException, SystemError):
                self._producer.abort_transaction(1.0)
        self.close()

    def _cursor_ms(self) -> int | None:
        """When the drainer wrote its cursor last; None where it has none."""
        with suppress(OSError):
            return int(self._cursor.stat().st_mtime * 1000) if self._cursor is not None else None
        return None

    def _noted(self) -> dict[str, str]:
        if self._note is None:
            return {}
        with suppress(OSError, msgspec.MsgspecError):
            return msgspec.json.decode(self._note.read_bytes(), type=dict[str, str])
        return {}

    def _on_delivery(self, number: int, error: KafkaError | None, message: Any) -> None:
        if error is not None:
            self._failures.append(error)
            if error.code() in REFUSED:
                self._refused[number] = error.str()

    def _on_error(self, error: KafkaError) -> None:
        if self._last_error is None or isinstance(told(error), AuthError):
            self._last_error = error
