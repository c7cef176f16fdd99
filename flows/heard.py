"""What was heard of a plant: frames in order, the devices that sent them, and which are of a kind.

A device is of a kind with another when they send JSON with mostly the same members, CSV of the same
columns, or binary frames of which a length is the same.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from connectors.errors import ConfigError
from connectors.files.recording import read_recording
from flows.scaffold import NUMBER, leaves, separator_of
from operators.batch import Address
from operators.decode.routing import DEFAULT_TEMPLATE, Template

MOST_FRAMES: Final = 100_000
ALIKE: Final = 0.5  # of the members that two devices of a kind send together, those that both send
_ROLES: Final = frozenset(
    {
        *("data", "event", "events", "json", "measurement", "measurements", "metrics", "out", "pub", "raw"),
        *("reading", "readings", "sensor", "sensors", "state", "status", "tele", "telemetry", "up", "uplink"),
        *("value", "values"),
    }
)
_DEVICE_KEYS: Final = ("device_id", "deviceId", "device", "deviceName", "dev_eui", "devEUI", "serial")


class HeardFrame(NamedTuple):
    """A frame as it came in. ingest_ms: milliseconds since 1970."""

    address: Address
    payload: bytes
    ingest_ms: int

    @property
    def header(self) -> str:
        """The line with a CSV file's column names, or ""."""
        return dict(self.address.headers).get("csv", "")


def counted(number: int, what: str) -> str:
    """`1 frame`, `2 frames`."""
    return f"{number} {what}" + "s" * (number != 1)


@dataclass(slots=True)
class HeardSource:
    """How the addresses of a source name devices. kind: mqtt | tcp | files; template: of its topics,
    "" = that of FORMATS section 1; device: the source's `device:`, "" = its kind's own."""

    name: str
    kind: str
    template: str = ""
    device: str = ""
    topics: list[str] = field(default_factory=list)

    def device_of(self, frame: HeardFrame) -> str | None:
        """The device that sent a frame; None where it is no telemetry of a device."""
        topic = frame.address.topic
        if self.device.startswith("payload:"):
            named = _member(frame.payload, self.device.partition(":")[2])
            return named if isinstance(named, str) and named else None
        if self.device == "peer":
            return topic
        if self.kind == "files":
            return re.sub(r"\.[^./]*\Z", "", topic.rpartition("/")[2])
        parts = Template(self.template or DEFAULT_TEMPLATE).parts(topic)
        if parts is None or parts.get("direction") == "sub":
            return None
        return parts["device_id"] if parts.get("role", "telemetry") == "telemetry" else None


@dataclass(slots=True)
class Kind:
    """Devices that send the same. shape: json | csv | binary; frames: theirs of this shape."""

    shape: str
    traits: set[Any]
    devices: list[str] = field(default_factory=list)
    frames: list[HeardFrame] = field(default_factory=list)


