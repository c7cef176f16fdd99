"""What topics there are, how far their partitions reach, and whether the brokers answer at all."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from typing import Any, Final, NamedTuple

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # it names them without exporting
    AdminClient,
    OffsetSpec,
)

from connectors.errors import AuthError, ConnectError
from connectors.kafka.client import made_client, told
from connectors.kafka.config import KafkaConfig
from connectors.kafka.progress import Part

ANSWER_S: Final = 5.0
_GONE: Final = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC})
_NO_ID: Final = "AAAAAAAAAAAAAAAAAAAAAA"  # how a zero identifier is written
_PLACE: Final = re.compile(r"\{[A-Za-z_][A-Za-z0-9_]*\}")


class Look(NamedTuple):
    """What the brokers say. partitions: of each topic that is there; identifiers: topic -> the brokers'
    own name for it, another one once it was made anew, "" where they have none; ends: the offset behind
    the last message of a partition; absent: topics that are not there; refused: topic -> why it may not
    be read; specs: topic -> what of the configuration names it."""

    partitions: dict[str, list[int]]
    identifiers: dict[str, str]
    ends: dict[Part, int]
    absent: set[str]
    refused: dict[str, str]
    specs: dict[str, str]


def is_template(topic: str) -> bool:
    """Whether it stands for every topic that fits it."""
    return "{" in topic


def topic_pattern(topic: str) -> re.Pattern[str]:
    """What a template of topics takes: each `{part}` is one character or more."""
    literal = [re.escape(text) for text in _PLACE.split(topic)]
    return re.compile(".+".join(literal))


def topics_of(config: KafkaConfig) -> list[str]:
    """The topics, or templates of them, that a source names."""
    return [config.topics] if isinstance(config.topics, str) else list(config.topics)


class Watch:
    """Asks the brokers; each call blocks for some seconds at most, and raises `ConnectError`. Of any
    thread."""

    def __init__(self, settings: Mapping[str, Any], config: KafkaConfig, where: str) -> None:
        """Raises `ConfigError`; where: the path of the source in plant.yaml."""
        self._admin = made_client(AdminClient, {**settings, "error_cb": self._failed}, where)
        self._specs = topics_of(config)
        self._patterns = {spec: topic_pattern(spec) for spec in self._specs if is_template(spec)}
        self._chosen = None if config.partitions is None else sorted(set(config.partitions))
        committed = config.isolation == "committed"
        self._isolation = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
        self._login: ConnectError | None = None  # says more than the time-out that follows

    def look(self) -> Look:
        """What is there now."""
        try:
            found = self._look()
        except (KafkaException, SystemError, TimeoutError) as error:
            self._admin.poll(0)
            login, self._login = self._login, None
            if login is not None:
                raise login from error
            raise told(error if str(error) else KafkaError(KafkaError._TIMED_OUT)) from error
        self._login = None
        return found

    def offsets(self, parts: Iterable[Part], spec: OffsetSpec) -> dict[Part, int]:
        """Offsets of partitions by `earliest`, `latest` or a time (-1: nothing is as new); those that have
        no leader are left out."""
        asked = {TopicPartition(*part): spec for part in parts}
        if not asked:
            return {}
        found: dict[Part, int] = {}
        answers = self._admin.list_offsets(asked, isolation_level=self._isolation, request_timeout=ANSWER_S)
        for where, future in answers.items():
            try:
                found[Part(where.topic, where.partition)] = int(future.result(ANSWER_S).offset)
            except KafkaException as error:
                if error.args[0].code() == KafkaError._TIMED_OUT:
                    raise told(error) from error
            except TimeoutError as error:
                raise ConnectError("Kafka: no answer") from error
        return found

    def _look(self) -> Look:
        specs = {spec: spec for spec in self._specs if spec not in self._patterns}
        if self._patterns:
            for name in self._admin.list_topics(timeout=ANSWER_S).topics:
                for spec, pattern in self._patterns.items():
                    if not name.startswith("__") and pattern.fullmatch(name):
                        specs.setdefault(name, spec)
        look = Look({}, {}, {}, set(), {}, specs)
        if not specs:
            return look
        answers: dict[str, Future[Any]] = self._admin.describe_topics(
            TopicCollection(sorted(specs)), request_timeout=ANSWER_S
        )
        for name, future in answers.items():
            try:
                topic = future.result(2 * ANSWER_S)
            except KafkaException as error:
                code = error.args[0].code()
                if code in _GONE:
                    look.absent.add(name)
                elif code == KafkaError.TOPIC_AUTHORIZATION_FAILED or code == KafkaError.TOPIC_EXCEPTION:
                    look.refused[name] = str(told(error)).removeprefix("Kafka: ")
                else:
                    raise
                continue
            there = sorted(one.id for one in topic.partitions)
            chosen = there if self._chosen is None else [one for one in there if one in self._chosen]
            look.partitions[name] = chosen
            identifier = str(topic.topic_id or "")
            look.identifiers[name] = "" if identifier == _NO_ID else identifier
        parts = [Part(name, number) for name, numbers in look.partitions.items() for number in numbers]
        look.ends.update(self.offsets(parts, OffsetSpec.latest()))
        return look

    def _failed(self, error: KafkaError) -> None:
        why = told(error)
        if isinstance(why, AuthError):
            self._login = why
