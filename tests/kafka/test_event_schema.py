"""docs/alarm-events.schema.json, against what the engine writes."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner

from flows.cli import cli
from flows.event_schema import PATH, event_schema, event_schema_text
from tests.output.made import event

PRESS_LINE = Path(__file__).resolve().parents[2] / "examples" / "press-line"
START_MS = 1_772_355_600_000


def test_the_file_is_what_is_generated() -> None:
    assert PATH.read_text("utf-8") == event_schema_text(), "python -m flows.event_schema > docs/..."
    jsonschema.Draft202012Validator.check_schema(event_schema())


def test_the_events_of_a_replay(tmp_path: Path) -> None:
    lines = []
    for second in range(120):
        at = START_MS + 1000 * second
        payload = {
            "hub_timestamp": at,
            "device_timestamp": at,
            "data": {"metrics": {"tempC": 99.5 if second // 30 % 2 else 60, "rpm": 900, "mode": "run"}},
        }
        topic = "iotlink/prd/hub-1/press-01/periodic/pub/telemetry/json"
        told = {"ingest_ts": at + 20, "source": "line1", "topic": topic, "payload": json.dumps(payload)}
        lines.append(json.dumps(told))
    (tmp_path / "frames.jsonl").write_text("\n".join(lines) + "\n")
    arguments = ["replay", str(PRESS_LINE), "--input", str(tmp_path / "frames.jsonl")]
    result = CliRunner().invoke(cli, [*arguments, "--output", str(tmp_path / "out")], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    events = [json.loads(line) for line in (tmp_path / "out" / "alarms.jsonl").open("rb")]
    assert {one["data"]["transition"] for one in events} >= {"raised", "cleared", "closed"}
    validator = jsonschema.Draft202012Validator(event_schema())
    for one in events:
        validator.validate(one)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"sequence": "7"}, "'7' does not match"),
        ({"more": 1}, "'more' was unexpected"),
        ({"time": "2026-03-01T09:00:00Z"}, "does not match"),
        ({"type": "org.penstock.alarm.vanished"}, "does not match"),
        ({"data": {}}, "'alarm_id' is a required property"),
    ],
)
def test_what_is_no_event_is_refused(change: dict[str, object], told: str) -> None:
    whole = {**event(1).event, "id": "0" * 32}
    whole["data"] = {**whole["data"], "alarm_id": "0" * 32}
    validator = jsonschema.Draft202012Validator(event_schema())
    validator.validate(whole)
    with pytest.raises(jsonschema.ValidationError, match=told):
        validator.validate({**whole, **change})
