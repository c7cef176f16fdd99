"""The topic whose partitions are journals: made where it is not there, checked where it is."""

from __future__ import annotations

import logging
import time
from typing import Any, Final, NamedTuple

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # it names them without exporting
    AdminClient,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from connectors.errors import AuthError, ConfigError, ConnectError
from connectors.journal import wire
from connectors.journal.kafka_config import JournalConfig, PartitionConfig
from connectors.kafka.client import client_config, made_client, told
from connectors.kafka.topics import ANSWER_S, MADE_S, MAY_NOT, permitted
from connectors.kafka.watch import plain_words

log = logging.getLogger("journal")

WHERE: Final = "journal"  # in plant.yaml
CLIENT: Final = "penstock-journal"
MESSAGE_BYTES: Final = wire.MAX_MESSAGE  # a frame of 16 MiB and its addresses; a plant's files
DAY_MS: Final = 86_400_000


class Topic(NamedTuple):
    """A topic as the brokers have it. identifier: another one once it was made anew; "" where it may
    not be asked for. settings: {} where they may not be read."""

    name: str
    partitions: int
    replication: int
    identifier: str
    settings: dict[str, str]


def ready_topic(config: PartitionConfig) -> Topic:
    """The topic, once it is there and right; it is made where it is not there. Raises `ConnectError`, or
    `ConfigError` for one that would lose input or has not a partition a shard."""
    journal = config.journal
    found = look_topic(journal)
    if found is None:
        _make(journal, config.partitions)
        found = look_topic(journal)
        if found is None:
            raise ConnectError(f"Kafka does not know the topic {journal.topic} that was just made")
    check_topic(found, config.partitions)
    for warning in warnings(found):
        log.warning("the topic %s: %s", found.name, warning)
    return found


def look_topic(config: JournalConfig) -> Topic | None:
    """The topic, None where it is not there; makes none. Raises `ConnectError`."""
    errors: list[Any] = []
    # what it would write to the log is told by the exception
    settings = {**client_config(config, CLIENT), "error_cb": errors.append, "log_level": 2}
    admin = made_client(AdminClient, settings, WHERE)
    try:
        there = admin.list_topics(timeout=ANSWER_S).topics.get(config.topic)
        if there is None or there.error is not None:
            return None
        resource = ConfigResource(ResourceType.TOPIC, config.topic)
        (settings,) = (permitted(one) for one in admin.describe_configs([resource]).values())
        (described,) = (
            permitted(one) for one in admin.describe_topics(TopicCollection([config.topic])).values()
        )
        return Topic(
            config.topic,
            len(there.partitions),
            min((len(p.replicas) for p in there.partitions.values()), default=0),
            str(described.topic_id) if described is not None else "",
            {name: str(entry.value) for name, entry in settings.items()} if settings else {},
        )
    except (KafkaException, SystemError) as error:
        admin.poll(0)  # calls error_cb, which is told more than we are
        refused = next((one for one in map(told, errors) if isinstance(one, AuthError)), None)
        plain = [one for one in errors if one.code() != KafkaError._ALL_BROKERS_DOWN]
        failed = ConnectError(f"Kafka: {plain_words(plain[0])}") if plain else told(error)
        raise refused or failed from error


def check_topic(found: Topic, partitions: int) -> None:
    """Raises `ConfigError` for a topic that no journal can be kept in."""
    name, policy = found.name, found.settings.get("cleanup.policy", "delete")
    if found.partitions != partitions:
        raise ConfigError(
            f"the topic {name} has {found.partitions} partitions, and a journal has one for each shard:"
            f" {partitions}; write shards: {{count: {found.partitions}}} in a plant that has no data yet, or"
            " name another topic in journal.topic"
        )
    if policy != "delete":
        raise ConfigError(
            f"the topic {name} has cleanup.policy={policy}: compaction takes entries out of a journal; set it"
            f" with kafka-configs --alter --entity-type topics --entity-name {name}"
            " --add-config cleanup.policy=delete, or name another topic in journal.topic"
        )
    largest = int(found.settings.get("max.message.bytes", MESSAGE_BYTES))
    if largest < MESSAGE_BYTES:
        raise ConfigError(
            f"the topic {name} has max.message.bytes={largest}, and an entry may have {MESSAGE_BYTES}; set it"
            f" with kafka-configs --alter --entity-type topics --entity-name {name}"
            f" --add-config max.message.bytes={MESSAGE_BYTES}"
        )
    in_sync = int(found.settings.get("min.insync.replicas", 0))
    if in_sync > found.replication:
        raise ConfigError(
            f"the topic {name} has min.insync.replicas={in_sync} and replication {found.replication}, so"
            " nothing can be written to it; lower min.insync.replicas, or raise its replication"
        )


def warnings(found: Topic) -> list[str]:
    """What of a topic that works may lose input after all."""
    told_of = []
    in_sync = found.settings.get("min.insync.replicas")
    if found.replication == 1:
        told_of.append("replication 1: what devices were told is safe is lost with its broker's disk")
    elif in_sync == "1":
        told_of.append("min.insync.replicas 1: acks=all, and yet one lost broker may lose input; set it to 2")
    if found.settings.get("unclean.leader.election.enable") == "true":
        told_of.append("unclean.leader.election.enable=true: a broker that lags may lead, and lose input")
    retention = int(found.settings.get("retention.ms", -1))
    if 0 <= retention < DAY_MS:
        told_of.append(
            f"retention.ms={retention}: a plant that is down for longer than {retention / 3_600_000:.3g} h"
            " loses input"
        )
    if int(found.settings.get("retention.bytes", -1)) >= 0:
        told_of.append(
            f"retention.bytes={found.settings['retention.bytes']}: how long input is kept hangs on how"
            " much comes"
        )
    return told_of


def new_topic(config: JournalConfig, partitions: int) -> NewTopic:
    """The topic as it is made where it is not there."""
    return NewTopic(
        config.topic,
        num_partitions=partitions,
        replication_factor=config.replication or -1,  # -1: as the brokers are set
        config={
            "cleanup.policy": "delete",
            "retention.ms": str(config.retention // 1_000_000),
            "retention.bytes": "-1",
            "max.message.bytes": str(MESSAGE_BYTES),
        },
    )


def _make(config: JournalConfig, partitions: int) -> None:
    admin = made_client(AdminClient, client_config(config, CLIENT), WHERE)
    wanted = new_topic(config, partitions)
    try:
        admin.create_topics([wanted])[config.topic].result(timeout=MADE_S)
        log.info("made the topic %s with %d partitions", config.topic, partitions)
    except KafkaException as error:
        code = error.args[0].code()
        if code in MAY_NOT:
            raise ConfigError(
                f"the topic {config.topic} is not there, and this user may not make it; make it with"
                f" {partitions} partitions, cleanup.policy=delete and max.message.bytes={MESSAGE_BYTES},"
                " or permit CREATE"
            ) from error
        if code == KafkaError.INVALID_REPLICATION_FACTOR:
            raise ConfigError(
                f"the topic {config.topic} cannot be made: {error.args[0].str()};"
                " lower journal.replication, or start more brokers"
            ) from error
        if code != KafkaError.TOPIC_ALREADY_EXISTS:  # the journal of another shard made it
            raise told(error) from error
    until = time.monotonic() + MADE_S
    while time.monotonic() < until:  # the answer comes before the brokers know the topic
        there = admin.list_topics(timeout=ANSWER_S).topics.get(config.topic)
        if there is not None and there.error is None and there.partitions:
            return
        time.sleep(0.05)
