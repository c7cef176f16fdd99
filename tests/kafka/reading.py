"""Reading topics whole, and records to send, for the tests of this folder."""

from __future__ import annotations

import json
from typing import Any

from confluent_kafka import Consumer, IsolationLevel, KafkaError, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from connectors.kafka.client import KafkaTarget
from connectors.kafka.config import KafkaAlarmsConfig
from connectors.kafka.sink import KafkaAlarms
from connectors.sink import OutputRecord
from tests.output.made import event
from tests.waiting import LIMIT_S, until


def consumed(address: str, topic: str, isolation: str = "read_committed") -> list[Any]:
    """Every message of a topic, partition by partition."""
    wait_for_marks(address, topic)
    consumer = Consumer(
        {
            "bootstrap.servers": address,
            "group.id": "test",
            "enable.partition.eof": True,
            "isolation.level": isolation,
            "fetch.wait.max.ms": 20,
        }
    )
    partitions = list(consumer.list_topics(topic, timeout=LIMIT_S).topics[topic].partitions)
    consumer.assign([TopicPartition(topic, p, 0) for p in partitions])
    found, ended = [], 0
    while ended < len(partitions):
        message = consumer.poll(LIMIT_S)
        assert message is not None
        if message.error() is None:
            found.append(message)
        else:
            assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
            ended += 1
    consumer.close()
    return found


def wait_for_marks(address: str, topic: str) -> None:
    """Until all of a topic can be read: the marks of a transaction that was committed, or given up, are in
    its partitions a moment after its producer was told so."""
    admin = AdminClient({"bootstrap.servers": address})
    there = admin.list_topics(topic, LIMIT_S).topics[topic].partitions
    asked = {TopicPartition(topic, one): OffsetSpec.latest() for one in there}

    def ends(level: IsolationLevel) -> list[int]:
        found = admin.list_offsets(asked, isolation_level=level)
        return [future.result(LIMIT_S).offset for future in found.values()]

    until(
        lambda: ends(IsolationLevel.READ_UNCOMMITTED) == ends(IsolationLevel.READ_COMMITTED),
        f"the end of transactions in {topic}",
    )


def header(message: Any, name: str) -> str:
    """One header of a message, as text."""
    return str(dict(message.headers())[name].decode())


def positions(address: str, topic: str) -> list[int]:
    """The positions of all events of a topic, sorted."""
    found = consumed(address, topic)
    return sorted(json.loads(message.value())["evidence"]["position"] for message in found)


def config(address: str, name: str, delivery: Any = "idempotent", **more: Any) -> KafkaAlarmsConfig:
    """Topics NAME.events and NAME.state."""
    names: dict[str, Any] = {"events": f"{name}.events", "state": f"{name}.state"}
    return KafkaAlarmsConfig(bootstrap=address, delivery=delivery, **names, **more)


def target(chosen: KafkaAlarmsConfig, identity: str = "log-1", **more: Any) -> KafkaAlarms:
    """The sink over these topics; the plant is called as the topic."""
    return KafkaAlarms(KafkaTarget(plant=chosen.events, alarms=chosen), identity, **more)


def record(number: int, transition: str = "raised", device: str = "press-00") -> OutputRecord:
    """A record whose position is its number."""
    body = json.dumps(event(number, 0, transition, device).event, separators=(",", ":")).encode()
    return OutputRecord("alarms", number, number, number, body)
