"""Frames to readings the plain way, for the layouts that the generated plants use: JSON with paths, and fixed
binary fields with a CRC-16. Times are whole nanoseconds, values are Python's own, a metric that is missing
is not in the dict, a null is None, a value of the wrong type is `WRONG`."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

from tests.reference.plant_oracle_expressions import Absent, value_of

MS = 1_000_000
SECOND = 1_000_000_000
DEPTH = 64
TOO_LARGE = 1_000_000


class Refused(Exception):
    """The frame gives no reading; the argument is the reject's reason."""


class Wrong:
    """A value of the wrong type."""


WRONG = Wrong()


def decode_json(product: dict[str, Any], payload: bytes, ingest_ns: int) -> tuple[int, bool, dict[str, Any]]:
    """(event time, is it the device's own, metrics)."""
    try:
        text = payload.decode("utf-8")
    except UnicodeDecodeError:
        raise Refused("encoding") from None
    if _depth(text) > DEPTH:
        raise Refused("too_deep")
    try:
        body = json.loads(text, parse_constant=_no_number, parse_float=_double, parse_int=_double_or_int)
    except json.JSONDecodeError:
        raise Refused("malformed") from None
    if not isinstance(body, dict):
        raise Refused("malformed")
    spec = product["decode"]
    times = [
        _time_at(body, spec.get(key, default))
        for key, default in (("timestamp", "device_timestamp"), ("hub_timestamp", "hub_timestamp"))
    ]
    own = times[0] is not None
    event_ns = times[0] if times[0] is not None else times[1] if times[1] is not None else ingest_ns
    mapping = spec.get("metrics", "data.metrics")
    if isinstance(mapping, str):
        found = _at(body, mapping)
        if found is MISSING:
            found = {}
        if not isinstance(found, dict):
            raise Refused("malformed")
        raw = {name: found[name] for name in product["metrics"] if name in found}
    else:
        raw = {name: _at(body, path) for name, path in mapping.items()}
        raw = {name: value for name, value in raw.items() if value is not MISSING}
    values = {name: _typed(product["metrics"][name], value) for name, value in raw.items()}
    for name, tree in spec.get("derive", {}).items():
        try:
            values[name] = value_of(tree, lambda _, metric: _derivable(values, raw, metric))
        except Absent:
            values.pop(name, None)
    return event_ns, own, values


def _derivable(values: dict[str, Any], raw: dict[str, Any], name: str) -> Any:
    """The final value; 2.5 for an integer breaches its type later, but is a number until then."""
    if name not in values:
        raise Absent
    if values[name] is WRONG:
        number = isinstance(raw[name], float)
        return raw[name] if number else None
    return values[name]


MISSING = object()


def _at(body: Any, path: str) -> Any:
    for part in path.split("."):
        if not isinstance(body, dict) or part not in body:
            return MISSING
        body = body[part]
    return body


def _no_number(_: str) -> Any:
    raise Refused("bad_number")


def _double(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise Refused("bad_number")
    return value


def _double_or_int(text: str) -> float | int:
    number = int(text)
    if abs(number) < 2**53:
        return number
    try:
        return float(number)
    except OverflowError:
        raise Refused("bad_number") from None


def _depth(text: str) -> int:
    deepest = depth = 0
    inside = escaped = False
    for char in text:
        if inside:
            if escaped:
                escaped = False
            elif char == "\\":
                escaped = True
            elif char == '"':
                inside = False
        elif char == '"':
            inside = True
        elif char in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif char in "]}":
            depth -= 1
    return deepest


def _time_at(body: Any, where: Any) -> int | None:
    if isinstance(where, str):
        return _time(_at(body, where))
    value, unit = _at(body, where["path"]), where["unit"]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return _time(value)
    if unit == "auto":
        unit = next(u for u, below in (("s", 1e11), ("ms", 1e14), ("us", 1e17)) if value < below)
    return _time(Fraction(repr(value)) * Fraction({"s": "1000", "ms": "1", "us": "0.001"}[unit]))


def _time(value: Any) -> int | None:
    if value is MISSING or value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str | Fraction):
        raise Refused("malformed")
    if isinstance(value, str):
        try:
            stamp = datetime.fromisoformat(value)
        except ValueError:
            raise Refused("malformed") from None
        stamp = stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)
        since = stamp - datetime(1970, 1, 1, tzinfo=UTC)
        return (since.days * 86400 + since.seconds) * SECOND + since.microseconds * 1000
    return math.floor(Fraction(value) * MS)


def _typed(metric: dict[str, Any], value: Any) -> Any:
    kind = metric.get("type", "number")
    if value is None:
        return None
    if kind == "string":
        return value if isinstance(value, str) else WRONG
    if kind == "boolean":
        return value if isinstance(value, bool) else WRONG
    if isinstance(value, bool) or not isinstance(value, int | float):
        return WRONG
    if kind == "integer" and value != int(value):
        return WRONG
    return float(value)


def crc16_modbus(body: bytes) -> int:
    """CRC-16/MODBUS: polynomial 0x8005 reflected, starting from 0xFFFF."""
    crc = 0xFFFF
    for byte in body:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ 0xA001 if crc & 1 else crc >> 1
    return crc


def decode_binary(
    product: dict[str, Any], payload: bytes, ingest_ns: int
) -> tuple[int, bool, dict[str, Any]]:
    """The generated plants' binary products: `check` over all before the last two bytes, then one case with
    `length` and a marker byte, a u64 time in ms at byte 1 (0 = the device has no time), then fields."""
    decode = product["decode"]
    if len(payload) < 2:
        raise Refused("short")
    if crc16_modbus(payload[:-2]) != int.from_bytes(payload[-2:], "little"):
        raise Refused("check")
    case = decode["cases"][0]
    if len(payload) != case["when"]["length"] or payload[0] != case["when"]["byte"][0]:
        raise Refused("unmatched")
    stamp = int.from_bytes(payload[1:9], "big")
    values = {name: _field(spec, payload) for name, spec in case["fields"].items()}
    return stamp * MS, True, {name: _typed(product["metrics"][name], value) for name, value in values.items()}


def _field(spec: dict[str, Any], payload: bytes) -> Any:
    kind = spec.get("as", "u8")
    order = "little" if kind.endswith("le") else "big"
    kind = kind.removesuffix("le").removesuffix("be")
    size = int(kind[1:]) // 8
    raw = int.from_bytes(payload[spec["at"] : spec["at"] + size], order, signed=kind[0] == "s")  # type: ignore[arg-type]  # one of the two literals
    if "bit" in spec:
        return bool(raw >> spec["bit"] & 1)
    if raw in spec.get("missing", ()):
        return None
    if "map" in spec:
        return spec["map"].get(raw)
    if "scale" in spec:
        return float(Fraction(raw) * Fraction(str(spec["scale"])) + Fraction(str(spec.get("offset", 0))))
    return raw
