"""Keys of `sinks.alarms` of kind kafka."""

from __future__ import annotations

from typing import Literal

import msgspec

from operators.spec import Size


class KafkaAlarmsConfig(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Where alarm events go. bootstrap: `host:port,...`; "" means no Kafka: JSON lines and the
    historian alone. A topic that is not there is made with `partitions`."""

    kind: Literal["kafka"] = "kafka"
    bootstrap: str = ""
    events: str = "alarm.events"
    state: str = "alarm.state"
    delivery: Literal["idempotent"] = "idempotent"
    backlog: Size = 4_000_000_000
    partitions: int = 3
    username: str | None = None  # SASL
    password: str | None = None
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    tls: bool = False
    ca_file: str | None = None
