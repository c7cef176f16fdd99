"""The Kafka source against a real broker: what a message becomes, where reading begins, what is lost and
told, and that nothing comes twice."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic  # type: ignore[attr-defined]

from connectors.fakes import MemoryAppender
from connectors.kafka.config import KafkaConfig
from connectors.kafka.source import KafkaReceiver
from connectors.source import Surroundings
from tests.receivers.running import running, until
from tests.services.kafka import PASSWORD, USER, KafkaBroker
from tests.waiting import LIMIT_S


class Topic:
    """A topic of this test, and a client that writes to it."""

    def __init__(self, broker: KafkaBroker, name: str, partitions: int = 1, **settings: str) -> None:
        self.broker, self.name = broker, f"{name}-{time.monotonic_ns()}"
        self.admin = AdminClient({"bootstrap.servers": broker.address})
        self.producer = Producer({"bootstrap.servers": broker.address, "linger.ms": 5})
        self.make(partitions, **settings)

    def make(self, partitions: int = 1, **settings: str) -> None:
        self.admin.create_topics([NewTopic(self.name, partitions, 1, config=settings)])[self.name].result(
            LIMIT_S
        )
        self._until_known(partitions)

    def grow(self, partitions: int) -> None:
        self.admin.create_partitions([NewPartitions(self.name, partitions)])[self.name].result(LIMIT_S)
        self._until_known(partitions)
        self.producer = Producer({"bootstrap.servers": self.broker.address})  # which knows of them

    def drop(self) -> None:
        self.admin.delete_topics([self.name])[self.name].result(LIMIT_S)
        end = time.monotonic() + LIMIT_S
        while self.name in self.admin.list_topics(timeout=LIMIT_S).topics:
            assert time.monotonic() < end
            time.sleep(0.05)

    def trim(self, partition: int, before: int) -> None:
        part = TopicPartition(self.name, partition, before)
        self.admin.delete_records([part])[part].result(LIMIT_S)

    def put(self, *values: bytes | None, partition: int = 0, **more: Any) -> None:
        for value in values:
            self.producer.produce(self.name, value, partition=partition, **more)
        assert self.producer.flush(LIMIT_S) == 0

    def config(self, **more: Any) -> KafkaConfig:
        return KafkaConfig(**{"bootstrap": self.broker.address, "topics": self.name, "device": "key", **more})

    def committed(self, group: str) -> int:
        """The group's offset at the broker."""
        consumer = Consumer({"bootstrap.servers": self.broker.address, "group.id": group})
        (found,) = consumer.committed([TopicPartition(self.name, 0)], timeout=LIMIT_S)
        consumer.close()
        return int(found.offset)

    def _until_known(self, partitions: int) -> None:
        end = time.monotonic() + LIMIT_S
        while True:
            found = self.admin.list_topics(timeout=LIMIT_S).topics.get(self.name)
            if found is not None and found.error is None and len(found.partitions) == partitions:
                return
            assert time.monotonic() < end
            time.sleep(0.05)


Scene = Callable[[KafkaReceiver, MemoryAppender], Coroutine[Any, Any, None]]


def played(
    config: KafkaConfig, tmp_path: Path, scene: Scene, appender: MemoryAppender | None = None
) -> MemoryAppender:
    """What is durable once a scene is over. Again with the same path and appender: after a restart."""
    appender = appender if appender is not None else MemoryAppender()

    async def play() -> None:
        receiver = KafkaReceiver.build("fleet", config, Surroundings("works", tmp_path, tmp_path / "data"))
        async with running(receiver, appender):
            await scene(receiver, appender)

    asyncio.run(play())
    return appender


def until_frames(count: int) -> Scene:
    async def scene(receiver: KafkaReceiver, appender: MemoryAppender) -> None:
        await until(lambda: len(appender.frames) >= count, f"{count} frames")
        await asyncio.sleep(0.3)  # and no more

    return scene


def payloads(appender: MemoryAppender) -> list[bytes]:
    return [frame.payload for frame in appender.frames]


