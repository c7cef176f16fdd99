"""Kafka: brokers between, so what they have acknowledged to the device is the source's to lose."""

from __future__ import annotations

import atexit
import functools
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from connectors.kafka.config import KafkaConfig
from connectors.source import SourceStatus
from operators.spec import SECOND
from tests.conformance.proxy import Proxy
from tests.conformance.subject import Subject
from tests.services.certificates import Certificates
from tests.services.kafka import PASSWORD, USER, KafkaBroker, why_not
from tests.waiting import LIMIT_S, until

QUIET_S = 1.2  # longer than a client's longest pause between two attempts


@functools.cache
def shared_broker() -> KafkaBroker:
    """One for all tests of a process: a start takes seconds."""
    lacking = why_not()
    if lacking:
        if os.environ.get("CI") == "true":
            pytest.fail(lacking)
        pytest.skip(lacking)
    folder = tempfile.TemporaryDirectory(prefix="kafka-", ignore_cleanup_errors=True)
    path = Path(folder.name)
    made = KafkaBroker(path, proxied=True, certificates=Certificates(path / "certificates"))
    atexit.register(folder.cleanup)
    atexit.register(made.kill)
    made.start()
    return made


def made_topic(broker: KafkaBroker, name: str, partitions: int = 1, **settings: str) -> None:
    """A topic that the broker knows when this returns."""
    admin = AdminClient({"bootstrap.servers": broker.address})
    admin.create_topics([NewTopic(name, partitions, 1, config=settings)])[name].result(LIMIT_S)

    def is_known() -> bool:
        there = admin.list_topics(timeout=LIMIT_S).topics
        return name in there and there[name].error is None

    until(is_known, f"the topic {name}")


def _wait_for_quiet(proxy: Proxy) -> None:
    """Brokers are always behind the same port, and clients of an earlier test may still look for them."""
    proxy.hanging_up = True
    began = time.monotonic()
    until(lambda: time.monotonic() - max([began, *proxy.attempts]) >= QUIET_S, "nobody to connect any more")
    proxy.attempts.clear()
    proxy.hanging_up = False


class KafkaSubject(Subject):
    """One partition, so that there is an order; with a login, unless a proxy stands between."""

    secret = PASSWORD
    direct = False
    connects = True
    exactly_once = True
    piece = 20

    def __init__(self, tmp: Path) -> None:
        self.waivers: dict[str, str] = {}
        self._broker = shared_broker()
        certificates = self._broker.certificates
        assert certificates is not None
        self._topic = f"line-{os.getpid()}-{time.monotonic_ns()}"
        made_topic(self._broker, self._topic)
        self._kafka = KafkaConfig(
            bootstrap=f"127.0.0.1:{self._broker.login_port}",
            topics=self._topic,
            device="const:press-01",
            silent_after=SECOND,
            security_protocol="SASL_SSL",
            username=USER,
            password=PASSWORD,
            ca_file=str(certificates.ca),
            cert_file=str(certificates.client),
            key_file=str(certificates.client_key),
        )
        self.config = self._kafka
        self._sent = self._told = 0
        self._closed = False
        self._producer = Producer(
            {
                "bootstrap.servers": self._broker.address,
                "enable.idempotence": True,
                "reconnect.backoff.max.ms": 500,
                "queue.buffering.max.kbytes": 65_536,
            }
        )

    def send(self, payloads: Sequence[bytes]) -> None:
        for payload in payloads:
            while True:
                try:
                    self._producer.produce(self._topic, payload, on_delivery=self._delivered)
                    break
                except BufferError:
                    self._producer.poll(0.05)
        self._sent += len(payloads)
        self._producer.poll(0)

    def told_safe(self) -> int:
        self._producer.poll(0)
        return self._told

    def settle(self) -> None:
        assert self._producer.flush(LIMIT_S) == 0

    def break_peer(self) -> None:
        self._broker.kill()
        self._broker.start()

    def interpose(self) -> Proxy:
        proxy = Proxy(self._broker.behind_port, self._broker.proxy_port)
        _wait_for_quiet(proxy)
        plain = KafkaConfig(bootstrap=f"127.0.0.1:{proxy.port}", topics=self._topic, device="const:press-01")
        self.config = msgspec.structs.replace(plain, silent_after=SECOND)
        return proxy

    def noticed(self, status: SourceStatus) -> bool:
        return status.reconnects > 0

    def close(self) -> None:
        self._closed = True
        self._producer.purge()
        self._producer.flush(1.0)  # a report that nobody takes would keep the client, and its threads

    def _delivered(self, error: Any, message: Any) -> None:
        assert error is None or self._closed, error
        self._told += 1
