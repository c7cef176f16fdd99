"""Slices made by hand for the tests of this room."""

from __future__ import annotations

from typing import Any

import numpy as np

from connectors.journal.columns import TelemetrySpec
from operators.batch import (
    GOOD,
    HISTORICAL,
    SEQ_PER_FRAME,
    AlarmEvent,
    FrameBatch,
    ReadingBatch,
    Slice,
    Ticks,
    WindowBatch,
)
from operators.devices import Devices
from operators.rejects import Reason, Reject
from operators.text import text_code

START_NS = 1_772_355_600_000_000_000  # 2026-03-01T09:00:00Z
SECOND = 1_000_000_000
SPEC = TelemetrySpec("press-v1", (("tempC", "number"), ("count", "integer"), ("mode", "string")))
SPECS = {"press-v1": SPEC}
MODES = ("idle", "run", "fault")


def devices(count: int = 3) -> Devices:
    """press-00, press-01, ..."""
    made = Devices()
    for number in range(count):
        made.add(f"press-{number:02d}", "press-v1", "hub-1")
    return made


def readings(first: int, rows: int, device_count: int = 3) -> ReadingBatch:
    """One reading a frame from position `first` on; every value is a function of the position."""
    position = np.arange(first, first + rows, dtype=np.int64)
    value = np.empty((3, rows))
    value[0] = position * 0.5
    value[1] = position % 7
    value[2] = np.array([text_code(mode) for mode in MODES])[position % 3]
    quality = np.full((3, rows), GOOD, np.uint8)
    value[0, position % 5 == 4] = np.nan
    quality[0, position % 5 == 4] = 3
    return ReadingBatch(
        "press-v1",
        (position % device_count).astype(np.int32),
        START_NS + position * 10_000_000,
        value,
        quality,
        (position * SEQ_PER_FRAME).astype(np.uint64),
        START_NS + position * 10_000_000 + 5_000_000,
        np.where(position % 11 == 10, HISTORICAL, 0).astype(np.uint8),
        np.zeros(rows, np.int32),
        {text_code(mode): mode for mode in MODES},
        Ticks.none(),
    )


def event(position: int, n: int = 0, transition: str = "raised", device: str = "press-00") -> AlarmEvent:
    """A CloudEvent with the keys that sinks look at."""
    sequence = f"{position * SEQ_PER_FRAME + n:020d}"
    subject = f"{device}/temp-high"
    body: dict[str, Any] = {
        "specversion": "1.0",
        "id": f"{subject}-{sequence}",
        "type": f"org.penstock.alarm.{transition}",
        "source": "/plants/test",
        "subject": subject,
        "time": "2026-03-01T09:00:00.000Z",
        "sequence": sequence,
        "partitionkey": subject,
        "data": {
            "alarm_id": f"{subject}-1",
            "ruleId": "temp-high",
            "rule_version": "0123456789ab",
            "productId": "press-v1",
            "device_id": device,
            "hub_id": "hub-1",
            "site_id": None,
            "customer_id": None,
            "transition": transition,
            "severity": "high",
            "onset_time": "2026-03-01T09:00:00.000Z",
            "event_time": "2026-03-01T09:00:00.000Z",
            "ingest_time": "2026-03-01T09:00:00.005Z",
            "actor": None,
            "comment": None,
            "state": {
                "active": transition == "raised",
                "acknowledged": True,
                "latched": False,
                "shelved_until": None,
                "suppressed": False,
                "out_of_service": False,
            },
            "evidence": {
                "expression": "tempC > 80",
                "values": {"tempC": 85.0},
                "quality": "good",
                "position": position,
            },
            "message": "hot",
        },
    }
    return AlarmEvent(position, device, "temp-high", sequence, body)


def windows(position: int, rows: int = 2) -> WindowBatch:
    """One-minute windows of tempC that closed at a position."""
    start = START_NS + position * 10_000_000 // (60 * SECOND) * 60 * SECOND
    ones = np.ones(rows, np.int64)
    return WindowBatch(
        "press-v1",
        "1m",
        np.arange(rows, dtype=np.int32) % 3,
        np.zeros(rows, np.int32),
        ones * start,
        ones * (start + 60 * SECOND),
        ones * 3,
        ones * 3,
        ones,
        ones * (1 + position),
        {"min": np.full(rows, 1.0), "mean": np.full(rows, np.nan)},
        ones * position,
    )


def reject(position: int) -> Reject:
    """A frame cut short."""
    return Reject(
        Reason.short, "7 bytes, 9 needed", "line1", "t/1", "", "", position, 0, START_NS, b"\x00\xff"
    )


def made_slice(entry: int, first: int, rows: int, *, tick_ns: int = 0, **found: Any) -> Slice:
    """A slice of `rows` frames of one reading each, in the journal entry `entry`."""
    batch = readings(first, rows)
    ticks = Ticks(np.array([rows], np.int64), np.array([tick_ns], np.int64)) if tick_ns else Ticks.none()
    frames = FrameBatch(
        np.empty(0, np.uint8),
        np.zeros(rows, np.int64),
        np.zeros(rows, np.int64),
        np.zeros(rows, np.int32),
        (),
        batch.ingest_ns,
        np.arange(first, first + rows, dtype=np.int64),
        np.zeros(rows, np.uint8),
        ticks,
    )
    item = Slice(entry, first + rows, frames, sources=("line1",), readings=[batch], **found)
    item.count("line1", "press-v1", "frames_in", rows)
    item.count("line1", "press-v1", "readings_accepted", rows)
    return item
