"""Reading topics of a Kafka for a while, without a group and without an offset kept: what they hold already,
the newest of it, and what comes."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, unquote

import click

from connectors.errors import ConfigError, ConnectError
from flows.heard import MOST_FRAMES, HeardFrame
from flows.heard_rows import json_of, member
from flows.heard_sources import HeardSource, find_rows, naming_member
from flows.scaffold import yaml_text
from operators.batch import Address
from operators.decode.json_spec import parse_path

if TYPE_CHECKING:
    from connectors.kafka.config import KafkaClientConfig

SOURCE: Final = "line1"
BEFORE: Final = 10_000  # messages that are read of what is there already
MOST_BYTES: Final = 200_000_000
MANY: Final = 20  # keys, each of one message, are those of messages and not of devices
_ANSWER_S: Final = 5.0
_SHOWN: Final = 20
_MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


@dataclass(frozen=True, slots=True)
class Topics:
    """Which topics of which brokers. tls: the brokers' certificates have to be good, by the machine's
    authorities or the file that SSL_CERT_FILE names."""

    bootstrap: str
    topics: tuple[str, ...]
    username: str = ""
    password: str = ""
    tls: bool = False
    mechanism: str = "SCRAM-SHA-512"

    def protocol(self) -> str:
        """As `security_protocol` has it."""
        if self.username:
            return "SASL_SSL" if self.tls else "SASL_PLAINTEXT"
        return "SSL" if self.tls else "PLAINTEXT"

    def sources(self, frames: Sequence[HeardFrame]) -> list[HeardSource]:
        """A source for each topic of which something was heard."""
        found = []
        for topic in self.topics:
            heard = [one for one in frames if one.address.topic == topic and one.payload]
            if not heard:
                continue
            name = SOURCE if len(self.topics) == 1 else topic
            source = HeardSource(name, "kafka", topics=[topic], origin=SOURCE, filters=[topic])
            source.device = _device(heard)
            if source.device == "topic":
                source.template = "{device_id}"
                find_rows(source, heard)
            found.append(source)
        return found

    def lines(self, source: HeardSource) -> list[str]:
        """A source in plant.yaml."""
        lines = [
            "    kind: kafka",
            f'    bootstrap: "${{KAFKA:-{self.bootstrap}}}"',
            f"    topic: {yaml_text(source.filters[0])}",
            f"    device: {yaml_text(source.device)}{_WHY.get(source.device, '')}",
        ]
        if self.protocol() != "PLAINTEXT":
            lines.append(f"    security_protocol: {self.protocol()}")
        if self.username:
            lines += [
                f"    sasl_mechanism: {self.mechanism}",
                f"    username: {yaml_text(self.username)}",
                '    password: "${KAFKA_PASSWORD:-}"',
            ]
        if self.tls and "SSL_CERT_FILE" in os.environ:
            lines.append(f"    ca_file: {yaml_text(os.path.abspath(os.environ['SSL_CERT_FILE']))}")
        return lines


_WHY: Final = {
    "key": "                    # the key of a message names its device",
    "topic": "                  # nothing else names one: a device is called as the topic",
}


def _device(frames: Sequence[HeardFrame]) -> str:
    """Where messages name their device, as `device:` has it."""
    keys = [dict(frame.address.headers).get("key", "") for frame in frames]
    named = naming_member(frames)
    if all(key.strip() == key != "" and key.isprintable() for key in keys):
        path = parse_path(named) if named else None
        if path is not None and not isinstance(path, str):
            same = all(
                member(json_of(one.payload), path) == key for one, key in zip(frames, keys, strict=True)
            )
            return "key" if same else f"payload:{named}"
        if len(keys) < MANY or len(set(keys)) < len(keys):
            return "key"
    return f"payload:{named}" if named else "topic"


def topics_at(text: str) -> Topics | None:
    """The topics of `kafka://[user[:password]@]host[:port][,...]/topic[,...]` or `kafkas://...`, the login's
    mechanism as `?mechanism=PLAIN`; a user's password may stand in KAFKA_PASSWORD instead, where no list of
    processes shows it. None where the text is no such address. Raises `ConfigError` for one with a
    mistake."""
    scheme, mark, rest = text.partition("://")
    if scheme not in ("kafka", "kafkas") or not mark:
        return None
    rest, _, query = rest.partition("?")
    head, _, names = rest.partition("/")
    login, _, hosts = head.rpartition("@")
    brokers = [_broker(one) for one in hosts.split(",")]
    chosen = {key: values[-1] for key, values in parse_qs(query).items()}
    mechanism = chosen.pop("mechanism", "SCRAM-SHA-512")
    if chosen or mechanism not in _MECHANISMS:
        raise ConfigError(f"--from: '?{query}': ?mechanism={'|'.join(_MECHANISMS)} is expected")
    user, _, password = login.partition(":")
    password = unquote(password) or (os.environ.get("KAFKA_PASSWORD", "") if user else "")
    topics = tuple(unquote(one) for one in names.split(",") if one)
    return Topics(",".join(brokers), topics, unquote(user), password, scheme == "kafkas", mechanism)


def _broker(text: str) -> str:
    host, _, port = text.rpartition(":") if text.rpartition(":")[2].isdigit() else (text, "", "9092")
    if not host.strip("[]") or not 0 < int(port) < 65_536:
        raise ConfigError(f"--from: '{text}' is no address of a broker; write kafka://HOST:PORT/TOPIC")
    return f"{host}:{port}"


def listen_kafka(topics: Topics, seconds: float) -> list[HeardFrame]:
    """The newest `BEFORE` messages that the topics hold, and what comes within `seconds` or until Ctrl-C; at
    most `MOST_FRAMES` and `MOST_BYTES`, in the order of their time stamps. Raises `ConnectError`, and
    `ConfigError` where a topic is not there."""
    from confluent_kafka import Consumer, KafkaException

    from connectors.kafka.check import try_source
    from connectors.kafka.client import client_config, made_client, told
    from connectors.kafka.config import KafkaConfig
    from connectors.kafka.watch import quiet

    ca_file = os.environ.get("SSL_CERT_FILE") if topics.tls else None
    login: dict[str, Any] = {"username": topics.username, "password": topics.password}
    config = KafkaConfig(
        bootstrap=topics.bootstrap,
        topics=list(topics.topics),
        device="key",
        security_protocol=topics.protocol(),  # type: ignore[arg-type]  # one of them
        sasl_mechanism=topics.mechanism,  # type: ignore[arg-type]
        ca_file=ca_file,
        **(login if topics.username else {}),
    )
    _all_there(config, topics)
    try_source(config, "--from")
    settings = quiet(client_config(config, "penstock-new"))
    more = {"group.id": "penstock-new", "enable.auto.commit": False, "auto.offset.reset": "latest"}
    consumer = made_client(Consumer, {**settings, **more}, "--from")
    try:
        consumer.assign(_starts(consumer, topics))
        return _heard(consumer, config, seconds)
    except (KafkaException, SystemError) as error:
        raise told(error) from error
    finally:
        consumer.close()


def _all_there(config: KafkaClientConfig, topics: Topics) -> None:
    """Raises `ConfigError` that lists what is there, where no topic is named or one is not there."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    from connectors.kafka.client import client_config, made_client
    from connectors.kafka.watch import quiet

    admin = made_client(AdminClient, quiet(client_config(config, "penstock-new")), "--from")
    try:
        there = sorted(name for name in admin.list_topics(timeout=_ANSWER_S).topics if name[:2] != "__")
    except (KafkaException, SystemError):
        if not topics.topics:
            raise ConnectError(f"Kafka {topics.bootstrap} does not answer, or refuses") from None
        return  # what is wrong is told in better words
    missing = [name for name in topics.topics if name not in there]
    if topics.topics and not missing:
        return
    what = f"the topic {missing[0]} is not there" if missing else "the address names no topic"
    shown = ", ".join(there[:_SHOWN]) + ", ..." * (len(there) > _SHOWN)
    raise ConfigError(f"--from: {what}; these are: {shown or 'none'}; write kafka://HOST:PORT/TOPIC")


