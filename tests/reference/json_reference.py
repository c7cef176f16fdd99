"""JSON frames to readings, the plain way: Python's json, dictionaries, fractions."""

from __future__ import annotations

import datetime
import json
import math
from fractions import Fraction
from typing import Any

ABSENT = "absent"
NULL = "null"
BREACH = "breach"


class Refused(Exception):
    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Number:
    def __init__(self, text: str) -> None:
        self.text = text
        self.value = float(text)
        if math.isinf(self.value):
            raise Refused("bad_number")


def _constant(text: str) -> None:
    raise Refused("bad_number")


def _text(value: Any) -> Any:
    if isinstance(value, str) and any(0xD800 <= ord(letter) <= 0xDFFF for letter in value):
        raise Refused("encoding")
    return value


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    for name, value in pairs:
        _text(name)
        _elements(value)
    return dict(pairs)  # the last of equal names


def _elements(value: Any) -> None:
    _text(value)
    if isinstance(value, list):
        for element in value:
            _elements(element)


def deepest(text: str) -> int:
    """How deep the brackets of valid JSON nest."""
    depth = most = 0
    inside = escaped = False
    for letter in text:
        if inside:
            if escaped:
                escaped = False
            elif letter == "\\":
                escaped = True
            elif letter == '"':
                inside = False
        elif letter == '"':
            inside = True
        elif letter in "[{":
            depth += 1
            most = max(most, depth)
        elif letter in "]}":
            depth -= 1
    return most


def document(payload: bytes, depth: int = 64) -> Any:
    """The JSON value of a frame; raises Refused."""
    if not payload:
        raise Refused("empty")
    try:
        text = payload.decode("utf-8")
    except UnicodeDecodeError:
        raise Refused("encoding") from None
    if deepest(text) > depth:
        raise Refused("too_deep")
    try:
        value = json.loads(
            text,
            parse_int=Number,
            parse_float=Number,
            parse_constant=_constant,
            object_pairs_hook=_members,
        )
    except ValueError:
        raise Refused("malformed") from None
    _elements(value)
    return value


def at_path(value: Any, path: tuple[str | int, ...]) -> Any:
    for part in path:
        if isinstance(part, int):
            if not isinstance(value, list) or part >= len(value):
                return ABSENT
            value = value[part]
        else:
            if not isinstance(value, dict) or part not in value:
                return ABSENT
            value = value[part]
    return NULL if value is None else value


def metric(value: Any, kind: str) -> Any:
    """A float, a text, a bool; or ABSENT, NULL, BREACH."""
    if value is ABSENT or value is NULL:
        return value
    if kind in ("number", "integer") and isinstance(value, Number):
        return value.value
    if kind == "boolean" and isinstance(value, bool):
        return float(value)
    if kind == "string" and isinstance(value, str):
        return ("text", value)
    return BREACH


_UNITS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
LATEST, EARLIEST = 9_000_000_000_000_000_000, -4_000_000_000_000_000_000


def time(value: Any, unit: str) -> int | None:
    """Nanoseconds since 1970; None where there is none; raises Refused."""
    if value is ABSENT or value is NULL:
        return None
    if isinstance(value, Number):
        number = Fraction(value.text)
        size = abs(number)
        if unit == "auto":
            unit = "s" if size < 10**11 else "ms" if size < 10**14 else "us" if size < 10**17 else "ns"
        return max(EARLIEST, min(LATEST, math.floor(number * _UNITS[unit])))
    if isinstance(value, str) and len(value) >= 16:
        try:
            moment = datetime.datetime.fromisoformat(value)
        except ValueError:
            raise Refused("malformed") from None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=datetime.UTC)
        past = moment - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
        return (past // datetime.timedelta(microseconds=1)) * 1000
    raise Refused("malformed")


def reading(
    payload: bytes,
    metrics: list[tuple[str, str]],
    *,
    container: tuple[str | int, ...] | None = ("data", "metrics"),
    fields: dict[str, tuple[str | int, ...]] | None = None,
    timestamp: tuple[str | int, ...] = ("device_timestamp",),
    hub: tuple[str | int, ...] = ("hub_timestamp",),
    unit: str = "ms",
) -> tuple[int | None, int, dict[str, Any], list[str]]:
    """(event time, 0 device | 1 hub | 2 none, metrics, undeclared names); raises Refused."""
    value = document(payload)
    if not isinstance(value, dict):
        raise Refused("malformed")
    found: dict[str, Any] = {}
    unknown: list[str] = []
    if container is not None:
        box = at_path(value, container)
        if box is not ABSENT and box is not NULL and not isinstance(box, dict):
            raise Refused("malformed")
        inside = box if isinstance(box, dict) else {}
        for name, kind in metrics:
            found[name] = metric(at_path(inside, (name,)), kind)
        unknown = [name for name in inside if name not in dict(metrics)]
    else:
        for name, kind in metrics:
            path = (fields or {}).get(name)
            found[name] = metric(ABSENT if path is None else at_path(value, path), kind)
    when = time(at_path(value, timestamp), unit)
    if when is not None:
        return when, 0, found, unknown
    when = time(at_path(value, hub), "ms")
    return when, (2 if when is None else 1), found, unknown
