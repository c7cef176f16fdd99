"""Metrics of a Sparkplug payload as typed values (Sparkplug 3.0, section 6.4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from google.protobuf.message import DecodeError

from connectors.mqtt.sparkplug.sparkplug_b_pb2 import DataType, Payload
from operators.batch import BAD, GOOD, UNCERTAIN

Value = float | str | bool | None
Metric = Payload.Metric

LAST_MS: Final = (1 << 63) // 10**6 - 1  # what nanoseconds in 64 bits can say
PLAIN: Final = frozenset(range(int(DataType.Int8), int(DataType.UUID) + 1))
"""Types of one number, boolean or text."""
BOOLEAN: Final = int(DataType.Boolean)  # the library looks a name up at every use
BD_SEQ: Final = "bdSeq"
REBIRTH: Final = "Node Control/Rebirth"
_COMMANDS: Final = ("Node Control/", "Device Control/")
_SIGNED: Final[Mapping[int, int]] = {
    DataType.Int8: 8,
    DataType.Int16: 16,
    DataType.Int32: 32,
    DataType.Int64: 64,
}
_UNSIGNED: Final[Mapping[int, int]] = {DataType.UInt8: 8, DataType.UInt16: 16, DataType.UInt32: 32}
SCALARS: Final = frozenset(
    ("int_value", "long_value", "float_value", "double_value", "boolean_value", "string_value")
)
NOT_TAKEN: Final = frozenset(
    (int(DataType.Bytes), int(DataType.File), int(DataType.PropertySet), int(DataType.PropertySetList))
)
"""Types whose values are no numbers, booleans or texts, and not made of them."""
_FLOATING: Final = ("float_value", "double_value")
_PACKED: Final[Mapping[int, str]] = {
    **{getattr(DataType, f"Int{bits}Array"): f"<i{bits // 8}" for bits in (8, 16, 32, 64)},
    **{getattr(DataType, f"UInt{bits}Array"): f"<u{bits // 8}" for bits in (8, 16, 32, 64)},
    **{DataType.FloatArray: "<f4", DataType.DoubleArray: "<f8", DataType.DateTimeArray: "<i8"},
}
ELEMENTS: Final[Mapping[int, int]] = {
    int(kind): int(DataType.Value(DataType.Name(kind).removesuffix("Array")))
    for kind in (*_PACKED, DataType.BooleanArray, DataType.StringArray)
}
"""Types of arrays -> those of their elements."""


class UnreadableError(ValueError):
    """Bytes that are no Sparkplug payload."""


class TooLargeError(UnreadableError):
    """More than a source takes."""


class SkippedError(ValueError):
    """A value that is no number, boolean or text."""


def read_payload(data: bytes) -> Payload:
    """The payload as it stands. Raises `UnreadableError`."""
    try:
        payload: Payload = Payload.FromString(data)
    except DecodeError as error:
        raise UnreadableError("its bytes are no protobuf") from error
    told = payload.HasField("seq") or payload.HasField("timestamp") or payload.metrics or payload.body
    if data and not told:
        raise UnreadableError("it holds neither metrics nor a sequence number nor a time")
    return payload


def is_protocols_own(name: str) -> bool:
    """Whether a metric of a birth speaks of the session or takes commands, and is no measurement."""
    return name == BD_SEQ or name.startswith(_COMMANDS)


def value_of(holder: Metric | Payload.DataSet.DataSetValue, which: str, datatype: int) -> Value:
    """The value in the field `which` of SCALARS. datatype: as the birth or the message says, 0 for unknown.

    Signed integers arrive as unsigned ones of two's complement and of their own width or a wider
    one. A whole number without a known type whose highest bit is set may be negative or not: it is
    taken as null. A DateTime is milliseconds since 1970. Raises `SkippedError` where the type is none of a
    scalar, `UnreadableError` for a text that is no UTF-8.
    """
    if datatype in NOT_TAKEN:
        raise SkippedError
    raw = getattr(holder, which)
    if which in _FLOATING and datatype != BOOLEAN:
        return float(raw)
    if which == "string_value":
        if raw.__class__ is not str:
            raise UnreadableError("is not valid UTF-8")
        return str(raw)
    if which == "boolean_value" or datatype == BOOLEAN:
        return bool(raw)
    return _whole(int(raw), datatype, 32 if which == "int_value" else 64)


def array_of(data: bytes, datatype: int) -> Sequence[Value]:
    """The elements of an array (section 6.4.17): packed, little-endian; booleans as bits, the first the
    highest, behind how many they are; texts each with a zero behind it. Raises `UnreadableError`."""
    if datatype == DataType.StringArray:
        if data and data[-1]:
            raise UnreadableError("ends within a text")
        try:
            return [text.decode() for text in data.split(b"\0")[:-1]]
        except UnicodeDecodeError as error:
            raise UnreadableError("holds a text that is not valid UTF-8") from error
    if datatype == DataType.BooleanArray:
        count = int.from_bytes(data[:4], "little")
        if len(data) < 4 or len(data) - 4 != (count + 7) // 8:
            raise UnreadableError(f"has {len(data)} bytes, which do not hold its {count} booleans")
        bits = np.unpackbits(np.frombuffer(data, np.uint8, offset=4), count=count)
        return [bool(bit) for bit in bits.tolist()]
    kind = np.dtype(_PACKED[datatype])
    if len(data) % kind.itemsize:
        raise UnreadableError(f"has {len(data)} bytes, no multiple of {kind.itemsize}")
    found: list[Value] = np.frombuffer(data, kind).tolist()
    return found


def _whole(raw: int, datatype: int, width: int) -> int | None:
    if datatype in _SIGNED:
        bits = _SIGNED[datatype]
        low = raw & ((1 << bits) - 1)
        return low - (1 << bits) if low >> (bits - 1) else low
    if datatype in _UNSIGNED:
        return raw & ((1 << _UNSIGNED[datatype]) - 1)
    return raw if datatype or not raw >> (width - 1) else None


def quality_of(metric: Metric) -> int:
    """Its property `Quality`: 192 good, 0 bad, 500 stale (section 6.4.13), other codes as those of OPC
    classic, whose upper bits say good, uncertain or bad. Good where it has none. A stale value is
    bad: nobody vouches for it."""
    if not metric.HasField("properties"):
        return GOOD
    for key, value in zip(metric.properties.keys, metric.properties.values, strict=False):
        if key == "Quality" and not value.is_null:
            code = value.int_value or value.long_value
            return GOOD if 192 <= code < 256 else UNCERTAIN if 64 <= code < 128 else BAD
    return GOOD


def birth_number(payload: Payload) -> int | None:
    """The `bdSeq` of an NBIRTH or NDEATH; None where it has none."""
    for metric in payload.metrics:
        if metric.name == BD_SEQ:
            return int(metric.long_value or metric.int_value)
    return None


def rebirth_command(now_ms: int) -> bytes:
    """The payload of an NCMD that asks an edge node for its births (section 6.4.20)."""
    payload = Payload(timestamp=now_ms)
    payload.metrics.add(name=REBIRTH, timestamp=now_ms, datatype=DataType.Boolean, boolean_value=True)
    return bytes(payload.SerializeToString())
