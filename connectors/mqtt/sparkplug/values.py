"""Metrics of a Sparkplug payload as typed values (Sparkplug 3.0, section 6.4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from google.protobuf.message import DecodeError

from connectors.mqtt.sparkplug.sparkplug_b_pb2 import DataType, Payload
from operators.batch import BAD, GOOD, UNCERTAIN

Value = float | str | bool | None
Metric = Payload.Metric

LAST_MS: Final = (1 << 63) // 10**6 - 1  # what nanoseconds in 64 bits can say
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
_NO_SCALARS: Final = ("dataset_value", "template_value", "bytes_value", "extension_value")
_FIRST_ARRAY: Final = int(DataType.Int8Array)
_NOT_SCALAR: Final = {
    *(DataType.DataSet, DataType.Bytes, DataType.File, DataType.Template),
    *(DataType.PropertySet, DataType.PropertySetList),
}
_COMPRESSED: Final = "SPBV1.0_COMPRESSED"  # Tahu's own, outside the specification
_FLOATING: Final = ("float_value", "double_value")


class UnreadableError(ValueError):
    """Bytes that are no Sparkplug payload."""


class SkippedError(ValueError):
    """A value that is no number, boolean or text."""


class Told(NamedTuple):
    """What one metric of a message says. time_ms: its own, 0 for none; alias: None where it has a name
    alone; datatype: 0 where the message does not say it."""

    name: str
    alias: int | None
    datatype: int
    time_ms: int
    historical: bool
    metric: Metric


def read_payload(data: bytes) -> Payload:
    """Raises `UnreadableError`."""
    try:
        payload: Payload = Payload.FromString(data)
    except DecodeError as error:
        raise UnreadableError("its bytes are no protobuf") from error
    if data and not payload.metrics and not payload.HasField("seq") and not payload.HasField("timestamp"):
        raise UnreadableError("it holds neither metrics nor a sequence number nor a time")
    if payload.uuid == _COMPRESSED:
        raise UnreadableError("its body is compressed, which Sparkplug 3.0 does not know")
    return payload


def read_metric(metric: Metric) -> Told:
    """Raises `UnreadableError` for a name that is no text."""
    name = metric.name
    if not isinstance(name, str):  # the library leaves what is no UTF-8 as it came
        raise UnreadableError("the name of a metric is not valid UTF-8")
    return Told(
        name,
        int(metric.alias) if metric.HasField("alias") else None,
        int(metric.datatype),
        min(int(metric.timestamp), LAST_MS),
        bool(metric.is_historical),
        metric,
    )


def is_protocols_own(name: str) -> bool:
    """Whether a metric of a birth speaks of the session or takes commands, and is no measurement."""
    return name == BD_SEQ or name.startswith(_COMMANDS)


def value_of(metric: Metric, datatype: int) -> Value:
    """The value; None for a null. datatype: as the birth or the message says, 0 for unknown.

    Signed integers arrive as unsigned ones of two's complement and of their own width or a wider
    one. A whole number without a known type whose highest bit is set may be negative or not: it is
    taken as null. A DateTime is milliseconds since 1970. Raises `SkippedError` for a DataSet, a
    Template, bytes and arrays, `UnreadableError` for a text that is no UTF-8.
    """
    which = metric.WhichOneof("value")
    if which in _NO_SCALARS or datatype in _NOT_SCALAR or datatype >= _FIRST_ARRAY:
        raise SkippedError
    if which is None or metric.is_null:
        return None
    raw = getattr(metric, which)
    if which == "string_value":
        if not isinstance(raw, str):
            raise UnreadableError(f"the text of metric '{metric.name}' is not valid UTF-8")
        return raw
    if which == "boolean_value" or datatype == DataType.Boolean:
        return bool(raw)
    if which in _FLOATING:
        return float(raw)
    return _whole(int(raw), datatype, 32 if which == "int_value" else 64)


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
