"""A source of what was heard: how its addresses and payloads name devices, and which frames it takes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

from flows.heard import HeardFrame
from flows.heard_rows import DEVICE_NAMES, LIKELY_NAMES, Path, Rows, json_of, member, rows_of, word
from flows.scaffold import leaves
from operators.decode.json_spec import parse_path, path_text
from operators.decode.routing import DEFAULT_TEMPLATE, Template


@dataclass(slots=True)
class HeardSource:
    """How the addresses of a source name devices. origin: the name under which it was heard; kind: mqtt |
    tcp | files | kafka; template: of its topics, "" = that of FORMATS section 1; device: the source's
    `device:`, "" = its kind's own; filters: of topics, none two sources take alike; label: what its topics
    say, where its devices send other things under other topics, so that it has a product of its own. mixed:
    it takes topics of several meanings, for want of sources. rows: its frames hold readings of several
    devices."""

    name: str
    kind: str
    template: str = ""
    device: str = ""
    topics: list[str] = field(default_factory=list)
    origin: str = ""
    filters: list[str] = field(default_factory=list)
    label: str = ""
    mixed: bool = False
    rows: Rows | None = None

    def devices_of(self, frame: HeardFrame) -> list[str]:
        """The devices whose readings a frame holds."""
        if self.rows is None:
            device = self.device_of(frame)
            return [device] if device else []
        elements = self.rows.elements(json_of(frame.payload))
        return list(dict.fromkeys(str(one.get(self.rows.device, "")) for one in elements))

    def device_of(self, frame: HeardFrame) -> str | None:
        """The device that sent a frame; None where it is no telemetry of a device."""
        topic = frame.address.topic
        if self.device.startswith("payload:"):
            named = member_of(frame.payload, path_of(self.device.partition(":")[2]))
            return named if isinstance(named, str) and named else None
        if self.device == "peer":
            return topic
        if self.device == "key":
            return dict(frame.address.headers).get("key")
        if self.kind == "files":
            return re.sub(r"\.[^./]*\Z", "", topic.rpartition("/")[2])
        parts = compiled(self.template or DEFAULT_TEMPLATE).parts(topic)
        if parts is None or parts.get("direction") == "sub":
            return None
        return parts["device_id"] if parts.get("role", "telemetry") == "telemetry" else None


compiled: Final = cache(Template)
path_of: Final = cache(parse_path)


def taken(frames: Iterable[HeardFrame], sources: Iterable[HeardSource]) -> list[HeardFrame]:
    """The frames that a source takes, each under that source's name."""
    takers = {(source.origin, topic): source for source in sources for topic in source.topics}
    found = []
    for frame in frames:
        source = takers.get((frame.address.source, frame.address.topic))
        if source is not None:
            found.append(frame._replace(address=frame.address._replace(source=source.name)))
    return found


def of_sources(
    frames: Iterable[HeardFrame], sources: Iterable[HeardSource]
) -> Iterator[tuple[str, HeardFrame]]:
    """Each of the frames that sources have `taken` that is a device's telemetry, with the device: one whose
    name devices.csv can hold."""
    by_name = {source.name: source for source in sources}
    for frame in frames:
        source = by_name.get(frame.address.source)
        for device in source.devices_of(frame) if source is not None else ():
            if device and device == device.strip() and device.isprintable():
                yield device, frame


def find_rows(source: HeardSource, frames: Sequence[HeardFrame]) -> None:
    """Whether each reading of a source's frames names its device."""
    topics = set(source.topics)
    sent = [frame for frame in frames if frame.payload and frame.address.topic in topics]
    rows = rows_of([json_of(frame.payload) for frame in sent])
    if rows is None or not rows.device or source.device not in ("", "peer", "topic"):
        return
    named = {str(one[rows.device]) for frame in sent for one in rows.elements(json_of(frame.payload))}
    if len(named) > 1:
        source.rows = rows
        source.label = source.label or clean(source.name.removeprefix(f"{source.origin}-"))


def naming_member(frames: Sequence[HeardFrame]) -> str:
    """The member of every payload that names its device, as a path; "" where none does."""
    bodies = [json_of(frame.payload) for frame in frames]
    if not bodies or not all(isinstance(body, dict) for body in bodies):
        return ""
    paths = [path for path, _ in leaves(bodies[0], ()) if len(path) <= 3 and not any_place(path)]
    for words in (DEVICE_NAMES, LIKELY_NAMES):
        for path in sorted(paths, key=len):
            names = [member(body, path) for body in bodies] if word(path[-1]) in words else []
            if not names or not all(isinstance(one, str) and one.strip() == one != "" for one in names):
                continue
            if words is DEVICE_NAMES or 2 * len(set(names)) <= len(names):  # an id may be that of a message
                return path_text(path)
    return ""


def any_place(path: Path) -> bool:
    """Whether a place of an array is in a path."""
    return any(isinstance(part, int) for part in path)


def member_of(payload: bytes, path: Path | str) -> Any:
    return None if isinstance(path, str) else member(json_of(payload), path)


def clean(text: str) -> str:
    """A text of topics as a part of a name."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-._")[:40]
