"""`vectors:` of a product file: frames and what must come out of them, as people write them."""

from __future__ import annotations

import binascii
import json
from typing import Any

import msgspec

Value = str | int | float | bool | None


class VectorReading(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One of several readings of a frame. time: its event time; absent: metrics it must not have."""

    values: dict[str, Value] = msgspec.field(default_factory=dict)
    time: str | None = None
    absent: list[str] = msgspec.field(default_factory=list)


class Vector(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A golden vector. In: one of hex, text and json, with port, received (ingest time) and params;
    header: the header line of the CSV file that `text` is a row of.
    Out: `values` (with time, absent) of the only reading, or `readings`, or `reject` (with offset),
    or `ignored`. Metrics that are not named are not compared."""

    name: str = ""
    hex: str | None = None
    text: str | None = None
    header: str = ""
    json: Any = None
    port: int = -1
    received: str | None = None
    params: dict[str, float] = msgspec.field(default_factory=dict)
    values: dict[str, Value] | None = None
    time: str | None = None
    absent: list[str] = msgspec.field(default_factory=list)
    readings: list[VectorReading] | None = None
    reject: str | None = None
    offset: int | None = None
    ignored: bool = False

    def payload(self) -> bytes | None:
        """The bytes of the frame; None where `hex` is not hexadecimal."""
        if self.hex is not None:
            return from_hex(self.hex)
        if self.text is not None:
            return self.text.encode("utf-8", "surrogatepass")
        return json.dumps(self.json, ensure_ascii=False).encode("utf-8", "surrogatepass")


def from_hex(text: str) -> bytes | None:
    """Bytes of a hexadecimal text, with or without blanks and `0x`; None if it is none."""
    joined = "".join(part.removeprefix("0x").removeprefix("0X") for part in text.replace(",", " ").split())
    try:
        return binascii.unhexlify(joined)
    except ValueError:
        return None