@pytest.mark.kafka
def test_what_a_message_becomes(broker: KafkaBroker, tmp_path: Path) -> None:
    topic = Topic(broker, "messages")
    topic.put(
        b"1", key=b"press-01", headers={"X-Line": b"7", "resync": b"no", "penstock-x": b"no", "key": b"no"}
    )
    topic.put(b"2", key=b"\xff\x00")
    topic.put(b"3", headers={"long": b"x" * 2000, "none": None})
    topic.put(None, key=b"press-02")
    topic.put(b"5" * 900_000)
    topic.put(b"6" * 900_001)
    found = played(topic.config(max_frame=900_000), tmp_path, until_frames(6))
    assert [(f.topic, f.headers, len(f.payload)) for f in found.frames] == [
        (topic.name, (("key", "press-01"), ("X-Line", "7")), 1),
        (topic.name, (("key", "ff00"),), 1),
        (topic.name, (("long", "x" * 1024), ("none", "")), 1),
        (topic.name, (("key", "press-02"),), 0),
        (topic.name, (), 900_000),
        (topic.name, (("too_large", "900001 bytes; max_frame allows 900000"),), 900_001),
    ]
    assert found.controls == [("connected", {"source": "fleet"}), ("disconnected", {"source": "fleet"})]


@pytest.mark.kafka
def test_the_address_may_stand_in_the_key_or_a_header(broker: KafkaBroker, tmp_path: Path) -> None:
    topic = Topic(broker, "bridged")
    topic.put(b"1", key=b"works/line-1/press-01", headers={"mqtt.topic": b"a/b", "trace": b"9"})
    told = []
    cases: dict[str, dict[str, Any]] = {
        "key": {"address": "key", "device": "topic", "topic": "works/{line}/{device_id}", "headers": []},
        "header": {"address": "header:MQTT.topic", "key": False, "headers": ["trace"], "device": "const:x"},
    }
    for name, more in cases.items():
        found = played(topic.config(**more), tmp_path / name, until_frames(1))
        told.append((found.frames[0].topic, found.frames[0].headers))
    assert told == [
        ("works/line-1/press-01", (("key", "works/line-1/press-01"),)),
        ("a/b", (("mqtt.topic", "a/b"), ("trace", "9"))),
    ]


@pytest.mark.kafka
def test_where_reading_begins(broker: KafkaBroker, tmp_path: Path) -> None:
    """`latest` and a time hold for what is there at the first start; what comes to be later is read whole,
    and a restart goes on where reading was."""
    topic = Topic(broker, "begins")
    topic.put(b"old", timestamp=1_772_355_600_000)
    topic.put(b"new", timestamp=1_772_355_700_000)

    async def grows(receiver: KafkaReceiver, appender: MemoryAppender) -> None:
        await until(lambda: receiver.status.state == "connected")
        await asyncio.sleep(0.5)
        topic.grow(2)
        topic.put(b"later", partition=1)
        await until(lambda: b"later" in payloads(appender))
        topic.put(b"live")
        await until(lambda: b"live" in payloads(appender))

    timed = played(topic.config(start="2026-03-01T09:01:00Z"), tmp_path / "timed", until_frames(1))
    latest = played(topic.config(start="latest"), tmp_path / "latest", grows)
    topic.put(b"away")
    played(topic.config(start="latest"), tmp_path / "latest", until_frames(3), latest)
    second = played(topic.config(partitions=[1]), tmp_path / "second", until_frames(1))
    assert payloads(timed) == [b"new"]
    assert payloads(latest) == [b"later", b"live", b"away"]
    assert payloads(second) == [b"later"]


