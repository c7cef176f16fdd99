"""Addresses of Sparkplug B: `spBv1.0/GROUP/TYPE/NODE[/DEVICE]`, and which device and hub they name."""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

NAMESPACE: Final = "spBv1.0"
PREFIX: Final = NAMESPACE + "/"
STATE: Final = "STATE"
COMMANDS: Final = ("NCMD", "DCMD")
BIRTHS: Final = ("NBIRTH", "DBIRTH")
BIRTHS_AND_DEATHS: Final = (*BIRTHS, "NDEATH", "DDEATH")
PLACE: Final = re.compile(r"\{(\w*)\}")
OF_NODES: Final = ("NBIRTH", "NDATA", "NDEATH", "NCMD")
OF_DEVICES: Final = ("DBIRTH", "DDATA", "DDEATH", "DCMD")


class SparkplugTopic(NamedTuple):
    """An address. device: "" for the edge node itself. With type NDEATH and a device: what the end of
    its edge node says of the device."""

    group: str
    type: str
    node: str
    device: str = ""

    def __str__(self) -> str:
        below = f"/{self.device}" if self.device else ""
        return f"{NAMESPACE}/{self.group}/{self.type}/{self.node}{below}"


class SparkplugNames(NamedTuple):
    """What devices and hubs are called: texts with `{group}`, `{node}`, `{device}`. An edge node is a
    device of its own, with the name of the hub."""

    device_id: str = "{group}.{node}.{device}"
    hub_id: str = "{group}.{node}"

    def of(self, topic: SparkplugTopic) -> tuple[str, str]:
        """Device and hub of an address."""
        hub = _filled(self.hub_id, topic)
        return (_filled(self.device_id, topic) if topic.device else hub), hub

    def address(self, device: str, hub: str, group: str) -> SparkplugTopic | None:
        """An address of data of a device, the other way round; None where there is none. group: where
        the names do not say it. hub: "" where it is not known."""
        if device == hub:
            found = re.fullmatch(_pattern(self.hub_id), hub, re.DOTALL)
            kind, parts = "NDATA", {"device": ""}
        else:
            both = f"{self.device_id}\n{self.hub_id}" if hub else self.device_id
            found = re.fullmatch(_pattern(both), f"{device}\n{hub}" if hub else device, re.DOTALL)
            kind, parts = "DDATA", {}
        if found is None:
            return None
        parts = {"group": group, "node": "node", **parts, **found.groupdict()}
        return split_topic(str(SparkplugTopic(parts["group"], kind, parts["node"], parts.get("device", ""))))


def sparkplug_names(config: Any) -> SparkplugNames | None:
    """Those of a source's configuration; None for a source without Sparkplug."""
    keys = getattr(config, "sparkplug", None)
    return None if keys is None else SparkplugNames(keys.device_id, keys.hub_id)


def split_topic(text: str) -> SparkplugTopic | None:
    """The parts of an address; None for one that is none of Sparkplug's messages."""
    levels = text.split("/")
    if levels[0] != NAMESPACE or not all(levels[1:]):
        return None
    if len(levels) == 4 and levels[2] in OF_NODES:
        return SparkplugTopic(*levels[1:])
    if len(levels) == 5 and levels[2] in (*OF_DEVICES, "NDEATH"):
        return SparkplugTopic(*levels[1:])
    return None


def _filled(text: str, topic: SparkplugTopic) -> str:
    parts = {"group": topic.group, "node": topic.node, "device": topic.device}
    return PLACE.sub(lambda found: parts.get(found[1], found[0]), text)


def _pattern(text: str) -> str:
    """What a text with parts may be when they are filled in; a part is the same wherever it stands."""
    pattern, at = "", 0
    for place in PLACE.finditer(text):
        name = place[1]
        again = f"(?P<{name}>" in pattern
        pattern += re.escape(text[at : place.start()])
        pattern += f"(?P={name})" if again else f"(?P<{name}>[^/\n]+)"
        at = place.end()
    return pattern + re.escape(text[at:])
