"""Checks of `journal` in plant.yaml beyond types: its size, and what goes with a Kafka topic."""

from __future__ import annotations

from typing import Final

import msgspec

from connectors.journal.kafka_config import JournalConfig
from connectors.kafka.config import KafkaClientConfig
from flows.plant_kafka import check_brokers, check_login, is_known, topic_problem
from operators.document import Node, Problems
from operators.spec import HOUR

LEAST: Final = 16_000_000  # bytes
KAFKA_KEYS: Final = (
    *(one.encode_name for one in msgspec.structs.fields(KafkaClientConfig)),
    *("topic", "replication", "retention", "compression"),
)


def check_journal(node: Node, config: JournalConfig, problems: Problems) -> None:
    """All checks of `journal`; node: of plant.yaml."""
    journal = node.get("journal")
    if journal is None or not journal.is_map:
        return
    size = journal.get("max")
    if size is not None and not size.masked and config.max < LEAST:
        problems.add(size, "the journal needs at least 16MB")
    if config.kind == "local":
        for key in KAFKA_KEYS:
            if (place := journal.get(key)) is not None:
                problems.add(place, "goes with a journal on Kafka; write kind: kafka, or take it out")
        return
    place = journal.get("bootstrap")
    if place is None or (is_known(place) and not config.bootstrap):
        problems.add(place or journal, "a journal on Kafka needs 'bootstrap', its brokers: host:port,...")
    place = journal.get("topic")
    if is_known(place) and (told := topic_problem(config.topic)) is not None:
        problems.add(place, told)
    place = journal.get("replication")
    if is_known(place) and config.replication is not None and not 1 <= config.replication <= 10_000:
        problems.add(place, "a number from 1 to 10000 is expected")
    place = journal.get("retention")
    if is_known(place) and config.retention < HOUR:
        problems.add(
            place, "at least 1h is expected; what is older than this is lost to a plant that was down"
        )
    check_brokers(journal, config, problems)
    check_login(journal, config, problems, "frames")
