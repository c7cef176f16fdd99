"""What topics there are, how far their partitions reach, and whether the brokers answer at all."""

from __future__ import annotations

import logging
import re
import socket
import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from confluent_kafka import (
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # it names them without exporting
    AdminClient,
    OffsetSpec,
)

from connectors.errors import AuthError, ConfigError, ConnectError
from connectors.kafka.client import made_client, told
from connectors.kafka.config import KafkaConfig, is_template, topics_of
from connectors.kafka.progress import Part

ANSWER_S: Final = 5.0
POLL_S: Final = 0.02
KEPT_S: Final = 0.05  # a connection that is kept so long is taken for one
_GONE: Final = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC})
_NO_ID: Final = "AAAAAAAAAAAAAAAAAAAAAA"  # how a zero identifier is written
_WHEN: Final = re.compile(r" \(after \d+ms in state [A-Z_]+[^)]*\)")
_WHO: Final = re.compile(r"^(?:\S+/(?:bootstrap|\d+): )+")
_FILES: Final = {"ca": "ca_file", "certificate": "cert_file", "key": "key_file"}
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


def topic_pattern(topic: str) -> re.Pattern[str]:
    """What a template of topics takes: each `{part}` is one character or more."""
    literal = [re.escape(text) for text in _PLACE.split(topic)]
    return re.compile(".+".join(literal))


