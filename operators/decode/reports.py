"""Frames in which a device tells of an alarm of its own (rules of type reported).

They hold no reading. Few come, so each is read in Python: JSON of the plant's size and depth, an
object in which at least one rule of its product and role finds all that it needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any, Final

import msgspec

from operators.decode.json_spec import DEVICE_TIME, JsonSpec, Path, TimePath, path_text
from operators.decode.spec import ProductDecode, ReportSpec
from operators.rejects import Reason

_UNIT_NS: Final = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_LATEST_NS: Final = (1 << 63) - 1
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class UnreadableReportError(ValueError):
    """Why a payload is no report: its reason and its sentence."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


def value_at(data: Any, path: Path) -> Any:
    """What stands at a path of a JSON value; None where nothing does."""
    for part in path:
        if isinstance(part, int):
            data = data[part] if isinstance(data, list) and part < len(data) else None
        else:
            data = data.get(part) if isinstance(data, dict) else None
    return data


def json_of(payload: bytes, depth: int) -> Any:
    """The JSON value of a payload, nested at most so deep. Raises `UnreadableReportError`."""
    try:
        data = msgspec.json.decode(payload)
    except UnicodeDecodeError as error:
        raise UnreadableReportError(Reason.encoding, f"no UTF-8 at byte {error.start}") from error
    except RecursionError as error:
        raise UnreadableReportError(Reason.too_deep, f"nested deeper than {depth}") from error
    except (msgspec.DecodeError, ValueError) as error:
        raise UnreadableReportError(Reason.malformed, f"no JSON: {error}") from error
    if _depth(data) > depth:
        raise UnreadableReportError(Reason.too_deep, f"nested deeper than {depth}")
    return data


def read_report(
    payload: bytes, spec: ReportSpec, product: ProductDecode, ingest_ns: int, depth: int
) -> tuple[Any, int]:
    """The payload as JSON and its event time, `ingest_ns` where it has none. Raises
    `UnreadableReportError`."""
    data = json_of(payload, depth)
    lacking = [[path for path in needs if not _is_plain(value_at(data, path))] for needs in spec.needs]
    if all(lacking):
        fewest = min(lacking, key=len)
        raise UnreadableReportError(
            Reason.malformed, f"'{path_text(fewest[0])}' is not there, or holds no value"
        )
    layout = product.decode.layout
    where = layout.timestamp if isinstance(layout, JsonSpec) else DEVICE_TIME
    found = None if where is None else value_at(data, where.path)
    if found is None or where is None:
        return data, ingest_ns
    ts_ns = _time(found, where)
    if ts_ns > ingest_ns + spec.max_future:
        ahead = (ts_ns - ingest_ns) // 1_000_000_000
        raise UnreadableReportError(Reason.timestamp_future, f"its time is {ahead} s ahead of its arrival")
    if ts_ns < 0:
        raise UnreadableReportError(Reason.timestamp_past, "its time is before 1970")
    return data, ts_ns


def time_of(data: Any, where: TimePath | None) -> int:
    """The time stamp of a JSON value in nanoseconds since 1970; 0 where it has none that can be read."""
    found = None if where is None else value_at(data, where.path)
    if found is None or where is None:
        return 0
    try:
        return _time(found, where)
    except UnreadableReportError:
        return 0


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float)


def _depth(data: Any) -> int:
    deepest, waiting = 0, [(data, 1)]
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, dict | list):
            deepest = max(deepest, depth)
            below = value.values() if isinstance(value, Mapping) else value
            waiting += [(one, depth + 1) for one in below if isinstance(one, dict | list)]
    return deepest


def _time(value: Any, where: TimePath) -> int:
    """A time stamp in nanoseconds since 1970, cut down."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        size = abs(value)
        unit = where.unit
        if unit not in _UNIT_NS:  # auto, as `operators.decode.json_kernels` reads it
            unit = "s" if size < 10**11 else "ms" if size < 10**14 else "us" if size < 10**17 else "ns"
        at = (Fraction(value) * _UNIT_NS[unit]).__floor__()
        return max(-_LATEST_NS, min(_LATEST_NS, at))
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            pass
        else:
            past = (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)) - _EPOCH
            return ((past.days * 86_400 + past.seconds) * 1_000_000 + past.microseconds) * 1_000
    raise UnreadableReportError(Reason.malformed, f"'{path_text(where.path)}' is no time stamp")
