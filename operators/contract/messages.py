"""The sentence that a person reads beside a refused reading: metric, value, bound."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from operators.contract.spec import Metric, ProductContract
from operators.rejects import Reason
from operators.spec import DAY, HOUR, MILLISECOND, MINUTE, SECOND

_A_TYPE = {"number": "a number", "integer": "an integer", "boolean": "true or false", "string": "a text"}


def number_text(value: float) -> str:
    """The shortest text that reads back as the same number, without a trailing `.0`."""
    text = repr(float(value))
    return text.removesuffix(".0")


def duration_text(ns: int) -> str:
    """`5m`, `1h 30m`, `2.5s`: the two largest units, fractions of a second in milliseconds."""
    parts = []
    for unit, size in (("d", DAY), ("h", HOUR), ("m", MINUTE)):
        count, ns = divmod(ns, size)
        if count:
            parts.append(f"{count}{unit}")
    if len(parts) < 2:
        milliseconds = ns // MILLISECOND
        if milliseconds or not parts:
            parts.append(f"{number_text(milliseconds / 1000)}s")
    return " ".join(parts[:2])


def time_text(ns: int) -> str:
    """`2026-03-01T09:00:00.000Z`, cut down to milliseconds; far beyond the calendar the number."""
    seconds, rest = divmod(ns, SECOND)
    try:
        day = datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return f"{ns // MILLISECOND} ms"
    return f"{day:%Y-%m-%dT%H:%M:%S}.{rest // MILLISECOND:03d}Z"


def breach_sentence(
    product: ProductContract,
    reason: Reason,
    metric: Metric | None,
    name: str,
    value: float,
    before: float,
    texts: Mapping[int, str],
    ts_ns: int,
    ingest_ns: int,
) -> str:
    """What is wrong with one reading. `before`: for a step, the value that it is compared with."""
    if metric is None:
        stamp = product.contract.timestamp
        if reason is Reason.timestamp_future:
            off, bound, side = ts_ns - ingest_ns, f"max_future {duration_text(stamp.max_future)}", "after"
        else:
            off, bound, side = ingest_ns - ts_ns, f"max_age {duration_text(stamp.max_age)}", "before"
        return f"time {time_text(ts_ns)} is {duration_text(off)} {side} ingest time, more than {bound}"
    if reason is Reason.type:
        wanted = _A_TYPE[metric.type]
        shown = number_text(value) + " is " if value == value else ""
        return f"{name}: {shown}not {wanted}"
    if reason is Reason.required:
        return f"{name}: required, but not in the reading"
    if reason is Reason.range:
        low, high = metric.range or (None, None)
        span = f"{_bound(low)}..{_bound(high)}"
        if low is not None and value < low:
            return f"{name}: {number_text(value)} is below {number_text(low)} (range {span})"
        return f"{name}: {number_text(value)} is above {_bound(high)} (range {span})"
    if reason is Reason.step:
        return (
            f"{name}: {number_text(value)} is {number_text(abs(value - before))} away from "
            f"{number_text(before)}, more than max_step {_bound(metric.max_step)}"
        )
    known = ", ".join(_shown(item) for item in metric.values or ())
    return f"{name}: {_value(metric, value, texts)} is none of {known}"


def _bound(value: float | None) -> str:
    return "" if value is None else number_text(value)


def _shown(item: str | int | float | bool) -> str:
    if isinstance(item, bool):
        return "true" if item else "false"
    return item if isinstance(item, str) else number_text(item)


def _value(metric: Metric, value: float, texts: Mapping[int, str]) -> str:
    if metric.type == "string":
        text = texts.get(int(value), "?")
        return "'" + (text if len(text) <= 80 else text[:79] + "…") + "'"
    if metric.type == "boolean":
        return "true" if value else "false"
    return number_text(value)
