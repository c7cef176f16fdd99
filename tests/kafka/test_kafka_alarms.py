"""Alarm events on a real broker: every one once, whoever is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # it names them without exporting
    AdminClient,
    NewTopic,
)

from connectors.errors import ConfigError, ConnectError, PermanentDeliveryError
from connectors.journal.output import OutputWriter
from connectors.kafka.client import KafkaTarget
from connectors.kafka.config import KafkaAlarmsConfig
from connectors.kafka.partitions import murmur2
from connectors.kafka.sink import KafkaAlarms
from connectors.sink import OutputRecord
from tests.output.made import SPECS, devices, event, made_slice
from tests.services.kafka import KafkaBroker, why_not


def test_the_hash_is_that_of_kafkas_java_clients() -> None:
    """Values of org.apache.kafka.common.utils.UtilsTest.testMurmur2."""
    expected = {
        b"21": -973932308,
        b"foobar": -790332482,
        b"a-little-bit-long-string": -985981536,
        b"a-little-bit-longer-string": -1486304829,
        b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
        b"abc": 479470107,
    }
    assert {key: (murmur2(key) ^ 1 << 31) - (1 << 31) for key in expected} == expected


def test_a_broker_that_is_not_there_is_told() -> None:
    target = KafkaAlarms(KafkaTarget(alarms=KafkaAlarmsConfig(bootstrap="127.0.0.1:1")), "log")
    with pytest.raises(ConnectError, match=r"Kafka: .*onnect"):
        target.open()


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    lacking = why_not()
    if lacking:
        if os.environ.get("CI") == "true":
            pytest.fail(lacking)
        pytest.skip(lacking)
    made = KafkaBroker(tmp_path_factory.mktemp("kafka"))
    made.start()
    yield made
    made.stop()


def consumed(address: str, topic: str) -> list[Any]:
    """Every message of a topic, partition by partition."""
    consumer = Consumer({"bootstrap.servers": address, "group.id": "test", "enable.partition.eof": True})
    partitions = list(consumer.list_topics(topic, timeout=30).topics[topic].partitions)
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


def config(broker: KafkaBroker, name: str) -> KafkaAlarmsConfig:
    return KafkaAlarmsConfig(
        bootstrap=broker.address, events=f"{name}.events", state=f"{name}.state", partitions=3
    )


def record(number: int, transition: str = "raised", device: str = "press-00") -> OutputRecord:
    body = json.dumps(event(number, 0, transition, device).event, separators=(",", ":")).encode()
    return OutputRecord("alarms", number, number, number, body)


@pytest.mark.kafka
def test_events_and_newest_states(broker: KafkaBroker) -> None:
    chosen = config(broker, "plain")
    target = KafkaAlarms(KafkaTarget(alarms=chosen), "log-1")
    assert target.open() == {"alarms": 0}
    target.send([record(1), record(2, device="press-01"), record(3, "cleared")])
    target.send([record(4, "closed")])
    target.close()
    events = consumed(broker.address, chosen.events)
    assert len(events) == 4
    first = next(m for m in events if json.loads(m.value())["evidence"]["position"] == 1)
    assert first.key() == b"press-00/temp-high"
    assert json.loads(first.value()) == event(1).event["data"]
    headers = dict(first.headers())
    whole = event(1).event
    for name in ("specversion", "id", "type", "source", "subject", "time", "sequence", "partitionkey"):
        assert headers[f"ce_{name}"].decode() == whole[name]
    assert headers["content-type"] == b"application/json"
    newest = {m.key(): m.value() for m in consumed(broker.address, chosen.state)}
    assert newest[b"press-00/temp-high"] is None
    assert json.loads(newest[b"press-01/temp-high"]) == event(2, 0, "raised", "press-01").event["data"]


@pytest.mark.kafka
def test_what_the_partitions_have_is_passed_over(broker: KafkaBroker) -> None:
    chosen = config(broker, "again")
    records = [record(n, device=f"press-{n % 7:02d}") for n in range(1, 41)]
    target = KafkaAlarms(KafkaTarget(alarms=chosen), "log-1")
    target.open()
    target.send(records[:25])
    target.close()
    target = KafkaAlarms(KafkaTarget(alarms=chosen), "log-1")
    assert target.open() is None
    target.send(records)
    target.close()
    for topic in (chosen.events,):
        found = [json.loads(m.value())["evidence"]["position"] for m in consumed(broker.address, topic)]
        assert sorted(found) == list(range(1, 41))
    other = KafkaAlarms(
        KafkaTarget(alarms=chosen), "log-2"
    )  # another data directory: its numbers mean other events
    assert other.open() is None
    other.send(records[:2])
    other.close()
    assert len(consumed(broker.address, chosen.events)) == 42


@pytest.mark.kafka
def test_a_state_topic_that_is_not_compacted_is_refused(broker: KafkaBroker) -> None:
    admin = AdminClient({"bootstrap.servers": broker.address})
    for future in admin.create_topics([NewTopic("wrong.state", 1, 1)]).values():
        future.result(30)
    until = time.monotonic() + 30
    while "wrong.state" not in admin.list_topics(timeout=10).topics and time.monotonic() < until:
        time.sleep(0.05)
    target = KafkaAlarms(KafkaTarget(alarms=config(broker, "wrong")), "log-1")
    with pytest.raises(ConfigError) as told:
        target.open()
    assert str(told.value) == (
        "the topic wrong.state has cleanup.policy=delete, it needs compact; set it with kafka-configs --alter"
        " --entity-type topics --entity-name wrong.state --add-config cleanup.policy=compact,"
        " or name another topic in sinks.alarms"
    )


@pytest.mark.kafka
def test_a_message_too_large_is_refused_for_good(broker: KafkaBroker) -> None:
    chosen = config(broker, "large")
    target = KafkaAlarms(KafkaTarget(alarms=chosen), "log-1")
    target.open()
    large = json.loads(record(2).body)
    large["data"]["message"] = "x" * 2_000_000
    records = [record(1), OutputRecord("alarms", 2, 2, 2, json.dumps(large).encode()), record(3)]
    with pytest.raises(PermanentDeliveryError):
        target.send(records)
    target.open()
    target.send(records[:1])
    with pytest.raises(PermanentDeliveryError):
        target.send(records[1:2])
    target.send(records[2:])
    target.close()
    found = [json.loads(m.value())["evidence"]["position"] for m in consumed(broker.address, chosen.events)]
    assert sorted(found) == [1, 3]


def until(condition: Callable[[], object], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "not within the time given"
        time.sleep(0.02)


@pytest.mark.kafka
@pytest.mark.timeout(240)
def test_drainer_and_broker_killed_nothing_is_missing_or_twice(broker: KafkaBroker, tmp_path: Path) -> None:
    chosen = config(broker, "killed")
    (tmp_path / "run").mkdir()
    body = {
        "alarms": {
            "kind": "kafka",
            "bootstrap": chosen.bootstrap,
            "events": chosen.events,
            "state": chosen.state,
        }
    }
    (tmp_path / "run" / "target-kafka.json").write_text(json.dumps(body))
    log = OutputWriter(tmp_path / "output", devices(10), SPECS, map_bytes=1 << 28)
    command = [sys.executable, "-m", "flows.drainer", str(tmp_path), "kafka"]
    status = tmp_path / "run" / "drainer-kafka.json"
    entry = 0

    def put(count: int) -> None:
        nonlocal entry
        for _ in range(count):
            entry += 1
            found = [
                event(entry * 20 + n, 0, ("raised", "cleared", "closed")[n % 3], f"press-{n % 7:02d}")
                for n in range(12)
            ]
            log.write(made_slice(entry, entry * 20, 20, alarms=found))
            log.commit_due()

    def sent(child: subprocess.Popen[bytes]) -> int:
        try:
            told = json.loads(status.read_bytes())
        except (OSError, ValueError):
            return 0
        return int(told["sent"]["alarms_total"]) if told.get("pid") == child.pid and "sent" in told else 0

    for kill in range(4):
        put(60)
        child = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        until(lambda child=child: (put(3), sent(child) > 0)[1])  # type: ignore[misc]  # bound in the loop
        if kill == 2:
            broker.kill()
            put(20)
            broker.start()
            put(20)
            until(lambda child=child: json.loads(status.read_bytes())["lag_records"] == 0)  # type: ignore[misc]
        put(40)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    put(10)
    child = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    until(lambda: sent(child) > 0 and json.loads(status.read_bytes())["lag_records"] == 0)
    child.terminate()
    assert child.wait(30) == 0
    log.close()
    expected = [
        event(e * 20 + n, 0, ("raised", "cleared", "closed")[n % 3], f"press-{n % 7:02d}")
        for e in range(1, entry + 1)
        for n in range(12)
    ]
    found = consumed(broker.address, chosen.events)
    ids = [dict(message.headers())["ce_id"].decode() for message in found]
    assert len(ids) == len(set(ids))
    assert sorted(ids) == sorted(alarm.event["id"] for alarm in expected)
    by_key: dict[bytes, list[str]] = {}
    for message in found:
        by_key.setdefault(message.key(), []).append(dict(message.headers())["ce_sequence"].decode())
    assert all(sequences == sorted(sequences) for sequences in by_key.values())
    newest = {m.key(): dict(m.headers())["ce_id"].decode() for m in consumed(broker.address, chosen.state)}
    last = {alarm.event["subject"].encode(): alarm.event["id"] for alarm in expected}
    assert newest == last
