"""Checks of `journal` in plant.yaml beyond types: its size, and what goes with a Kafka topic."""

from __future__ import annotations

from typing import Final

import msgspec

from connectors.journal.kafka_config import shards_here, sources_here
from connectors.kafka.config import KafkaClientConfig
from flows.plant_file import PlantYaml
from flows.plant_kafka import check_brokers, check_login, is_known, topic_problem
from operators.document import Node, Problems, nearest
from operators.spec import HOUR

LEAST: Final = 16_000_000  # bytes
KAFKA_KEYS: Final = (
    *(one.encode_name for one in msgspec.structs.fields(KafkaClientConfig)),
    *("topic", "replication", "retention", "compression", "shards_here", "sources_here"),
)


def check_journal(node: Node, plant: PlantYaml, problems: Problems) -> None:
    """All checks of `journal`; node: of plant.yaml."""
    config = plant.journal
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
    _check_here(journal, plant, problems)
    check_brokers(journal, config, problems)
    check_login(journal, config, problems, "frames")


def _check_here(journal: Node, plant: PlantYaml, problems: Problems) -> None:
    """What this machine runs is there to be run; told even where it comes from the environment."""
    place = journal.get("shards_here")
    if place is not None:
        try:
            shards_here(plant.journal, plant.shards.count)
        except ValueError as error:
            problems.add(place, str(error))
    place = journal.get("sources_here")
    unknown = (sources_here(plant.journal) or set()) - set(plant.sources)
    if place is not None and "${" not in plant.journal.sources_here:
        for name in sorted(unknown):
            problems.add(place, f"no source '{name[:60]}'{nearest(name, list(plant.sources))}")