@pytest.mark.kafka
def test_a_template_reads_every_topic_that_fits(broker: KafkaBroker, tmp_path: Path) -> None:
    name = f"fits{time.monotonic_ns()}"
    first = Topic(broker, f"{name}.line-1.press-01")
    first.put(b"1")
    Topic(broker, f"other.{name}").put(b"no")
    later: list[Topic] = []

    async def scene(receiver: KafkaReceiver, appender: MemoryAppender) -> None:
        await until(lambda: len(appender.frames) == 1)
        later.append(Topic(broker, f"{name}.line-1.press-02"))
        later[0].put(b"2")
        await until(lambda: len(appender.frames) == 2)

    config = first.config(topics=f"{name}.{{line}}.{{device_id}}", device="topic")
    found = played(config, tmp_path, scene)
    assert config.topic == f"{name}.{{line}}.{{device_id}}"
    assert [frame.topic for frame in found.frames] == [first.name, later[0].name]


@pytest.mark.kafka
def test_deleted_before_it_was_read(broker: KafkaBroker, tmp_path: Path) -> None:
    """While the source was away, and while it runs and the journal is behind."""
    topic = Topic(broker, "trimmed")
    topic.put(*(b"%d" % n for n in range(10)))
    found = played(topic.config(), tmp_path, until_frames(10))
    topic.put(*(b"%d" % n for n in range(10, 20)))
    topic.trim(0, 15)
    details: list[str] = []

    async def goes_on(receiver: KafkaReceiver, appender: MemoryAppender) -> None:
        await until(lambda: len(appender.frames) == 15)
        await until(lambda: receiver.status.extra.get("lost_total") == 5)
        details.append(receiver.status.detail)

    played(topic.config(), tmp_path, goes_on, found)
    played(topic.config(), tmp_path, until_frames(15), found)
    assert payloads(found) == [b"%d" % n for n in (*range(10), *range(15, 20))]
    gaps = [data for kind, data in found.controls if kind == "gap"]
    what = f"messages of {topic.name}, partition 0"
    assert gaps == [{"source": "fleet", "what": what, "missing": 5, "from": 10, "to": 14}]
    assert details[0].endswith("; up to 5 messages were deleted before they were read")


@pytest.mark.kafka
def test_a_topic_made_anew_is_read_from_its_beginning(broker: KafkaBroker, tmp_path: Path) -> None:
    topic = Topic(broker, "anew")
    topic.put(b"1", b"2", b"3")

    async def running_on(receiver: KafkaReceiver, appender: MemoryAppender) -> None:
        await until(lambda: len(appender.frames) == 3)
        topic.drop()
        await until(lambda: receiver.status.detail.endswith(f"the topic {topic.name} is not there"))
        assert receiver.status.state == "disconnected"
        await asyncio.sleep(1.0)  # nothing is fetched under its name any more
        topic.make()
        topic.put(b"4", b"5", b"6", b"7")
        await until(lambda: len(appender.frames) == 7)

    found = played(topic.config(), tmp_path, running_on)
    topic.drop()
    topic.make()
    topic.put(b"8", b"9")
    played(topic.config(), tmp_path, until_frames(9), found)
    assert payloads(found) == [b"%d" % n for n in range(1, 10)]
    told = [(data["missing"], data["from"]) for kind, data in found.controls if kind == "gap"]
    assert told == [(None, 3), (None, 4)]


@pytest.mark.kafka
def test_holes_of_transactions_and_compaction_are_no_gap(broker: KafkaBroker, tmp_path: Path) -> None:
    topic = Topic(broker, "holes")
    writer = Producer({"bootstrap.servers": broker.address, "transactional.id": topic.name})
    writer.init_transactions(LIMIT_S)
    for number in range(6):
        writer.begin_transaction()
        writer.produce(topic.name, b"%d" % number, partition=0)
        writer.flush(LIMIT_S)
        (writer.abort_transaction if number % 2 else writer.commit_transaction)(LIMIT_S)

    async def scene(receiver: KafkaReceiver, appender: MemoryAppender) -> None:
        await until(lambda: len(appender.frames) == 3)
        await until(lambda: receiver.status.extra.get("kafka_lag") == 0)

    found = played(topic.config(), tmp_path, scene)
    every = played(topic.config(isolation="uncommitted"), tmp_path / "all", until_frames(6))
    assert payloads(found) == [b"0", b"2", b"4"]
    assert payloads(every) == [b"%d" % n for n in range(6)]
    assert "gap" not in [kind for kind, _ in found.controls]


