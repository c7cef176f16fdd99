"""Reports through `penstock replay`: good ones raise, the others are rejects, and the ledger sums."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flows.cli import main

START_MS = 1_772_355_600_000
FILES = {
    "plant.yaml": """
plant: line
sources: {line1: {kind: mqtt, host: 127.0.0.1, subscribe: ["iotlink/#"]}}
""",
    "products/p.yaml": """
productId: p
version: 1
topics: ["iotlink/+/+/+/+/pub/telemetry/json"]
decode: {format: json}
metrics: {tempC: {}}
""",
    "devices.csv": "device_id,productId\nd1,p\n",
    "rules/r.yaml": """
ruleId: fault
productId: p
type: reported
role: alert_report
code: data.list[0].code
raised: "data.on == 1 and data.state != 'off'"
severity: high
""",
}


def report(
    at: int, data: Any, *, device: str = "d1", time: Any = None, role: str = "alert_report"
) -> dict[str, Any]:
    body = (
        data
        if isinstance(data, str)
        else json.dumps({"device_timestamp": time or START_MS + at, "data": data})
    )
    return {
        "ingest_ts": START_MS + at, "source": "line1", "payload": body,
        "topic": f"iotlink/prd/nohub/{device}/event/pub/{role}/json",
    }  # fmt: skip


GOOD = {"list": [{"code": 7}], "on": 1, "state": "on"}
REFUSED = [
    ("malformed", report(10, GOOD | {"on": None})),
    ("malformed", report(11, {"on": 1, "state": "on"})),
    ("malformed", report(12, GOOD | {"list": [{"code": {"x": 1}}]})),
    ("malformed", report(13, "{")),
    ("malformed", report(14, '{"data": NaN}')),
    ("too_deep", report(15, "[" * 200_000 + "]" * 200_000)),
    ("too_deep", report(16, '{"a": ' + "[" * 70 + "]" * 70 + "}")),
    ("empty", report(17, "")),
    ("too_large", report(18, " " * 1_000_001)),
    ("malformed", report(19, GOOD, time="soon")),
    ("timestamp_future", report(20, GOOD, time=START_MS + 86_400_000)),
    ("timestamp_future", report(21, GOOD, time=10**30)),
    ("timestamp_past", report(22, GOOD, time=-(10**30))),
    ("unknown_device", report(23, GOOD, device="d9")),
    ("no_product", report(24, GOOD, role="no_role")),
]


def test_reports_raise_or_are_refused(tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / "plant" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "plant" / name).write_text(text)
    lines = [
        report(0, GOOD),
        *(line for _, line in REFUSED),
        report(1000, GOOD, time=START_MS - 3_600_000),  # historical
        report(2000, GOOD | {"on": True, "list": [{"code": "a/b"}]}, time="2026-03-01T09:00:02Z"),
        report(3000, GOOD | {"on": 0}),
    ]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    recording, out = tmp_path / "in.jsonl", tmp_path / "out"
    with pytest.raises(SystemExit) as end:
        main(["replay", str(tmp_path / "plant"), "--input", str(recording), "--output", str(out)])
    assert end.value.code in (0, None)
    rejects = [json.loads(line) for line in (out / "rejects.jsonl").read_text().splitlines()]
    assert [one["reason"] for one in rejects] == [reason for reason, _ in REFUSED]
    assert rejects[1]["message"] == "'data.list[0].code' is not there, or holds no value"
    frames = json.loads((out / "summary.json").read_text())["frames"]
    assert frames == {"in": len(lines), "decoded": 4, "rejected": len(REFUSED), "filtered": 0, "held": 0}
    events = [json.loads(line) for line in (out / "alarms.jsonl").read_text().splitlines()]
    assert [(one["subject"], one["data"]["transition"], one["time"]) for one in events] == [
        ("d1/fault/7", "raised", "2026-03-01T09:00:00.000Z"),
        ("d1/fault/a_b", "raised", "2026-03-01T09:00:02.000Z"),
        ("d1/fault/7", "cleared", "2026-03-01T09:00:03.000Z"),
    ]
