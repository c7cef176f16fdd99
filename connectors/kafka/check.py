"""`penstock check --connect` on Kafka: is it there, does it let us in, and is what it takes safe, or there
what is to be read?"""

from __future__ import annotations

from confluent_kafka import KafkaError

from connectors.errors import AuthError, ConnectError
from connectors.kafka.client import client_config, told
from connectors.kafka.config import PARTITIONS, KafkaAlarmsConfig, KafkaConfig
from connectors.kafka.rights import BOTH, READS, check_rights
from connectors.kafka.topics import Topic, Topics, new_topic
from connectors.kafka.watch import Watch, plain_words, quiet


def try_kafka(config: KafkaAlarmsConfig) -> dict[str, str]:
    """By topic, what is there or will be made, and how many brokers may be lost. Changes nothing and makes
    nothing, and begins no transaction: under the plant's name that would fence a drainer that runs.
    Raises `ConnectError`, or `ConfigError` for a topic that `run` would refuse."""
    last: list[ConnectError] = []

    def on_error(error: KafkaError) -> None:
        why = told(error)
        if isinstance(why, AuthError):
            last.insert(0, why)  # says more than that the connection ended
        elif error.code() != KafkaError._ALL_BROKERS_DOWN:
            last.append(ConnectError(f"Kafka: {plain_words(error)}"))

    settings = {**quiet(client_config(config)), "error_cb": on_error}
    try:
        topics = Topics(settings, config).look()
    except ConnectError as error:
        raise next(iter(last), error) from error
    made = [new_topic(config, name) for name, topic in topics.items() if topic is None]
    check_rights(settings, config, "sinks.alarms", dict.fromkeys(topics, BOTH), made)
    return {name: _words(topic, config) for name, topic in topics.items()}


def _words(topic: Topic | None, config: KafkaAlarmsConfig) -> str:
    if topic is None:
        replication = (
            f"replication {config.replication}" if config.replication else "the brokers' replication"
        )
        return f"is not there; run makes it, {config.partitions or PARTITIONS} partitions, {replication}"
    found = f"{topic.partitions} partitions, replication {topic.replication}"
    if not topic.in_sync:
        return f"{found}; its settings may not be read"
    found += f", min.insync.replicas {topic.in_sync}"
    if topic.in_sync == 1:
        # acks=all waits for the replicas that are in sync, and that may be the leader alone
        return f"{found}: acks=all, and yet one lost broker may lose alarms; set min.insync.replicas to 2"
    spare = topic.replication - topic.in_sync
    many = "brokers" if spare != 1 else "broker"
    return f"{found}: acks=all; nothing is lost, and {spare} {many} may be away without a stop"


def try_source(config: KafkaConfig, where: str) -> str:
    """What there is to read; where: the path of the source in plant.yaml. Begins no group and keeps no
    offset. Raises `ConnectError`."""
    settings = quiet(client_config(config, "penstock-check"))
    look = Watch(settings, config, where).look()
    check_rights(settings, config, where, dict.fromkeys([*look.partitions, *look.refused], READS))
    wrong = [f"the topic {name} is not there; it is read once it is made" for name in sorted(look.absent)]
    wrong += [f"{name}: {why}" for name, why in sorted(look.refused.items())]
    for name in sorted(name for name, numbers in look.partitions.items() if not numbers):
        wrong.append(f"the topic {name} has none of these partitions")
    if wrong:
        raise ConnectError("; ".join(wrong))
    if not look.partitions:
        raise ConnectError("no topic is there that fits; what comes is read from its beginning")
    parts = sum(map(len, look.partitions.values()))
    topics = "1 topic" if len(look.partitions) == 1 else f"{len(look.partitions)} topics"
    return f"the brokers accept; {topics}, {parts} partition{'s' if parts != 1 else ''}"
