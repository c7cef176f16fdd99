"""Typed values -> readings, the plain way: what `format: typed` must come to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any


def readings(
    frames: Sequence[Sequence[tuple[str, Any, int, int, int]]], kinds: Mapping[str, str], ingest_ns: int
) -> list[tuple[int, int, int, dict[str, Any]]]:
    """frames of (metric, value, source time, server time, quality) -> (frame, time, whose time, {metric:
    (value, quality)}); frame n arrived n milliseconds after `ingest_ns`. Quality 4: of another type."""
    found = []
    for number, values in enumerate(frames):
        mine: dict[tuple[int, int, int], dict[str, Any]] = {}
        met: dict[tuple[str, int, int], int] = {}
        for metric, value, source, server, quality in values:
            if metric not in kinds:
                continue
            ns, whose = source, 0
            if not ns:
                ns, whose = server, 1
            if not ns:
                ns, whose = ingest_ns + number * 1_000_000, 2
            again = met[metric, ns, whose] = met.get((metric, ns, whose), -1) + 1
            mine.setdefault((ns, whose, again), {})[metric] = judged(value, quality, kinds[metric])
        found += [(number, ns, whose, values) for (ns, whose, _), values in mine.items()]
    return found


def judged(value: Any, quality: int, kind: str) -> tuple[Any, int]:
    """A value as a metric of this type takes it."""
    if value is None:
        return None, 2
    if isinstance(value, bool):
        return (float(value), quality) if kind == "boolean" else (None, 4)
    if isinstance(value, str):
        return (value, quality) if kind == "string" else (None, 4)
    if kind not in ("number", "integer"):
        return None, 4
    try:
        double = float(value)
    except OverflowError:
        return None, 2
    return (double, quality) if math.isfinite(double) else (None, 2)
