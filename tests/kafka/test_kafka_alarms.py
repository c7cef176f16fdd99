"""What stands on the topics, on a real broker, whichever way it is delivered."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # it names them without exporting
    AdminClient,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from connectors.errors import AuthError, ConfigError, ConnectError, PermanentDeliveryError
from connectors.kafka import topics
from connectors.kafka.client import KafkaTarget
from connectors.kafka.config import KafkaAlarmsConfig
from connectors.kafka.sink import KafkaAlarms
from connectors.kafka.tails import TAIL
from connectors.kafka.topics import Topics
from connectors.sink import OutputRecord
from tests.kafka.reading import config, consumed, header, positions, record, target, wait_for_marks
from tests.output.made import event
from tests.services.kafka import PASSWORD, USER, KafkaBroker
from tests.waiting import LIMIT_S, until

DELIVERIES = ("idempotent", "transactional")


def test_a_broker_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("connectors.kafka.topics.ANSWER_S", 0.5)
    made = KafkaAlarms(KafkaTarget(alarms=KafkaAlarmsConfig(bootstrap="127.0.0.1:1")), "log")
    with pytest.raises(ConnectError, match=r"Kafka: .*onnect"):
        made.open()


def test_a_certificate_that_is_not_there_is_told() -> None:
    chosen = KafkaAlarmsConfig(bootstrap="127.0.0.1:1", security_protocol="SSL", ca_file="/nowhere.pem")
    with pytest.raises(ConfigError, match=r"sinks.alarms: .*ssl.ca.location"):
        KafkaAlarms(KafkaTarget(alarms=chosen), "log").open()


@pytest.mark.kafka
@pytest.mark.parametrize("delivery", DELIVERIES)
def test_events_and_newest_states(broker: KafkaBroker, delivery: str) -> None:
    chosen = config(broker.address, f"plain-{delivery}", delivery, partitions=3)
    made = target(chosen)
    assert made.open() == {"alarms": 0}
    made.send([record(1), record(2, device="press-01"), record(3, "cleared")])
    made.send([record(4, "closed")])
    made.close()
    events = consumed(broker.address, chosen.events)
    assert len(events) == 4
    first = next(m for m in events if json.loads(m.value())["evidence"]["position"] == 1)
    assert first.key() == b"press-00/temp-high"
    whole = event(1).event
    assert json.loads(first.value()) == whole["data"]
    # the Kafka protocol binding of CloudEvents 1.0.2, section 3.2: each attribute but data is a header
    headers = {name: value.decode() for name, value in first.headers()}
    assert {name: value for name, value in headers.items() if name.startswith("ce_")} == {
        f"ce_{name}": value for name, value in whole.items() if name != "data"
    }
    assert headers["content-type"] == "application/json"
    newest = {m.key(): m for m in consumed(broker.address, chosen.state)}
    closed = newest[b"press-00/temp-high"]
    assert closed.value() is None  # an event without data: a tombstone, of no content type
    assert header(closed, "ce_type") == "org.penstock.alarm.closed"
    assert "content-type" not in dict(closed.headers())
    there = json.loads(newest[b"press-01/temp-high"].value())
    assert there == event(2, 0, "raised", "press-01").event["data"]


@pytest.mark.kafka
@pytest.mark.parametrize("delivery", DELIVERIES)
def test_what_the_partitions_have_is_passed_over(broker: KafkaBroker, delivery: str) -> None:
    chosen = config(broker.address, f"again-{delivery}", delivery)
    records = [record(n, device=f"press-{n % 7:02d}") for n in range(1, 41)]
    made = target(chosen)
    made.open()
    made.send(records[:25])
    made.close()
    made = target(chosen)
    assert made.open() is None
    made.send(records)
    made.close()
    assert positions(broker.address, chosen.events) == list(range(1, 41))
    other = target(chosen, "log-2")  # another data directory: its numbers mean other events
    assert other.open() is None
    other.send(records[:2])
    other.close()
    assert len(consumed(broker.address, chosen.events)) == 42


@pytest.mark.kafka
def test_the_flood_of_another_shard_hides_no_tail(broker: KafkaBroker, tmp_path: Path) -> None:
    """What was sent after the cursor was written stands far behind what the other shard sent since."""
    chosen = config(broker.address, "shards", "idempotent", partitions=1)
    cursor = tmp_path / "kafka.json"
    cursor.write_text("{}")
    mine, other = (
        KafkaAlarms(KafkaTarget(plant="line", shard=n, alarms=chosen), f"log-{n}", cursor=cursor)
        for n in range(2)
    )
    assert (mine.transactional_id, other.transactional_id) == ("line/0", "line/1")
    mine.open()
    mine.send([record(n) for n in range(1, 6)])
    mine.close()
    other.open()
    for start in range(1, TAIL + 2000, 1000):
        other.send([record(n) for n in range(start, start + 1000)])
    other.close()
    again = KafkaAlarms(KafkaTarget(plant="line", shard=0, alarms=chosen), "log-0", cursor=cursor)
    cursor.write_text("written by the drainer before it opens its target")
    assert again.open() is None
    again.send([record(n) for n in range(1, 8)])
    again.close()
    found = [m for m in consumed(broker.address, chosen.events) if header(m, "penstock-shard") == "0"]
    assert [json.loads(m.value())["evidence"]["position"] for m in found] == list(range(1, 8))


@pytest.mark.kafka
def test_what_a_transaction_left_behind_does_not_count(broker: KafkaBroker) -> None:
    """Records of an open transaction stand in the partition; no tail takes them for delivered, also
    not after a change to the other way of delivery."""
    chosen = config(broker.address, "aborted", "transactional", partitions=1)
    made = target(chosen)
    made.open()
    made.send([record(1)])
    made._producer.begin_transaction()
    made._stage([record(2), record(3)])
    assert made._producer.flush(LIMIT_S) == 0
    successor = target(config(broker.address, "aborted", "idempotent"))
    successor._client["client.id"] = "successor"
    made._producer.abort_transaction(LIMIT_S)  # else the tail waits for the transaction's end
    successor.open()
    successor.send([record(2), record(3)])
    successor.close()
    assert positions(broker.address, chosen.events) == [1, 2, 3]
    assert len(consumed(broker.address, chosen.events, "read_uncommitted")) == 5


@pytest.mark.kafka
def test_a_strangers_open_transaction_hides_no_tail(broker: KafkaBroker) -> None:
    chosen = config(broker.address, "shared", "idempotent", partitions=1)
    made = target(chosen)
    made.open()
    stranger = Producer({"bootstrap.servers": broker.address, "transactional.id": "a stranger"})
    stranger.init_transactions(LIMIT_S)
    stranger.begin_transaction()
    stranger.produce(chosen.events, b"{}", b"key", partition=0)
    stranger.flush(LIMIT_S)
    made.send([record(1), record(2)])  # behind it
    made.close()
    ending = threading.Timer(1.0, lambda: stranger.commit_transaction(LIMIT_S))
    ending.start()
    made = target(chosen)
    made.open()
    made.send([record(1), record(2), record(3)])
    made.close()
    ending.join()
    found = [m for m in consumed(broker.address, chosen.events) if m.key() != b"key"]
    assert [json.loads(m.value())["evidence"]["position"] for m in found] == [1, 2, 3]


@pytest.mark.kafka
def test_a_topic_made_anew_gets_everything(
    broker: KafkaBroker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    chosen = config(broker.address, "anew", partitions=1)
    note = tmp_path / "kafka.note"
    made = target(chosen, note=note)
    made.open()
    made.send([record(1), record(2)])
    made.settle()
    assert made.open() is None
    admin = AdminClient({"bootstrap.servers": broker.address})
    admin.delete_topics([chosen.events])[chosen.events].result(LIMIT_S)
    until(lambda: chosen.events not in admin.list_topics(timeout=LIMIT_S).topics)
    made = target(chosen, note=note)
    Topics(made._client, chosen).ready()  # somebody makes it, and somebody writes to it
    other = Producer({"bootstrap.servers": broker.address})
    other.produce(chosen.events, b"{}", b"key", partition=0)
    assert other.flush(LIMIT_S) == 0
    with caplog.at_level(logging.INFO, "penstock"):
        assert made.open() == {"alarms": 0}
    told = [entry.getMessage() for entry in caplog.records]
    assert f"the topic {chosen.events} was made anew: it gets all that the output log keeps" in told
    made.send([record(1), record(2), record(3)])
    made.settle()
    assert made.open() is None
    made.close()
    found = [m for m in consumed(broker.address, chosen.events) if m.key() != b"key"]
    assert [json.loads(m.value())["evidence"]["position"] for m in found] == [1, 2, 3]


@pytest.mark.kafka
def test_topics_are_made_right_and_wrong_ones_are_refused(broker: KafkaBroker) -> None:
    admin = AdminClient({"bootstrap.servers": broker.address})
    chosen = config(broker.address, "made", partitions=5, replication=1)
    found = Topics({"bootstrap.servers": broker.address}, chosen).ready()
    assert [found[name].partitions for name in (chosen.events, chosen.state)] == [5, 5]
    resource = ConfigResource(ResourceType.TOPIC, chosen.state)
    settings = admin.describe_configs([resource])[resource].result(LIMIT_S)
    assert settings["cleanup.policy"].value == "compact"

    wrong = [
        NewTopic("wrong.state", 1, 1),
        NewTopic("both.state", 1, 1, config={"cleanup.policy": "compact,delete"}),
        NewTopic("lossy.events", 1, 1, config={"cleanup.policy": "compact"}),
        NewTopic("strict.events", 1, 1, config={"min.insync.replicas": "2"}),
    ]
    for future in admin.create_topics(wrong).values():
        future.result(LIMIT_S)
    until(lambda: {topic.topic for topic in wrong} <= set(admin.list_topics(timeout=LIMIT_S).topics))
    expected = {
        "wrong": "the topic wrong.state has cleanup.policy=delete, it needs compact; set it with"
        " kafka-configs --alter --entity-type topics --entity-name wrong.state"
        " --add-config cleanup.policy=compact, or name another topic in sinks.alarms",
        "lossy": "the topic lossy.events has cleanup.policy=compact, it needs delete; set it with"
        " kafka-configs --alter --entity-type topics --entity-name lossy.events"
        " --add-config cleanup.policy=delete, or name another topic in sinks.alarms",
        "strict": "the topic strict.events has min.insync.replicas=2 and replication 1, so nothing can be"
        " written to it; lower min.insync.replicas, or raise its replication",
    }
    for name, text in expected.items():
        assert refused(config(broker.address, name)) == text
    assert "has cleanup.policy=compact,delete, it needs compact" in refused(config(broker.address, "both"))
    more = config(broker.address, "made", partitions=6)
    assert refused(more) == (
        "the topic made.events has 5 partitions, sinks.alarms.partitions says 6; add some with"
        " kafka-topics --alter --topic made.events --partitions 6, or write partitions: 5, or name another"
        " topic in sinks.alarms"
    )
    assert refused(config(broker.address, "made", partitions=4)) == (
        "the topic made.events has 5 partitions, sinks.alarms.partitions says 4; write partitions: 5, or"
        " name another topic in sinks.alarms"
    )
    assert refused(config(broker.address, "made", replication=3)) == (
        "the topic made.events has replication 1, sinks.alarms.replication says 3; change it with"
        " kafka-reassign-partitions, or write replication: 1"
    )
    assert refused(config(broker.address, "tripled", replication=3)).startswith(
        "the topic tripled.events cannot be made: "
    )


def refused(chosen: KafkaAlarmsConfig) -> str:
    with pytest.raises(ConfigError) as told:
        target(chosen).open()
    return str(told.value)


@pytest.mark.kafka
@pytest.mark.parametrize("delivery", DELIVERIES)
def test_a_message_too_large_is_refused_for_good(broker: KafkaBroker, delivery: str) -> None:
    chosen = config(broker.address, f"large-{delivery}", delivery)
    made = target(chosen)
    made.open()
    large = json.loads(record(2).body)
    large["data"]["message"] = "x" * 2_000_000
    records = [record(1), OutputRecord("alarms", 2, 2, 2, json.dumps(large).encode()), record(3)]
    with pytest.raises(PermanentDeliveryError):
        made.send(records)
    made.open()
    made.send(records[:1])
    with pytest.raises(PermanentDeliveryError):
        made.send(records[1:2])
    made.open()
    made.send(records[2:])
    made.close()
    assert positions(broker.address, chosen.events) == [1, 3]


@pytest.mark.kafka
def test_tls_with_a_login(
    broker: KafkaBroker, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = broker.certificates
    assert made is not None
    login: dict[str, Any] = {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "username": USER,
        "password": PASSWORD,
        "ca_file": str(made.ca),
        "cert_file": str(made.client),
        "key_file": str(made.client_key),
    }
    address = f"127.0.0.1:{broker.login_port}"
    chosen = config(address, "login", "transactional", **login)
    answer_s = topics.ANSWER_S
    monkeypatch.setattr(topics, "ANSWER_S", LIMIT_S)  # a broker that starts takes its time for a first login
    sink = target(chosen)
    sink.open()
    sink.send([record(1)])
    sink.close()
    assert positions(broker.address, chosen.events) == [1]
    monkeypatch.setattr(topics, "ANSWER_S", answer_s)
    with pytest.raises(AuthError, match="Kafka refuses the login") as told:
        target(config(address, "login", **{**login, "password": "not-the-secret"})).open()
    assert "not-the-secret" not in str(told.value)
    for wrong in ({"ca_file": str(made.other_ca)}, {"cert_file": None}):
        with pytest.raises(ConnectError, match=r"(?i)ssl"):
            target(config(address, "login", **{**login, **wrong})).open()
    out = capfd.readouterr()
    assert PASSWORD not in out.out + out.err
    assert "not-the-secret" not in out.out + out.err


@pytest.mark.kafka
def test_kcat_reads_the_events(broker: KafkaBroker) -> None:
    """A consumer that nobody here wrote."""
    kcat = shutil.which("kcat") or shutil.which("kafkacat")
    if kcat is None:
        pytest.skip("no kcat here; the other tests read the topics by librdkafka")
    chosen = config(broker.address, "kcat", "transactional")
    made = target(chosen)
    made.open()
    made.send([record(1), record(2, "cleared"), record(3, "closed")])
    made.close()
    for topic in (chosen.events, chosen.state):
        wait_for_marks(broker.address, topic)
    command = [kcat, "-b", broker.address, "-C", "-e", "-q", "-X", "isolation.level=read_committed", "-J"]
    lines = subprocess.run(
        [*command, "-t", chosen.events], check=True, capture_output=True, timeout=LIMIT_S
    ).stdout.splitlines()
    found = [json.loads(line) for line in lines]
    assert [json.loads(message["payload"]) for message in found] == [
        event(1).event["data"],
        event(2, 0, "cleared").event["data"],
        event(3, 0, "closed").event["data"],
    ]
    pairs = found[0]["headers"]
    headers = dict(zip(pairs[::2], pairs[1::2], strict=True))
    assert headers["ce_type"] == "org.penstock.alarm.raised"
    assert headers["ce_subject"] == found[0]["key"] == "press-00/temp-high"
    state = subprocess.run(
        [*command, "-t", chosen.state], check=True, capture_output=True, timeout=LIMIT_S
    ).stdout.splitlines()
    assert [json.loads(line)["payload"] for line in state] == [None]
