"""Brokers with access lists: what a source, the alarms and a journal may not is named, before and while they
run, and is done once it is permitted."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from connectors.errors import AuthError, ConfigError, DeliveryError
from connectors.fakes import MemoryAppender
from connectors.kafka.config import KafkaConfig
from connectors.kafka.source import KafkaReceiver
from flows.check_command import check
from tests.kafka.partition_journal import PartitionProcess
from tests.kafka.reading import config, positions, record, target
from tests.kafka.test_kafka_source import played
from tests.receivers import running
from tests.services.kafka import GUARDED, GUARDED_PASSWORD, KafkaBroker
from tests.waiting import LIMIT_S, until

BASE = Path(__file__).resolve().parents[1] / "golden" / "base"
PLANT = """
plant: line
sources: {sources}
historian: {{listen: "127.0.0.1:0"}}
server: {{listen: "127.0.0.1:0"}}
sinks: {{alarms: {alarms}}}
journal: {journal}
"""
LARGE = {"max.message.bytes": "41943040"}
RUNTIME = "Topic authorization failed (penstock check PLANT --connect says what to permit)"


class Lists:
    """The access lists of the user GUARDED, and a login as that user."""

    def __init__(self, broker: KafkaBroker) -> None:
        self.admin = AdminClient({"bootstrap.servers": broker.address})
        self.login: dict[str, Any] = {
            "bootstrap": f"127.0.0.1:{broker.guarded_port}",
            "security_protocol": "SASL_PLAINTEXT",
            "sasl_mechanism": "PLAIN",
            "username": GUARDED,
            "password": GUARDED_PASSWORD,
        }

    def make(self, *topics: str) -> None:
        wanted = [NewTopic(topic, 1, 1, config=LARGE) for topic in topics]
        for future in self.admin.create_topics(wanted).values():
            future.result(LIMIT_S)
        until(lambda: set(topics) <= set(self.admin.list_topics(timeout=LIMIT_S).topics), "the topics")

    def permit(self, name: str, *operations: AclOperation, kind: ResourceType = ResourceType.TOPIC) -> None:
        literal, user = ResourcePatternType.LITERAL, f"User:{GUARDED}"
        wanted = [
            AclBinding(kind, name, literal, user, "*", operation, AclPermissionType.ALLOW)
            for operation in operations
        ]
        for future in self.admin.create_acls(wanted).values():
            future.result(LIMIT_S)

    def forget(self) -> None:
        name: Any = None  # any, which the annotations do not know
        everything = AclBindingFilter(
            ResourceType.ANY,
            name,
            ResourcePatternType.ANY,
            name,
            name,
            AclOperation.ANY,
            AclPermissionType.ANY,
        )
        for future in self.admin.delete_acls([everything]).values():
            future.result(LIMIT_S)


@pytest.fixture
def lists(broker: KafkaBroker) -> Iterator[Lists]:
    made = Lists(broker)
    yield made
    made.forget()


def lacking(topic: str, *rights: str) -> str:
    operations = " ".join(f"--operation {one.capitalize()}" for one in rights)
    return (
        f"the brokers do not permit {GUARDED} {' and '.join(rights)} of the topic {topic}; permit it with"
        f" kafka-acls --add --allow-principal User:{GUARDED} --topic {topic} {operations}"
    )


def checked(folder: Path, lists: Lists, topic: str) -> tuple[int, dict[str, str]]:
    """What `check --connect` says of a plant whose source, alarms and journal are topics of that name."""
    shutil.copytree(BASE, folder, dirs_exist_ok=True)
    source = {"kind": "kafka", "topic": f"{topic}.in", "device": "key", **lists.login}
    alarms = {"events": f"{topic}.events", "state": f"{topic}.state", **lists.login}
    journal = {"kind": "kafka", "topic": f"{topic}.frames", **lists.login}
    text = PLANT.format(
        sources=json.dumps({"s": source}), alarms=json.dumps(alarms), journal=json.dumps(journal)
    )
    (folder / "plant.yaml").write_text(text)
    result = CliRunner().invoke(check, [str(folder), "--connect", "--json"], standalone_mode=False)
    found = json.loads(result.stdout)["connect"]
    return result.return_value, {
        f"{one['what']} {one['address']}" if one["address"].startswith("r.") else one["what"]: one["result"]
        for one in found
        if one["what"] in ("sources.s", "sinks.alarms", "journal")
    }


@pytest.mark.kafka
def test_check_connect_names_the_rights_that_are_missing(lists: Lists, tmp_path: Path) -> None:
    lists.make("r.in", "r.frames")
    code, told = checked(tmp_path, lists, "r")
    assert code == 3
    assert told == {
        "sources.s": lacking("r.in", "READ"),
        "sinks.alarms": "; ".join(
            lacking(f"r.{one}", "READ", "WRITE", "CREATE") for one in ("events", "state")
        ),
        "journal": lacking("r.frames", "READ", "WRITE", "CREATE"),  # what may not be seen is not there
    }
    lists.permit("r.in", AclOperation.READ)
    lists.permit("r.frames", AclOperation.READ)
    lists.permit("r.events", AclOperation.CREATE, AclOperation.WRITE)
    lists.permit("r.state", AclOperation.ALL)
    code, told = checked(tmp_path, lists, "r")
    assert code == 3
    assert told["sources.s"] == "the brokers accept; 1 topic, 1 partition"
    assert told["sinks.alarms"] == "the brokers accept; delivery: idempotent"
    assert told["journal"] == lacking("r.frames", "WRITE")
    lists.permit("r.frames", AclOperation.WRITE)
    code, told = checked(tmp_path, lists, "r")
    assert told["journal"] == "r.frames: 1 partition, replication 1; its settings may not be read"
    assert code == 0


@pytest.mark.kafka
def test_a_source_that_may_not_read_says_so_and_reads_once_it_may(lists: Lists, tmp_path: Path) -> None:
    topic = f"read-{time.monotonic_ns()}"
    lists.make(topic)
    lists.permit(topic, AclOperation.DESCRIBE)

    async def scene(receiver: KafkaReceiver, appender: MemoryAppender) -> None:
        await running.until(lambda: RUNTIME in receiver.status.detail, "the status")
        assert f"{topic}, partition 0: Kafka does not permit it: " in receiver.status.detail
        assert GUARDED_PASSWORD not in receiver.status.detail
        lists.permit(topic, AclOperation.READ)
        await running.until(lambda: RUNTIME not in receiver.status.detail, "the status")

    played(KafkaConfig(topics=topic, device="key", **lists.login), tmp_path, scene)


@pytest.mark.kafka
def test_a_journal_that_may_not_write_or_read_says_so_and_goes_on_once_it_may(
    lists: Lists, tmp_path: Path
) -> None:
    topic = f"journal-{time.monotonic_ns()}"
    lists.make(topic)
    lists.permit(topic, AclOperation.DESCRIBE)
    login = {key: value for key, value in lists.login.items() if key != "bootstrap"}
    journal = PartitionProcess(tmp_path / "a", lists.login["bootstrap"], topic, **login)
    with journal:
        waits = f"Kafka {lists.login['bootstrap']}: Kafka does not permit it: "

        def is_refused() -> bool:
            status = journal.status()
            return status["state"] == "disconnected" and str(status["detail"]).startswith(waits)

        until(is_refused, "READ to be missing")
        assert journal.status()["detail"].endswith(f"{RUNTIME}; sources wait")
        lists.permit(topic, AclOperation.READ)
        until(lambda: journal.status()["metrics"]["journal_kafka_waiting"] == 1, "`started` to be sent")
        until(is_refused, "WRITE to be missing")
        lists.permit(topic, AclOperation.WRITE)
        until(lambda: journal.status()["state"] == "running", "the journal")
        assert journal.stop() == 0


@pytest.mark.kafka
def test_alarms_that_may_not_be_written_say_so_and_come_once_they_may(
    lists: Lists, broker: KafkaBroker
) -> None:
    name = f"alarms-{time.monotonic_ns()}"
    login = {key: value for key, value in lists.login.items() if key != "bootstrap"}
    chosen = config(lists.login["bootstrap"], name, "transactional", **login)
    with pytest.raises(ConfigError) as unmade:
        target(chosen).open()
    assert str(unmade.value) == (
        f"the topic {name}.events is not there, and this user may not make it; make it with"
        " cleanup.policy=delete, or permit CREATE"
    )
    for topic in (chosen.events, chosen.state):
        lists.permit(topic, AclOperation.CREATE, AclOperation.READ)
    sink = target(chosen)
    with pytest.raises(AuthError) as refused:
        sink.open()
    assert str(refused.value) == (
        f"the brokers do not permit {GUARDED} transactions; permit them with kafka-acls --add"
        f" --allow-principal User:{GUARDED} --transactional-id {sink.transactional_id} --operation Write"
        " --operation Describe, or write delivery: idempotent"
    )
    transactions = ResourceType.TRANSACTIONAL_ID
    lists.permit(sink.transactional_id, AclOperation.WRITE, AclOperation.DESCRIBE, kind=transactions)
    sink.open()
    with pytest.raises(DeliveryError) as denied:
        sink.send([record(1)])
    assert str(denied.value).startswith("Kafka does not permit it: ")
    assert "Topic authorization failed" in str(denied.value)
    for topic in (chosen.events, chosen.state):
        lists.permit(topic, AclOperation.WRITE)

    def is_sent() -> bool:
        try:
            sink.open()
            sink.send([record(1)])
        except (AuthError, DeliveryError):
            return False
        return True

    until(is_sent, "the alarm")
    assert positions(broker.address, chosen.events) == [1]
    sink.close()
