"""Windows and rejects as the JSON objects of windows.jsonl and rejects.jsonl (FORMATS section 5):
keys in that order, times cut down to milliseconds, null where there is no value."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from connectors.journal.columns import Windows
from operators.batch import WindowBatch
from operators.rejects import Reject

AGGREGATES = ("min", "max", "mean", "last", "std", "p50", "p95", "p99")


@lru_cache(maxsize=10_000)  # starts and ends of windows come again and again
def iso_time(ns: int) -> str:
    """`2026-03-01T09:00:00.000Z`, cut down to whole milliseconds."""
    seconds, rest = divmod(ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest // 1_000_000:03d}Z"


def number_or_null(value: float) -> float | None:
    """JSON has no NaN and no infinity."""
    return value if math.isfinite(value) else None


def window_lines(
    windows: Windows | WindowBatch,
    devices: Sequence[str],
    metrics: Sequence[str],
    rows: Iterable[int],
    *,
    with_count: bool = True,
) -> Iterator[dict[str, Any]]:
    """The objects of these rows. `devices` and `metrics`: names by the indices of the columns;
    `with_count`: whether `count` is among the aggregates asked for."""
    for row in rows:
        good, bad = int(windows.good[row]), int(windows.bad[row])
        line: dict[str, Any] = {
            "window": windows.window,
            "productId": windows.productId,
            "device_id": devices[windows.device[row]],
            "metric": metrics[windows.metric[row]],
            "start": iso_time(int(windows.start_ns[row])),
            "end": iso_time(int(windows.end_ns[row])),
            "count": int(windows.count[row]),
            "good": good,
            "bad": bad,
            "coverage": 100.0 * good / (good + bad) if good + bad else None,
        }
        if not with_count:
            del line["count"]
        for name in AGGREGATES:
            column = windows.aggregates.get(name)
            if column is not None:
                line[name] = number_or_null(float(column[row]))
        line["revision"] = int(windows.revision[row])
        yield line


def reject_line(reject: Reject) -> dict[str, Any]:
    """The object of one reject."""
    return {
        "reason": reject.reason.name,
        "message": reject.message,
        "source": reject.source,
        "topic": reject.topic,
        "device_id": reject.device_id or None,
        "productId": reject.productId or None,
        "position": reject.position,
        "index": reject.index,
        "ingest_time": iso_time(reject.ingest_ns),
        "payload_hex": reject.payload.hex(),
    }
