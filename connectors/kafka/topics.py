"""Topics of the alarm events: made where they are not there, checked where they are."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, Final, NamedTuple

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # it names them without exporting
    AdminClient,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from connectors.errors import ConfigError, ConnectError
from connectors.kafka.client import made_client, told
from connectors.kafka.config import PARTITIONS, KafkaAlarmsConfig

log = logging.getLogger("penstock")

ANSWER_S: Final = 5.0
MADE_S: Final = 30.0
MAY_NOT: Final = frozenset({KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED})


class Topic(NamedTuple):
    """A topic as the brokers have it. identifier: the brokers' own, another one once it was made anew;
    "" where it may not be asked for. in_sync: min.insync.replicas, 0 where it may not be read."""

    name: str
    partitions: int
    replication: int
    identifier: str
    policy: str
    in_sync: int


def policies(config: KafkaAlarmsConfig) -> dict[str, str]:
    """The topics of the alarms, and the cleanup.policy that each must have."""
    return {config.events: "delete", config.state: "compact"}


def new_topic(config: KafkaAlarmsConfig, name: str) -> NewTopic:
    """One of them, as it is made where it is not there."""
    return NewTopic(
        name,
        num_partitions=config.partitions or PARTITIONS,
        replication_factor=config.replication or -1,  # -1: as the brokers are set
        config={"cleanup.policy": policies(config)[name]},
    )


class Topics:
    """The topics of one target: all events, and the compacted one of newest states."""

    def __init__(self, client: Mapping[str, Any], config: KafkaAlarmsConfig) -> None:
        self._client = dict(client)
        self._config = config
        self._policies = policies(config)

    def ready(self) -> dict[str, Topic]:
        """The topics by name, once all are there and right. Raises `ConnectError`, or `ConfigError` for
        a topic that would lose alarms or is not as the configuration says."""
        admin = made_client(AdminClient, self._client)
        try:
            there = admin.list_topics(timeout=ANSWER_S).topics
            missing = [topic for topic in self._policies if topic not in there]
            if missing:
                self._make(admin, missing)
            return {found.name: self._checked(found) for found in self._described(admin)}
        except (KafkaException, SystemError) as error:
            admin.poll(0)  # calls error_cb, which is told more than we are
            raise told(error) from error

    def look(self) -> dict[str, Topic | None]:
        """The topics by name, None for one that is not there; makes none. Raises as `ready` does."""
        admin = made_client(AdminClient, self._client)
        try:
            there = admin.list_topics(timeout=ANSWER_S).topics
            found: dict[str, Topic | None] = dict.fromkeys(self._policies)
            for one in self._described(admin, [topic for topic in self._policies if topic in there]):
                found[one.name] = self._checked(one)
            return found
        except (KafkaException, SystemError) as error:
            admin.poll(0)
            raise told(error) from error

    def _make(self, admin: Any, missing: list[str]) -> None:
        count = self._config.partitions or PARTITIONS
        wanted = [new_topic(self._config, topic) for topic in missing]
        for topic, future in admin.create_topics(wanted).items():
            try:
                future.result(timeout=MADE_S)
                log.info("made the topic %s with %d partitions", topic, count)
            except KafkaException as error:
                code = error.args[0].code()
                if code in MAY_NOT:
                    raise ConfigError(
                        f"the topic {topic} is not there, and this user may not make it; make it with"
                        f" cleanup.policy={self._policies[topic]}, or permit CREATE"
                    ) from error
                if code == KafkaError.INVALID_REPLICATION_FACTOR:
                    raise ConfigError(
                        f"the topic {topic} cannot be made: {error.args[0].str()};"
                        " lower sinks.alarms.replication, or start more brokers"
                    ) from error
                if code != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise
        until = time.monotonic() + MADE_S
        while time.monotonic() < until:  # the answer comes before the brokers know the topic
            there = admin.list_topics(timeout=ANSWER_S).topics
            if all(t in there and there[t].error is None and there[t].partitions for t in missing):
                return
            time.sleep(0.05)
        raise ConnectError(f"Kafka does not know {', '.join(missing)} after {MADE_S:.0f} s")

    def _described(self, admin: Any, names: list[str] | None = None) -> list[Topic]:
        names = list(self._policies) if names is None else names
        if not names:
            return []
        there = admin.list_topics(timeout=ANSWER_S).topics
        resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
        settings = {r.name: permitted(future) for r, future in admin.describe_configs(resources).items()}
        described = admin.describe_topics(TopicCollection(names))
        found = []
        for name in names:
            known, topic = settings[name], permitted(described[name])
            if known is None:
                log.warning("may not read the settings of %s; they are not checked", name)
            found.append(
                Topic(
                    name,
                    len(there[name].partitions),
                    min((len(p.replicas) for p in there[name].partitions.values()), default=0),
                    str(topic.topic_id) if topic is not None else "",
                    known["cleanup.policy"].value if known else self._policies[name],
                    int(known["min.insync.replicas"].value) if known else 0,
                )
            )
        return found

    def _checked(self, found: Topic) -> Topic:
        name, wanted = found.name, self._policies[found.name]
        if sorted(found.policy.split(",")) != [wanted]:
            raise ConfigError(
                f"the topic {name} has cleanup.policy={found.policy}, it needs {wanted}; set it with"
                f" kafka-configs --alter --entity-type topics --entity-name {name}"
                f" --add-config cleanup.policy={wanted}, or name another topic in sinks.alarms"
            )
        partitions, replication = self._config.partitions, self._config.replication
        if partitions is not None and partitions != found.partitions:
            mend = f"write partitions: {found.partitions}, or name another topic in sinks.alarms"
            if partitions > found.partitions:
                mend = (
                    f"add some with kafka-topics --alter --topic {name} --partitions {partitions}, or {mend}"
                )
            raise ConfigError(
                f"the topic {name} has {found.partitions} partitions,"
                f" sinks.alarms.partitions says {partitions}; {mend}"
            )
        if replication is not None and replication != found.replication:
            raise ConfigError(
                f"the topic {name} has replication {found.replication}, sinks.alarms.replication says"
                f" {replication}; change it with kafka-reassign-partitions, or write"
                f" replication: {found.replication}"
            )
        if found.in_sync > found.replication:
            raise ConfigError(
                f"the topic {name} has min.insync.replicas={found.in_sync} and replication"
                f" {found.replication}, so nothing can be written to it; lower min.insync.replicas, or"
                " raise its replication"
            )
        return found


def permitted(future: Future[Any]) -> Any:
    """What the brokers answer; None where they do not permit the question."""
    try:
        return future.result(timeout=2 * ANSWER_S)
    except KafkaException as error:
        if error.args[0].code() in MAY_NOT:
            return None
        raise
