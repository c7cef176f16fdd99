"""Keys of what speaks to Kafka: those that every client has, and those of `sinks.alarms`."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from operators.spec import Size

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
