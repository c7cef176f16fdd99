"""Recorded input the plain way: one line after the other, as FORMATS section 4 says it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any


def interpret(lines: Iterable[str]) -> tuple[list[dict[str, Any]], list[tuple[int, int]], list[Any]]:
    """Frames (dicts), ticks (frames before it, ms) and controls (frames before it, kind, data, ms)."""
    objects = [json.loads(line) for line in lines]
    has_ticks = any("tick" in entry for entry in objects)
    frames: list[dict[str, Any]] = []
    ticks: list[tuple[int, int]] = []
    controls: list[Any] = []
    first, clock, seconds_done = 0, 0, None
    for entry in objects:
        if "ingest_ts" in entry:
            clock = max(clock, entry["ingest_ts"])
            if not has_ticks and (seconds_done is None or clock // 1000 > seconds_done):
                seconds_done = clock // 1000
                ticks.append((len(frames), seconds_done * 1000))
            payload = (
                bytes.fromhex(entry["payload_hex"]) if "payload_hex" in entry else entry["payload"].encode()
            )
            frames.append(
                {
                    "position": first + len(frames),
                    "ms": clock,
                    "source": entry["source"],
                    "topic": entry["topic"],
                    "port": entry.get("port", -1),
                    "headers": tuple(entry.get("headers", {}).items()),
                    "payload": payload,
                }
            )
        elif "tick" in entry:
            ticks.append((len(frames), entry["tick"]))
        elif "capture" in entry:
            first = entry["position"]
        elif "connected" in entry:
            controls.append((len(frames), "connected", {"source": entry["connected"]}, entry["at"]))
        elif "clock_step" in entry:
            controls.append((len(frames), "clock_step", {"step_ms": entry["clock_step"]}, entry["at"]))
    return frames, ticks, controls


def last_of_each_run(ticks: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Of ticks with no frame between them the last, which stands for those before it."""
    return sorted(dict(ticks).items())
