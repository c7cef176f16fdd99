"""The record of one device in the state store: written by the output log, read by the server.

Key: the device_id in UTF-8. Value: msgpack of `DeviceState`.
"""

from __future__ import annotations

import math

import msgspec

from operators.batch import QUALITY_NAMES

Value = float | int | bool | str | None


class MetricState(msgspec.Struct, array_like=True, frozen=True):
    """The newest in-order reading that carried a metric. value: None = null or unknown."""

    value: Value
    quality: int  # GOOD, UNCERTAIN or BAD of operators.batch
    time_ns: int
    position: int

    @property
    def quality_name(self) -> str:
        return QUALITY_NAMES[self.quality]


class WindowState(msgspec.Struct, array_like=True, frozen=True):
    """One aggregate of one metric in the last closed window."""

    value: float | None
    start_ns: int
    revision: int


class DeviceState(msgspec.Struct, frozen=True):
    """What is known of one device.

    windows: window -> metric -> aggregate, of the windows that the product's `aas:` refers to.
    alarms: ruleIds whose alarm is active, sorted.
    """

    device_id: str
    productId: str
    metrics: dict[str, MetricState]
    windows: dict[str, dict[str, dict[str, WindowState]]]
    alarms: list[str]


def device_key(device_id: str) -> bytes:
    """The key of a device's record."""
    return device_id.encode("utf-8", "surrogatepass")


def write_device(state: DeviceState) -> bytes:
    """The record's bytes."""
    return _ENCODER.encode(state)


def read_device(data: bytes) -> DeviceState:
    """The record of `write_device`; msgspec.DecodeError for any other bytes."""
    return _DECODER.decode(data)


def typed_value(kind: str, value: float, texts: dict[int, str]) -> Value:
    """A cell of a column as a person knows it: None for NaN, a text for its code."""
    if math.isnan(value):
        return None
    if kind == "string":
        return texts.get(int(value))
    if kind == "boolean":
        return value != 0.0
    if kind == "integer":
        return int(value)
    return value


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(DeviceState)