def recorded_frames(path: Path) -> list[HeardFrame]:
    """The first frames of recorded input, `MOST_FRAMES` at most; raises `ConfigError` for a bad line,
    and where there is no frame."""
    found: list[HeardFrame] = []
    for item in read_recording([path]):
        batch = item.frames
        body = batch.payload.tobytes()
        for offset, length, address, ingest in zip(
            batch.offset.tolist(),
            batch.length.tolist(),
            batch.address.tolist(),
            batch.ingest_ns.tolist(),
            strict=True,
        ):
            payload = body[offset : offset + length]
            found.append(HeardFrame(batch.addresses[address], payload, ingest // 1_000_000))
        if len(found) >= MOST_FRAMES:
            break
    if not found:
        raise ConfigError(f"{path}: no frame is in it")
    return found[:MOST_FRAMES]


def write_frames(path: Path, frames: Iterable[HeardFrame]) -> None:
    """Frames as recorded input."""
    with path.open("w", encoding="utf-8") as file:
        for frame in frames:
            address = frame.address
            line: dict[str, Any] = {
                "ingest_ts": frame.ingest_ms,
                "source": address.source,
                "topic": address.topic,
            }
            if address.port >= 0:
                line["port"] = address.port
            if address.headers:
                line["headers"] = list(address.headers)  # a name may stand twice
            try:
                line["payload"] = frame.payload.decode()
            except UnicodeDecodeError:
                line["payload_hex"] = frame.payload.hex()
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def heard_sources(frames: Sequence[HeardFrame]) -> list[HeardSource]:
    """The sources of frames, in the order in which they were heard."""
    by_name: dict[str, list[HeardFrame]] = {}
    for frame in frames:
        by_name.setdefault(frame.address.source, []).append(frame)
    return [_source(name, heard) for name, heard in by_name.items()]


def _source(name: str, frames: Sequence[HeardFrame]) -> HeardSource:
    topics = list(dict.fromkeys(frame.address.topic for frame in frames))
    if any(frame.header for frame in frames):
        return HeardSource(name, "files", topics=topics)
    if any("peer" in dict(frame.address.headers) for frame in frames):
        return HeardSource(name, "tcp", device="peer", topics=topics)
    default = Template(DEFAULT_TEMPLATE)
    if all(default.parts(topic) is not None for topic in topics):
        return HeardSource(name, "mqtt", topics=topics)
    if len(topics) == 1 and (key := _naming_member(frames)):
        return HeardSource(name, "mqtt", device=f"payload:{key}", topics=topics)
    return HeardSource(name, "mqtt", _template(topics), topics=topics)


def _naming_member(frames: Sequence[HeardFrame]) -> str:
    """The member of every payload that names its device; "" where none does."""
    for key in _DEVICE_KEYS:
        if all(isinstance(named := _member(frame.payload, key), str) and named for frame in frames):
            return key
    return ""


def _member(payload: bytes, key: str) -> Any:
    try:
        body = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    return body.get(key) if isinstance(body, dict) else None


def _template(topics: Sequence[str]) -> str:
    """A template of topics: the level that most looks like a device's name is {device_id}."""
    rows = [topic.split("/") for topic in topics]
    shortest = min(map(len, rows))
    columns = [list(dict.fromkeys(row[at] for row in rows)) for at in range(shortest)]

    def likely(at: int) -> tuple[bool, int, int, int]:
        told = [one for one in columns[at] if one.lower() not in _ROLES and one]
        return bool(told), sum(any(map(str.isdigit, one)) for one in told), len(told), at

    best = max(range(shortest), key=likely)
    levels = [
        "{device_id}" if at == best else (values[0] if len(values) == 1 and is_literal(values[0]) else "+")
        for at, values in enumerate(columns)
    ]
    return "/".join(levels + ["#"] * any(len(row) > shortest for row in rows))


def is_literal(level: str) -> bool:
    """Whether a level of a topic stands for itself in a template and in plant.yaml."""
    return bool(level) and not re.search(r"[{}+#$]", level) and level.isprintable()


def shape_of(frame: HeardFrame) -> tuple[str, set[Any]]:
    """A payload's shape, and what it has in common with others of its kind: JSON's members, CSV's header
    or separator and number of columns, a binary frame's length."""
    payload = frame.payload
    try:
        text = payload.decode("utf-8")
    except UnicodeDecodeError:
        return "binary", {(len(payload), frame.address.port)}
    if text.lstrip()[:1] in ("{", "["):
        try:
            return "json", {path for path, _ in leaves(json.loads(text), ())}
        except (ValueError, RecursionError):
            return "binary", {(len(payload), frame.address.port)}
    separator = separator_of(text)
    if frame.header or (separator and text.replace("\t", " ").strip("\r\n").isprintable()):
        return "csv", {frame.header or (separator, text.count(separator))}
    if NUMBER.match(text.strip()):  # a topic a value: a row of one cell
        return "csv", {("", 0)}
    return "binary", {(len(payload), frame.address.port)}


def heard_kinds(sent: Iterable[tuple[str, HeardFrame]]) -> list[Kind]:
    """The kinds of devices in what they sent, in the order in which their first devices were heard.
    A device that sends several shapes is of the one that it sends most."""
    devices: dict[str, list[tuple[HeardFrame, str, set[Any]]]] = {}
    for device, frame in sent:
        if frame.payload:
            devices.setdefault(device, []).append((frame, *shape_of(frame)))
    kinds: list[Kind] = []
    for device, heard in devices.items():
        shape = Counter(shape for _, shape, _ in heard).most_common(1)[0][0]
        traits = set().union(*(some for _, one, some in heard if one == shape))
        kind = next((kind for kind in kinds if kind.shape == shape and _alike(kind, traits)), None)
        if kind is None:
            kinds.append(kind := Kind(shape, set()))
        kind.traits |= traits
        kind.devices.append(device)
        kind.frames += [frame for frame, one, _ in heard if one == shape]
    return kinds


def _alike(kind: Kind, traits: set[Any]) -> bool:
    both = len(kind.traits & traits)
    if kind.shape != "json":
        return both > 0
    return both > 0 and both >= ALIKE * min(len(kind.traits), len(traits))


def of_sources(
    frames: Iterable[HeardFrame], sources: Iterable[HeardSource]
) -> Iterator[tuple[str, HeardFrame]]:
    """Each frame that is a device's telemetry, with the device: one whose name devices.csv can hold."""
    named = {source.name: source for source in sources}
    for frame in frames:
        device = named[frame.address.source].device_of(frame)
        if device and device == device.strip() and device.isprintable():
            yield device, frame
