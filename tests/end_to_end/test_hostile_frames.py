"""Hostile frames through `penstock replay`: each ends in rejects or is filtered, with a reason, and the
frames behind it are decoded as if it had not been there. Nothing depends on how entries are cut."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from flows.cli import main

PLANT = Path(__file__).resolve().parents[2] / "examples" / "press-line"
START_MS = 1_772_355_600_000  # 2026-03-01T09:00:00Z
TOPIC = "iotlink/prd/nohub/{}/periodic/pub/telemetry/json"


def message(at_ms: int, temp: float, **more: Any) -> str:
    metrics = {"tempC": temp, "rpm": 3000, "vibration": 10, "mode": "run", **more}
    return json.dumps({"hub_timestamp": at_ms, "device_timestamp": at_ms, "data": {"metrics": metrics}})


def line(at_ms: int, payload: str | bytes, device: str = "press-01", **more: Any) -> dict[str, Any]:
    body = {"payload": payload} if isinstance(payload, str) else {"payload_hex": payload.hex()}
    return {"ingest_ts": at_ms, "source": "line1", "topic": TOPIC.format(device), **body, **more}


def hydraulic(at_ms: int, good_crc: bool = True, kind: int = 0x48) -> bytes:
    body = bytes([kind]) + at_ms.to_bytes(8, "big") + (1500).to_bytes(2, "big") + (455).to_bytes(2, "big")
    body += bytes([60]) + (1).to_bytes(2, "big") + (81234).to_bytes(4, "big") + (1234).to_bytes(2, "big")
    body += (321).to_bytes(2, "big") + bytes([7])
    crc = 0xFFFF
    for byte in body:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ 0xA001 if crc & 1 else crc >> 1
    return body + (crc if good_crc else crc ^ 1).to_bytes(2, "little")


def hydraulic_line(at_ms: int, payload: bytes) -> dict[str, Any]:
    peer = hydraulic_peer()
    return {"ingest_ts": at_ms, "source": "hydraulics", "topic": peer, "payload_hex": payload.hex()}


def hydraulic_peer() -> str:
    for row in (PLANT / "devices.csv").read_text("utf-8").splitlines():
        cells = row.split(",")
        if "hydraulic-v1" in cells:
            return cells[0]
    raise AssertionError("the example has no hydraulic unit")


HOSTILE: list[tuple[str, dict[str, Any]]] = [
    ("malformed", line(START_MS + 1000, message(START_MS + 1000, 60.0)[:-20])),
    ("empty", line(START_MS + 1001, "")),
    ("encoding", line(START_MS + 1002, b'{"device_timestamp": 1, "x": "\xff\xfe"}')),
    ("too_deep", line(START_MS + 1003, "[" * 200_000 + "]" * 200_000)),
    ("too_large", line(START_MS + 1004, " " * 1_000_001)),
    ("bad_number", line(START_MS + 1005, message(START_MS + 1005, 60.0).replace("60.0", "1e400"))),
    ("timestamp_future", line(START_MS + 1006, message(START_MS + 86_400_000, 60.0))),
    ("timestamp_past", line(START_MS + 1007, message(START_MS - 40 * 86_400_000, 60.0))),
    ("type", line(START_MS + 1008, message(START_MS + 1008, 60.0, tempC="hot"))),
    ("unknown_device", line(START_MS + 1009, message(START_MS + 1009, 60.0), device="nobody")),
    ("no_product", {**line(START_MS + 1010, "{}"), "topic": "somewhere/else"}),
    ("check", hydraulic_line(START_MS + 1011, hydraulic(START_MS + 1011, good_crc=False))),
    ("empty", hydraulic_line(START_MS + 1012, b"")),
    ("unmatched", hydraulic_line(START_MS + 1013, hydraulic(START_MS + 1013, kind=0x49))),
]


def recording(path: Path) -> int:
    """Good frames with each hostile one between two of them; returns how many good ones."""
    lines = []
    good = 0
    for number, (_, hostile) in enumerate(HOSTILE):
        at_ms = START_MS + number * 2000
        shift = at_ms - START_MS
        lines.append(line(at_ms, message(at_ms, 60.0 + number)))
        lines.append(hydraulic_line(at_ms, hydraulic(at_ms)))
        lines.append({**hostile, "ingest_ts": hostile["ingest_ts"] + shift})
        lines.append(line(at_ms + 1500, message(at_ms + 1500, 60.5 + number)))
        good += 3
    repeated = line(START_MS + 60_000, message(START_MS + 60_000, 70.0))
    lines += [repeated, repeated]
    path.write_text("".join(json.dumps(each) + "\n" for each in lines), "utf-8")
    return good + 1


def replay(recorded: Path, out: Path, cut: int) -> dict[str, Any]:
    with pytest.raises(SystemExit) as ended:
        main(
            ["replay", str(PLANT), "--input", str(recorded), "--output", str(out), "--entry-frames", str(cut)]
        )
    assert ended.value.code == 0
    summary: dict[str, Any] = json.loads((out / "summary.json").read_bytes())
    return summary


def test_each_hostile_frame_has_its_reason_and_stops_nobody(tmp_path: Path) -> None:
    recorded = tmp_path / "hostile.jsonl"
    good = recording(recorded)
    summary = replay(recorded, tmp_path / "out", 10_000)
    rejects = [json.loads(text) for text in (tmp_path / "out" / "rejects.jsonl").read_text().splitlines()]
    expected = [reason for reason, _ in HOSTILE]
    assert [reject["reason"] for reject in rejects] == expected
    assert all(reject["message"] for reject in rejects)
    frames, readings = summary["frames"], summary["readings"]
    assert frames["in"] == frames["decoded"] + frames["rejected"] + frames["filtered"] + frames["held"]
    assert readings["decoded"] == sum(readings[t] for t in ("accepted", "late", "rejected", "filtered"))
    assert readings["accepted"] == good
    assert readings["filtered"] == 1  # the repeated one


def test_the_same_bytes_for_every_cut(tmp_path: Path) -> None:
    recorded = tmp_path / "hostile.jsonl"
    recording(recorded)
    for cut in (1, 7, 10_000):
        replay(recorded, tmp_path / str(cut), cut)
    names = ["alarms.jsonl", "windows.jsonl", "rejects.jsonl", "state.json", "summary.json"]
    for cut in ("1", "7"):
        for name in names:
            assert (tmp_path / cut / name).read_bytes() == (tmp_path / "10000" / name).read_bytes(), name
        one, all_at_once = (pq.read_table(tmp_path / c / "telemetry.parquet") for c in (cut, "10000"))
        assert one.to_pylist() == all_at_once.to_pylist()