class Watch:
    """Asks the brokers. A call blocks for some seconds at most, and raises `ConnectError`; after that it
    begins with a new connection, and makes none before it is called again. Of any thread."""

    def __init__(self, settings: Mapping[str, Any], config: KafkaConfig, where: str) -> None:
        """Raises `ConfigError`; where: the path of the source in plant.yaml."""
        self._settings = {
            **settings,
            "error_cb": self._failed,
            "reconnect.backoff.ms": 1000,  # one that is refused is given up, and begun anew by who calls
            "reconnect.backoff.max.ms": 10_000,
        }
        self._where = where
        self._brokers = [one.strip() for one in config.bootstrap.split(",")]
        for key in ("ca", "certificate", "key"):
            _readable(settings.get(f"ssl.{key}.location"), f"{where}.{_FILES[key]}")
        alone = {key: value for key, value in self._settings.items() if key != "bootstrap.servers"}
        made_client(AdminClient, alone, where)  # whether the settings hold, before anyone is asked
        self._admin: Any = None
        self._specs = topics_of(config)
        self._patterns = {spec: topic_pattern(spec) for spec in self._specs if is_template(spec)}
        self._chosen = None if config.partitions is None else sorted(set(config.partitions))
        committed = config.isolation == "committed"
        self._isolation = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
        self._turn = threading.RLock()
        self._down = False
        self._why = ""  # what a connection failed of says more than what waits for it
        self._login: ConnectError | None = None

    def look(self) -> Look:
        """What is there now."""
        with self._turn:
            self._down, self._why, self._login = False, "", None
            if self._admin is None:
                self._knock()
                self._admin = made_client(AdminClient, self._settings, self._where)
            try:
                return self._look()
            except (KafkaException, SystemError) as error:
                self._admin.poll(0)
                code = error.args[0].code() if isinstance(error, KafkaException) else None
                late = ConnectError(f"Kafka: no answer within {ANSWER_S:.0f} s")
                raise self._told(late if code == KafkaError._TIMED_OUT else told(error)) from error
            except ConnectError as error:
                raise self._told(error) from error

    def offsets(self, parts: Iterable[Part], spec: OffsetSpec) -> dict[Part, int]:
        """Offsets of partitions by `earliest`, `latest` or a time (-1: nothing is as new); those that have
        no leader are left out."""
        asked = {TopicPartition(*part): spec for part in parts}
        if not asked:
            return {}
        with self._turn:
            if self._admin is None:
                raise ConnectError("Kafka: no broker is reached")
            return self._offsets(asked)

    def _offsets(self, asked: Mapping[TopicPartition, OffsetSpec]) -> dict[Part, int]:
        found: dict[Part, int] = {}
        answers = self._admin.list_offsets(asked, isolation_level=self._isolation, request_timeout=ANSWER_S)
        self._wait(answers.values())
        for where, future in answers.items():
            try:
                found[Part(where.topic, where.partition)] = int(future.result(0).offset)
            except KafkaException as error:
                if error.args[0].code() == KafkaError._TIMED_OUT:
                    raise told(error) from error
        return found

    def tell_group(self, group: str, offsets: Mapping[Part, int]) -> None:
        """Keep a group's offsets at the brokers. (A consumer that has this to do cannot be closed while no
        broker answers.)"""
        parts = [TopicPartition(part.topic, part.partition, at) for part, at in offsets.items()]
        with self._turn:
            if self._admin is None:
                return
            asked = self._admin.alter_consumer_group_offsets(
                [ConsumerGroupTopicPartitions(group, parts)], request_timeout=ANSWER_S
            )
            self._wait(asked.values())
        for future in asked.values():
            try:
                future.result(0)
            except KafkaException as error:
                raise told(error) from error

    def close(self) -> None:
        """Let go of the connection, once nobody asks any more."""
        with self._turn:
            self._admin = None

    def _look(self) -> Look:
        specs = {spec: spec for spec in self._specs if spec not in self._patterns}
        if self._patterns:
            self._wait([self._admin.describe_cluster(request_timeout=ANSWER_S)])
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
        self._wait(answers.values())
        for name, future in answers.items():
            try:
                topic = future.result(0)
            except KafkaException as error:
                code = error.args[0].code()
                if code in _GONE:
                    look.absent.add(name)
                elif code < 0:  # of the client: it was not answered
                    raise
                else:
                    look.refused[name] = str(told(error)).removeprefix("Kafka: ")
                continue
            there = sorted(one.id for one in topic.partitions)
            chosen = there if self._chosen is None else [one for one in there if one in self._chosen]
            look.partitions[name] = chosen
            identifier = str(topic.topic_id or "")
            look.identifiers[name] = "" if identifier == _NO_ID else identifier
        parts = [Part(name, number) for name, numbers in look.partitions.items() for number in numbers]
        look.ends.update(self.offsets(parts, OffsetSpec.latest()))
        return look

    def _knock(self) -> None:
        """Whether any broker takes a connection and keeps it. The client itself would try again and again;
        so nothing but this is tried, once, until who calls calls again."""
        why = ""
        for broker in self._brokers:
            host, _, port = broker.rpartition(":")
            try:
                address = host.strip("[]") or "127.0.0.1", int(port)
                door = socket.create_connection(address, ANSWER_S / len(self._brokers))
            except TimeoutError:
                why = f"no answer within {ANSWER_S:.0f} s"
                continue
            except OSError as error:
                why = error.strerror or str(error)
                continue
            with door, suppress(OSError):
                door.settimeout(KEPT_S)
                try:
                    door.recv(1)
                except TimeoutError:  # it waits for us to speak first
                    return
            why = "connections are ended at once"
        raise ConnectError(f"Kafka: {why}")

    def _wait(self, futures: Iterable[Future[Any]]) -> None:
        """Until all are answered, or no broker is reached. Errors of answers stay in them."""
        until = time.monotonic() + ANSWER_S
        while not all(future.done() for future in futures):
            self._admin.poll(POLL_S)  # calls `_failed`
            if self._down or self._login is not None:
                raise ConnectError("Kafka: no broker is reached")
            if time.monotonic() > until:
                raise ConnectError(f"Kafka: no answer within {ANSWER_S:.0f} s")

    def _told(self, error: ConnectError) -> ConnectError:
        """The same in the words of what failed; what was asked is over."""
        self._admin = None
        if self._login is not None:
            return self._login
        return ConnectError(f"Kafka: {self._why}") if self._why else error

    def _failed(self, error: KafkaError) -> None:
        why = told(error)
        if isinstance(why, AuthError):
            self._login = why
        elif error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._down = True
        else:
            self._why = plain_words(error)


def plain_words(error: KafkaError) -> str:
    """What failed, without which connection it was and in what state."""
    text = _WHO.sub("", _WHEN.sub("", error.str()))
    return "what answers is no Kafka broker" if text.startswith("Receive failed: Invalid response") else text


def _readable(path: str | None, where: str) -> None:
    if path is None or path == "probe":  # the system's authorities
        return
    try:
        Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{where}: {path}: {error.strerror}") from error


def quiet(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The same settings for a client that logs nothing by itself: at a broker that is away it would,
    at every attempt."""
    logger = logging.getLogger("penstock.kafka.quiet")
    logger.propagate = False
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    return {**settings, "logger": logger}
