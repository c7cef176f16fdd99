"""What was heard of a plant: frames in order, the devices that sent them, and which are of a kind.

A device is of a kind with another when they send JSON with mostly the same members, CSV of the same
columns, or binary frames of which a length is the same.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from connectors.errors import ConfigError
from connectors.files.recording import read_recording
from flows.scaffold import leaves, separator_of
from operators.batch import Address

MOST_FRAMES: Final = 100_000
LONGEST_WORD: Final = 200  # of a text that is a value by itself
ALIKE: Final = 0.5  # of the members that two devices of a kind send together, those that both send


class HeardFrame(NamedTuple):
    """A frame as it came in. ingest_ms: milliseconds since 1970; retained: a broker kept it from before."""

    address: Address
    payload: bytes
    ingest_ms: int
    retained: bool = False

    @property
    def header(self) -> str:
        """The line with a CSV file's column names, or ""."""
        return dict(self.address.headers).get("csv", "")


def counted(number: int, what: str) -> str:
    """`1 frame`, `2 frames`."""
    return f"{number} {what}" + "s" * (number != 1)


def system_words(error: OSError) -> str:
    """What a system call failed of, in the system's words alone."""
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return error.strerror or str(error)


@dataclass(slots=True)
class Kind:
    """Devices that send the same. shape: json | csv | binary; frames: theirs of this shape. source, label:
    of topics that are told apart from others of these devices, "" where none are."""

    shape: str
    traits: set[Any]
    devices: list[str] = field(default_factory=list)
    frames: list[HeardFrame] = field(default_factory=list)
    source: str = ""
    label: str = ""


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
    line = text.strip("\r\n")
    if frame.header or (separator_of(text) and line.replace("\t", " ").isprintable()):
        separator = separator_of(text)
        return "csv", {frame.header or (separator, text.count(separator))}
    if line.isprintable() and len(line) <= LONGEST_WORD:  # a topic a value: a row of one cell
        return "csv", {("", 0)}
    return "binary", {(len(payload), frame.address.port)}


def heard_kinds(sent: Iterable[tuple[str, HeardFrame]]) -> list[Kind]:
    """The kinds of devices in what they sent, in the order in which their first devices were heard.
    A device that sends several shapes is of the one that it sends most."""
    devices: dict[str, list[HeardFrame]] = {}
    for device, frame in sent:
        if frame.payload:
            devices.setdefault(device, []).append(frame)
    kinds: list[Kind] = []
    for device, heard in devices.items():
        shape, frames, traits = most_sent(heard)
        kind = next((kind for kind in kinds if kind.shape == shape and _alike(kind, traits)), None)
        if kind is None:
            kinds.append(kind := Kind(shape, set()))
        kind.traits |= traits
        kind.devices.append(device)
        kind.frames += frames
    return kinds


def most_sent(frames: Sequence[HeardFrame]) -> tuple[str, list[HeardFrame], set[Any]]:
    """The shape of most of the frames, those that have it, and what these have in common with others."""
    shapes = [shape_of(frame) for frame in frames]
    most = Counter(shape for shape, _ in shapes).most_common(1)[0][0]
    traits = set().union(*(some for shape, some in shapes if shape == most))
    return most, [frame for frame, (shape, _) in zip(frames, shapes, strict=True) if shape == most], traits


def _alike(kind: Kind, traits: set[Any]) -> bool:
    both = len(kind.traits & traits)
    if kind.shape != "json":
        return both > 0
    return both > 0 and both >= ALIKE * min(len(kind.traits), len(traits))
