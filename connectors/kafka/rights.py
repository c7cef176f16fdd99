"""Which rights a user lacks, where brokers have access lists: asked, never tried.

A topic's rights are told by the brokers (`authorized_operations`); whether a topic might be made is told
by asking for it to be made, for validation only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # it names them without exporting
    AclOperation,
    AdminClient,
    NewTopic,
)

from connectors.errors import AuthError
from connectors.kafka.client import made_client
from connectors.kafka.config import KafkaClientConfig
from connectors.kafka.topics import ANSWER_S, MAY_NOT

READS: Final = (AclOperation.READ,)
BOTH: Final = (AclOperation.READ, AclOperation.WRITE)  # each holds DESCRIBE


def check_rights(
    settings: Mapping[str, Any],
    config: KafkaClientConfig,
    where: str,
    wanted: Mapping[str, Sequence[Any]],
    made: Iterable[NewTopic] = (),
) -> None:
    """Raises `AuthError` that names what is lacking: of topics by what is wanted of them, of those that are
    to be made also CREATE. Where brokers do not say, nothing is lacking. where: the path of the client in
    plant.yaml."""
    admin = made_client(AdminClient, settings, where)
    lacking: dict[str, list[Any]] = {}
    if wanted:
        names = TopicCollection(sorted(wanted))
        asked = admin.describe_topics(names, include_authorized_operations=True, request_timeout=ANSWER_S)
        for name, future in asked.items():
            lacking[name] = _lacking(future, wanted[name])
    topics = list(made)
    if topics:
        for name, future in admin.create_topics(topics, validate_only=True, request_timeout=ANSWER_S).items():
            if _code(future) in MAY_NOT:
                lacking.setdefault(name, []).append(AclOperation.CREATE)
    told_of = [_words(name, rights, config) for name, rights in lacking.items() if rights]
    if told_of:
        raise AuthError("; ".join(told_of))


def _lacking(future: Any, wanted: Sequence[Any]) -> list[Any]:
    try:
        permitted = future.result(2 * ANSWER_S).authorized_operations
    except KafkaException as error:
        return list(wanted) if error.args[0].code() in MAY_NOT else []
    return [one for one in wanted if one not in permitted] if permitted else []


def _code(future: Any) -> int | None:
    try:
        future.result(2 * ANSWER_S)
    except KafkaException as error:
        return int(error.args[0].code())
    return None


def _words(topic: str, rights: Sequence[Any], config: KafkaClientConfig) -> str:
    who = f"{config.username} " if config.username else ""
    principal = f"User:{config.username or 'NAME'}"
    operations = " ".join(f"--operation {one.name.capitalize()}" for one in rights)
    return (
        f"the brokers do not permit {who}{' and '.join(one.name for one in rights)} of the topic {topic};"
        f" permit it with kafka-acls --add --allow-principal {principal} --topic {topic} {operations}"
    )
