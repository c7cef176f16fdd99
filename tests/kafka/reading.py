"""Reading topics whole, and records to send, for the tests of this folder."""

from __future__ import annotations

import json
from typing import Any

from confluent_kafka import Consumer, TopicPartition

from connectors.kafka.client import KafkaTarget
from connectors.kafka.config import KafkaAlarmsConfig
from connectors.kafka.sink import KafkaAlarms
from connectors.sink import OutputRecord
from tests.output.made import event
from tests.waiting import LIMIT_S


def consumed(address: str, topic: str, isolation: str = "read_committed") -> list[Any]:
    """Every message of a topic, partition by partition."""
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
        message = consumer.poll(30)
        assert message is not None
        if message.error() is not None:
            ended += 1
        else:
            found.append(message)
    consumer.close()
    return found


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
