"""Which devices are of a kind, by their payloads: JSON, MessagePack or CBOR, CSV, bytes.

A device is of a kind with another when they send objects with mostly the same members, CSV of the same
columns, or binary frames of which a length is the same.
"""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import cbor2
import msgspec

from flows.heard import HeardFrame
from flows.scaffold import NUMBER, leaves, separator_of

LONGEST_WORD: Final = 200  # of a text that is a value by itself
LEAST_DIGITS: Final = 8  # of bytes that are written in hexadecimal
PACKED: Final = ("msgpack", "cbor")
OBJECTS: Final = ("json", *PACKED)  # of which members are told apart
ALIKE: Final = 0.5  # of the members that two devices of a kind send together, those that both send
WITH_UNIT: Final = re.compile(r"([-+]?[0-9]+(?:\.[0-9]*)?) ([^\s0-9,;|]{1,8})\Z")
_HEX: Final = re.compile(r"(?:0[xX])?[0-9A-Fa-f]{2}(?:[ :-]?[0-9A-Fa-f]{2})*\Z")


@dataclass(slots=True)
class Kind:
    """Devices that send the same. shape: json | msgpack | cbor | csv | binary; frames: theirs of this shape;
    others: theirs of other shapes, under the same topics. source, label: of topics that are told apart from
    others of these devices, "" where none are."""

    shape: str
    traits: set[Any]
    devices: list[str] = field(default_factory=list)
    frames: list[HeardFrame] = field(default_factory=list)
    source: str = ""
    label: str = ""
    others: list[HeardFrame] = field(default_factory=list)


class Sent(NamedTuple):
    """The shape of most of some frames, those that have it, what these have in common with others of
    their kind, and the frames that have another shape."""

    shape: str
    frames: list[HeardFrame]
    traits: set[Any]
    others: list[HeardFrame]


def heard_kinds(sent: Iterable[tuple[str, HeardFrame]]) -> list[Kind]:
    """The kinds of devices in what they sent, in the order in which their first devices were heard.
    A device that sends several shapes is of the one that it sends most."""
    devices: dict[str, list[HeardFrame]] = {}
    for device, frame in sent:
        if frame.payload:
            devices.setdefault(device, []).append(frame)
    kinds: list[Kind] = []
    for device, heard in devices.items():
        shape, frames, traits, others = most_sent(heard)
        kind = next((kind for kind in kinds if kind.shape == shape and _alike(kind, traits)), None)
        if kind is None:
            kinds.append(kind := Kind(shape, set()))
        kind.traits |= traits
        kind.devices.append(device)
        kind.frames += frames
        kind.others += others
    return kinds


def _alike(kind: Kind, traits: set[Any]) -> bool:
    both = len(kind.traits & traits)
    if kind.shape not in OBJECTS:
        return both > 0
    return both > 0 and both >= ALIKE * min(len(kind.traits), len(traits))


def most_sent(frames: Sequence[HeardFrame]) -> Sent:
    """Of which shape most of the frames are."""
    shapes = [shape_of(frame) for frame in frames]
    most = Counter(shape for shape, _ in shapes).most_common(1)[0][0]
    traits = set().union(*(some for shape, some in shapes if shape == most))
    both = list(zip(frames, shapes, strict=True))
    return Sent(
        most,
        [frame for frame, (shape, _) in both if shape == most],
        traits,
        [frame for frame, (shape, _) in both if shape != most],
    )


def shape_of(frame: HeardFrame) -> tuple[str, set[Any]]:
    """A payload's shape, and what it has in common with others of its kind: the members of JSON,
    MessagePack or CBOR, CSV's header or separator and number of columns, a binary frame's length."""
    payload = frame.payload
    for shape in PACKED:
        body = body_of(payload, shape)
        if isinstance(body, dict) and any(map(str.isidentifier, body)):  # other bytes are that by chance
            return shape, {path for path, _ in leaves(body, ())}
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
        return "csv", {("", _form(line.strip()))}
    return "binary", {(len(payload), frame.address.port)}


def _form(word: str) -> str:
    """What a word is beside a word: the unit behind a number, bytes in hexadecimal."""
    if (found := WITH_UNIT.match(word)) is not None:
        return found[2]
    return "hex" if len(word) >= LEAST_DIGITS and _HEX.match(word) and not NUMBER.match(word) else ""


def body_of(payload: bytes, shape: str) -> Any:
    """What a payload of objects holds, as JSON would have it: byte strings in hexadecimal, names that are
    numbers as digits. None where it is nothing of that shape."""
    try:
        if shape == "json":
            return json.loads(payload)
        if shape == "msgpack":
            is_map = payload[:1] and (0x81 <= payload[0] <= 0x8F or payload[0] in (0xDE, 0xDF))
            return _plain(msgspec.msgpack.decode(payload)) if is_map else None
        if not payload or not 0xA1 <= payload[0] <= 0xBF:  # a map; behind other tags nobody looks
            return None
        file = io.BytesIO(payload)
        body = cbor2.load(file)
        return _plain(body) if file.tell() == len(payload) else None
    except (
        ValueError,
        RecursionError,
        EOFError,
        OverflowError,
        TypeError,
        msgspec.DecodeError,
        cbor2.CBORError,
    ):
        return None


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        if not all(isinstance(key, str | int) for key in value):
            raise ValueError("a key that is neither a text nor a number")
        return {str(key): _plain(below) for key, below in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(below) for below in value]
    if isinstance(value, bytes):
        return value.hex()
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def unwritten(frames: Sequence[HeardFrame]) -> list[HeardFrame] | None:
    """The frames with the bytes that their texts write in hexadecimal; None where some do not, or all may
    as well be numbers."""
    texts = [frame.payload.decode("utf-8", "replace").strip() for frame in frames]
    digits = [re.sub(r"^0[xX]|[ :-]", "", text) if _HEX.match(text) else "" for text in texts]
    if not all(len(one) >= LEAST_DIGITS for one in digits):
        return None
    if not any(re.search("[A-Fa-f]", one) and not NUMBER.match(one) for one in digits):
        return None
    return [frame._replace(payload=bytes.fromhex(one)) for frame, one in zip(frames, digits, strict=True)]
