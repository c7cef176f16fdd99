"""`penstock check --connect` on the topic whose partitions are journals."""

from __future__ import annotations

from connectors.journal.kafka_config import JournalConfig
from connectors.journal.kafka_topic import CLIENT, WHERE, check_topic, look_topic, new_topic, warnings
from connectors.kafka.client import client_config
from connectors.kafka.rights import BOTH, check_rights
from connectors.kafka.watch import quiet


def try_topic(config: JournalConfig, partitions: int) -> tuple[str, list[str]]:
    """What is there or will be made, and warnings of what may lose input all the same. Changes and makes
    nothing. Raises `ConnectError`, or `ConfigError` for a topic that `run` would refuse."""
    found = look_topic(config)
    made = [new_topic(config, partitions)] if found is None else []
    check_rights(quiet(client_config(config, CLIENT)), config, WHERE, {config.topic: BOTH}, made)
    if found is None:
        replication = (
            f"replication {config.replication}" if config.replication else "the brokers' replication"
        )
        many = "1 partition" if partitions == 1 else f"{partitions} partitions"
        return f"{config.topic} is not there; run makes it, {many}, {replication}", []
    check_topic(found, partitions)
    many = "1 partition" if found.partitions == 1 else f"{found.partitions} partitions"
    words = f"{found.name}: {many}, replication {found.replication}"
    if not found.settings:
        return f"{words}; its settings may not be read", []
    in_sync = found.settings.get("min.insync.replicas")
    return f"{words}, min.insync.replicas {in_sync}", warnings(found)