@pytest.mark.kafka
def test_appends_whose_end_is_not_known_are_made_again(broker: KafkaBroker, tmp_path: Path) -> None:
    """The journal has some of them, and was not heard; others never left. A third partition went on."""
    topic = Topic(broker, "again", 3)
    for number in range(300):
        topic.producer.produce(topic.name, b"%d" % number, partition=number % 3)
    topic.producer.flush(LIMIT_S)
    found = MemoryAppender()
    file = tmp_path / "data" / "kafka" / "fleet.jsonl"

    async def killed(receiver: KafkaReceiver, appender: MemoryAppender) -> None:
        appender.fill()
        await until(lambda: receiver.status.extra.get("waiting_appends", 0) > 0)

    played(topic.config(), tmp_path, killed, found)
    planned = json.loads(file.read_bytes().split(b"\n")[0])["planned"]
    assert planned
    assert found.frames == []
    found.drain()
    before = file.read_bytes()
    played(topic.config(), tmp_path, until_frames(300), found)
    first = payloads(found)
    file.write_bytes(before)  # as if the process had been killed before it could note the end
    topic.put(*(b"%d" % n for n in range(300, 310)))
    played(topic.config(), tmp_path, until_frames(310), found)
    assert sorted(map(int, first)) == list(range(300))
    assert payloads(found)[300:] == [b"%d" % n for n in range(300, 310)]


@pytest.mark.kafka
def test_the_brokers_are_told_what_is_durable_and_no_more(broker: KafkaBroker, tmp_path: Path) -> None:
    topic = Topic(broker, "committed")
    topic.put(*(b"%d" % n for n in range(20)))
    lags: list[float] = []

    async def scene(receiver: KafkaReceiver, appender: MemoryAppender) -> None:
        await until(lambda: topic.committed("penstock-works-fleet") == 20)
        appender.fill()
        topic.put(*(b"%d" % n for n in range(20, 30)))
        await until(lambda: receiver.status.extra.get("kafka_lag") == 10)
        await asyncio.sleep(1.5)
        assert topic.committed("penstock-works-fleet") == 20
        appender.drain()
        await until(lambda: topic.committed("penstock-works-fleet") == 30)
        await until(lambda: receiver.status.extra.get("kafka_lag") == 0)
        lags.append(receiver.status.extra["kafka_lag_largest"])

    played(topic.config(), tmp_path, scene)
    assert lags == [0.0]


@pytest.mark.kafka
def test_a_login_or_a_certificate_that_is_refused_is_told(
    broker: KafkaBroker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert broker.certificates is not None
    topic = Topic(broker, "secret")
    files = {
        "ca_file": str(broker.certificates.ca),
        "cert_file": str(broker.certificates.client),
        "key_file": str(broker.certificates.client_key),
    }
    login: dict[str, Any] = {
        "bootstrap": f"127.0.0.1:{broker.login_port}",
        "security_protocol": "SASL_SSL",
        "username": USER,
        "password": PASSWORD,
        **files,
    }

    def told(words: str) -> Scene:
        async def scene(receiver: KafkaReceiver, appender: MemoryAppender) -> None:
            await until(lambda: words in receiver.status.detail, words)
            assert receiver.status.state == "disconnected"

        return scene

    topic.put(b"1")
    assert payloads(played(topic.config(**login), tmp_path, until_frames(1))) == [b"1"]
    wrong = {**login, "password": "not-the-secret"}
    played(topic.config(**wrong), tmp_path, told("Kafka refuses the login: "))
    played(topic.config(**{**login, "ca_file": None}), tmp_path, told("certificate verify failed"))
    assert "not-the-secret" not in caplog.text
    assert PASSWORD not in caplog.text
