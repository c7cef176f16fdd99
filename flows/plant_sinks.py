"""Checks of `sinks` in plant.yaml beyond types: topics, brokers, and a login that goes with its protocol."""

from __future__ import annotations

from connectors.kafka.config import KafkaAlarmsConfig
from flows.plant_kafka import check_brokers, check_login, is_known, topic_problem
from operators.document import Node, Problems


def check_sinks(node: Node, alarms: KafkaAlarmsConfig, problems: Problems) -> None:
    """All checks of `sinks.alarms`; node: of plant.yaml."""
    sinks = node.get("sinks")
    below = sinks.get("alarms") if sinks is not None else None
    if below is None or not below.is_map:
        return
    for key, topic in (("events", alarms.events), ("state", alarms.state)):
        place = below.get(key)
        if is_known(place) and (told := topic_problem(topic)) is not None:
            problems.add(place, told)
    if alarms.events == alarms.state and "${" not in alarms.state:
        place = below.get("state") or below.get("events") or below
        problems.add(place, f"both topics are '{alarms.state}'; one of them is compacted, name another")
    for key, count in (("partitions", alarms.partitions), ("replication", alarms.replication)):
        place = below.get(key)
        if is_known(place) and count is not None and not 1 <= count <= 10_000:
            problems.add(place, "a number from 1 to 10000 is expected")
    check_brokers(below, alarms, problems)
    check_login(below, alarms, problems, "alarms")