def _starts(consumer: Any, topics: Topics) -> list[Any]:
    """Where to begin: `BEFORE` messages before the end, over all partitions."""
    from confluent_kafka import TopicPartition

    known = consumer.list_topics(timeout=_ANSWER_S).topics
    parts = [TopicPartition(name, number) for name in topics.topics for number in known[name].partitions]
    starts = []
    for part in parts:
        low, high = consumer.get_watermark_offsets(part, timeout=_ANSWER_S)
        starts.append(TopicPartition(part.topic, part.partition, max(low, high - BEFORE // len(parts))))
    return starts


def _heard(consumer: Any, config: Any, seconds: float) -> list[HeardFrame]:
    from connectors.kafka.rows import Addressing

    addressing = Addressing(config)
    frames: list[HeardFrame] = []
    size = 0
    click.echo(f"listening to {config.bootstrap} for {seconds:g} s; Ctrl-C ends it", err=True)
    until = time.monotonic() + seconds
    try:
        while time.monotonic() < until and len(frames) < MOST_FRAMES and size < MOST_BYTES:
            messages = [one for one in consumer.consume(1000, 0.2) if one.error() is None]
            for message, told in zip(messages, addressing.told(messages), strict=True):
                payload = message.value() or b""
                topic, port, headers = addressing.where(told)
                _, stamp = message.timestamp()
                ms = stamp if stamp > 0 else time.time_ns() // 1_000_000
                frames.append(HeardFrame(Address(SOURCE, topic, port, headers), payload, ms))
                size += len(payload)
    except KeyboardInterrupt:
        click.echo("ended", err=True)
    return sorted(frames[:MOST_FRAMES], key=lambda frame: frame.ingest_ms)
