"""Keys of a source of kind mqtt."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

import msgspec

from connectors.tls import in_folder
from operators.sparkplug import PREFIX
from operators.spec import SECOND, Duration, Size

_MESSAGES: Final = ("NBIRTH/+", "NDATA/+", "NDEATH/+", "DBIRTH/+/+", "DDATA/+/+", "DDEATH/+/+")


class SparkplugConfig(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What is heard of Sparkplug B's edge nodes, and said to them."""

    groups: Literal["all"] | list[str] = "all"
    device_id: str = "{group}.{node}.{device}"  # what a device is called in the plant
    hub_id: str = "{group}.{node}"  # what an edge node is called, as a hub and as a device of its own
    host_id: str | None = None  # as which host application STATE tells of us; none: it does not
    rebirth: bool = True  # ask for births when something is missing
    reorder: Duration = 2 * SECOND  # a message that is passed over may come so much later
    online: str | None = None  # a boolean metric of every device: born, not dead


class MqttConfig(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="mqtt"):
    """An MQTT broker and what to subscribe to."""

    host: str
    port: int = 1883
    subscribe: list[str] = []
    sparkplug: SparkplugConfig | None = None
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
    carries: Literal["frames", "master"] = "frames"  # master: each frame is a change of master data
    max_frame: Size = 1_000_000


def in_plant(config: MqttConfig, folder: Path) -> MqttConfig:
    """The same source with its TLS files as this process can open them. folder: the plant's."""
    files = {key: in_folder(folder, getattr(config, key)) for key in ("ca_file", "cert_file", "key_file")}
    return msgspec.structs.replace(config, **files)


def subscriptions(config: MqttConfig) -> list[str]:
    """The topic filters of a source. Of Sparkplug the messages of edge nodes: no commands, its own among
    them."""
    found = list(config.subscribe)
    if config.sparkplug is not None:
        groups = ["+"] if config.sparkplug.groups == "all" else config.sparkplug.groups
        found += [f"{PREFIX}{group}/{kind}" for group in groups for kind in _MESSAGES]
    return found
