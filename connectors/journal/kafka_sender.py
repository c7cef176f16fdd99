"""Puts messages into one partition, in order. One idempotent producer, `acks=all`; what it cannot put it
tries again without an end, and whatever ends the producer itself is told, once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer

from connectors.journal.kafka_config import PartitionConfig
from connectors.journal.kafka_messages import Headers
from connectors.journal.kafka_topic import CLIENT, MESSAGE_BYTES, WHERE
from connectors.kafka.client import client_config, made_client, told
from connectors.kafka.watch import quiet

REQUEST_MS: Final = 10_000
POLL_S: Final = 0.2


class Sender:
    """One producer; after `failed` was called it is of no more use.

    on_delivered: called with the number of each message that the brokers have; on_failed: with words;
    both on the sender's own thread. error: what its connections said last.
    """

    def __init__(
        self,
        config: PartitionConfig,
        on_delivered: Callable[[int], None],
        on_failed: Callable[[str], None],
        on_error: Callable[[KafkaError], None],
    ) -> None:
        journal = config.journal
        self._topic, self._partition = journal.topic, config.partition
        self._on_delivered, self._on_failed = on_delivered, on_failed
        self._producer: Any = made_client(
            Producer,
            {
                **quiet(client_config(journal, CLIENT)),
                "enable.idempotence": True,  # and with it acks=all
                "linger.ms": 0,
                "message.max.bytes": MESSAGE_BYTES + (1 << 20),
                "message.timeout.ms": 0,  # for ever: sources wait meanwhile
                "request.timeout.ms": REQUEST_MS,
                "queue.buffering.max.kbytes": 1 << 19,
                "compression.type": journal.compression,
                "error_cb": on_error,
            },
            WHERE,
        )
        self._closed = False
        self._failed = False
        self._thread = threading.Thread(target=self._poll, name="journal-producer", daemon=True)
        self._thread.start()

    def send(self, number: int, value: bytes, headers: Headers) -> None:
        """Queue a message; `on_delivered` is told its number, unless `on_failed` is called before."""
        try:
            self._producer.produce(
                self._topic,
                value,
                partition=self._partition,
                headers=headers,
                on_delivery=partial(self._delivered, number),
            )
        except (KafkaException, BufferError, SystemError) as error:
            self._fail(str(told(error)))

    def close(self, within: float = 0.0) -> None:
        """Give up what is under way after `within` seconds; it may arrive all the same."""
        with suppress(KafkaException, SystemError):
            if within:
                self._producer.flush(within)
            self._closed = True
            self._producer.purge()
        self._closed = True
        self._thread.join(2.0)
        with suppress(KafkaException, SystemError):
            self._producer.flush(0.1)  # a report that nobody takes would keep the client, and its threads

    def _poll(self) -> None:
        while not self._closed:
            try:
                self._producer.poll(POLL_S)
            except (KafkaException, SystemError) as error:  # how a fatal error may leave it
                self._fail(str(told(error)))
                return

    def _delivered(self, number: int, error: KafkaError | None, message: Any) -> None:
        if self._closed:
            return
        if error is None:
            self._on_delivered(number)
        else:
            self._fail(str(told(error)))

    def _fail(self, why: str) -> None:
        if not self._failed:
            self._failed = True
            self._on_failed(why)
