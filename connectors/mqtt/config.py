"""Keys of a source of kind mqtt."""

from __future__ import annotations

from typing import Literal

import msgspec

from operators.spec import SECOND, Duration, Size


class MqttConfig(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="mqtt"):
    """An MQTT broker and what to subscribe to."""

    host: str
    port: int = 1883
    subscribe: list[str]
    qos: Literal[0, 1] = 1
    protocol: Literal["3.1.1", "5"] = "3.1.1"
    client_id: str | None = None  # default: penstock-{plant}-{source}; names the broker's session
    username: str | None = None
    password: str | None = None
    tls: bool = False
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    keep_alive: Duration = 30 * SECOND
    session_expiry: Duration = 7 * 86400 * SECOND
    max_inflight: int = 2000  # unacknowledged messages in hand
    max_payload: Size = 1_000_000
    silent_after: Duration = 60 * SECOND  # connected but no message for so long: shown as silent
    topic: str | None = None  # template that names the parts of the topic
    device: str = "topic"
    product: str | None = None
    max_frame: Size = 1_000_000
