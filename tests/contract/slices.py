"""Slices out of plain readings, for the tests of contract, windows and state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from operators.batch import Address, FrameBatch, ReadingBatch, Slice, Ticks
from operators.devices import Devices
from operators.text import text_code

FLAGS = {
    "historical": 1,
    "time_uncertain": 2,
    "in_order": 4,
    "rebased": 8,
    "live_reference": 16,
}
QUALITIES = {"good": 0, "uncertain": 1, "bad": 2, "absent": 3}


def cell(value: Any, kind: str, texts: dict[int, str]) -> tuple[float, int]:
    """(value, quality) as a decoder gives them."""
    if value is None:
        return np.nan, 2
    right = {
        "string": isinstance(value, str),
        "boolean": isinstance(value, bool),
    }.get(kind, isinstance(value, (int, float)) and not isinstance(value, bool))
    if not right:
        return np.nan, 4
    if isinstance(value, str):
        texts[text_code(value)] = value
        return float(text_code(value)), 0
    return float(value), 0


def slice_of(
    readings: Sequence[Mapping[str, Any]],
    kinds: Mapping[str, str],
    devices: Devices,
    *,
    ticks: Sequence[tuple[int, int]] = (),
    productId: str = "p",
) -> Slice:
    """One slice of one product. readings: dicts of device, frame, ts, ingest, flags (names),
    values, payload (the frame's bytes; default: its number), and qualities where they are not to follow
    from the values. Rows of one frame are numbered. ticks: (row, ns)."""
    n = len(readings)
    texts: dict[int, str] = {}
    value = np.full((len(kinds), n), np.nan)
    quality = np.full((len(kinds), n), 3, np.uint8)
    seq = np.zeros(n, np.uint64)
    index = 0
    for i, reading in enumerate(readings):
        index = index + 1 if i and readings[i - 1]["frame"] == reading["frame"] else 0
        seq[i] = (reading["frame"] << 16) + index
        for m, (name, kind) in enumerate(kinds.items()):
            if name in reading["values"]:
                value[m, i], quality[m, i] = cell(reading["values"][name], kind, texts)
            if name in reading.get("qualities", {}):
                quality[m, i] = QUALITIES[reading["qualities"][name]]
    first = readings[0]["frame"] if n else 0
    count = readings[-1]["frame"] - first + 1 if n else 0
    placed = Ticks(np.array([r for r, _ in ticks], np.int64), np.array([t for _, t in ticks], np.int64))
    told = {reading["frame"]: reading.get("payload", b"%08d" % reading["frame"]) for reading in readings}
    parts = [told.get(first + i, b"") for i in range(count)]
    payload = b"".join(parts)
    sizes = np.array([len(part) for part in parts], np.int64)
    frames = FrameBatch(
        np.frombuffer(payload, np.uint8),
        np.cumsum(sizes) - sizes,
        sizes,
        np.zeros(count, np.int32),
        (Address("line1", "a/b"),),
        np.zeros(count, np.int64),
        first + np.arange(count, dtype=np.int64),
        np.zeros(count, np.uint8),
        placed,
    )
    batch = ReadingBatch(
        productId,
        np.array([devices.add(r["device"], productId, "") for r in readings], np.int32),
        np.array([r["ts"] for r in readings], np.int64),
        value,
        quality,
        seq,
        np.array([r["ingest"] for r in readings], np.int64),
        np.array([sum(FLAGS[f] for f in r["flags"]) for r in readings], np.uint8),
        np.zeros(n, np.int32),
        texts,
        placed,
    )
    return Slice(0, first + count, frames, sources=("line1",), readings=[batch])
