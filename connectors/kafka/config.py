"""Keys of what speaks to Kafka: those that every client has, and those of `sinks.alarms`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final, Literal

import msgspec

from connectors.source import is_reserved
from operators.spec import SECOND, Duration, Size

Protocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
PARTITIONS: Final = 3  # of a topic that is made


class KafkaClientConfig(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """How a client reaches the brokers and logs in. bootstrap: `host:port,...`."""

    bootstrap: str = ""
    security_protocol: Protocol = "PLAINTEXT"
    sasl_mechanism: Mechanism = "SCRAM-SHA-512"
    username: str | None = None
    password: str | None = None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None


class KafkaAlarmsConfig(KafkaClientConfig, forbid_unknown_fields=True, kw_only=True):
    """Where alarm events go. bootstrap: `host:port,...`; "" means no Kafka: JSON lines and the
    historian alone. A topic that is not there is made; `partitions` and `replication`, where they are
    given, are also what a topic that is there must have."""

    kind: Literal["kafka"] = "kafka"
    events: str = "alarm.events"
    state: str = "alarm.state"
    delivery: Literal["idempotent", "transactional"] = "idempotent"
    backlog: Size = 4_000_000_000
    partitions: int | None = None
    replication: int | None = None


class KafkaConfig(KafkaClientConfig, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="kafka"):
    """Topics of a Kafka whose messages are frames.

    topic: names; one that holds `{parts}` stands for every topic that fits it, and is then the template
    of the addresses as well, if there is no other. address: where a frame's address stands. template:
    names the parts of an address. device: also `key`. start: `earliest`, `latest` or a time (ISO 8601),
    for what this data directory has not read of before. partitions: those that are read, of every
    topic; null: all. headers: those that go with a frame; null: all.
    """

    bootstrap: str
    topics: str | list[str] = msgspec.field(name="topic")
    address: str = "topic"
    topic: str | None = msgspec.field(default=None, name="template")  # as other sources have it
    device: str = "topic"
    product: str | None = None
    carries: Literal["frames", "master"] = "frames"  # master: each frame is a change of master data
    start: str = "earliest"
    partitions: list[int] | None = None
    group: str | None = None  # default: penstock-{plant}-{source}; it only shows how far reading is
    key: bool = True  # the message's key goes with the frame, as the header `key`
    headers: list[str] | None = None
    isolation: Literal["committed", "uncommitted"] = "committed"
    silent_after: Duration = 60 * SECOND
    max_frame: Size = 1_000_000

    def __post_init__(self) -> None:
        only = topics_of(self)
        if self.topic is None and self.address == "topic" and len(only) == 1 and is_template(only[0]):
            self.topic = only[0]


def topics_of(config: KafkaConfig) -> list[str]:
    """The topics, or templates of them, that a source names; none where what stands there is wrong."""
    if isinstance(config.topics, str):
        return [config.topics]
    return [topic for topic in config.topics or () if isinstance(topic, str)]


def is_reserved_here(name: str) -> bool:
    """Whether a header of this name never comes from a message; `key` is the message's own."""
    return name.lower() == "key" or is_reserved(name)


def is_template(topic: str) -> bool:
    """Whether it stands for every topic that fits it."""
    return "{" in topic


def start_ms(text: str) -> int:
    """Milliseconds since 1970 of a `start` that is a time; without a zone it is UTC. Raises ValueError."""
    found = datetime.fromisoformat(text)
    return round((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000)
