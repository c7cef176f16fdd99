"""Metrics of rules and of the alarm system: numbers worked out by hand."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from litestar.testing import TestClient
from prometheus_client.parser import text_string_to_metric_families

from connectors.journal.output_writer import OutputWriter
from flows.engine import run_slices
from flows.folder import open_plant
from flows.recorded import recorded_slices
from flows.rule_status import rule_rows
from flows.server import make_app
from flows.status import write_atomically
from operators.batch import AlarmEvent, Slice
from operators.devices import Devices
from rules.spec import ThresholdRule
from tests.looking.history import event
from tests.looking.test_explain import FILES, READINGS, START_MS

MORE = [(60, "p1", {"tempC": 60, "flow": 3}), (80, "p1", {"tempC": 90})]


def recorded(folder: Path) -> Path:
    for name, text in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    lines = []
    for second, device, metrics in [*READINGS, *MORE]:
        at = START_MS + 1000 * second
        payload = json.dumps({"t": at, "m": metrics})
        lines.append({"ingest_ts": at, "source": "line1", "topic": f"d/{device}", "payload": payload})
    path = folder / "recorded.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def samples(client: TestClient[Any]) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
    }


def test_what_rules_did(tmp_path: Path) -> None:
    plant = open_plant(recorded(tmp_path).parent)
    shard = run_slices(plant, recorded_slices(plant, [tmp_path / "recorded.jsonl"]), lambda item: None)
    told = shard.told_of_rules()
    rows = {row["ruleId"]: row for row in rule_rows({"rules": told})}
    # raised at 20 s; below 70 at 60 s
    hot = rows["hot"]
    assert (hot["productId"], hot["evaluations"], hot["raised"], hot["cleared"]) == ("press", 9, 1, 1)
    assert hot["active_s"] == 40.0
    # unknown: p2, which has no flow; p1 at 28 and 42 s, whose flow is null, and at 80 s, when its mode is
    # 38 s old (expected_every is 10 s)
    assert (hot["sampled"], hot["unknown"]) == (9, 4)
    assert rows["steep"]["evaluations"] == 7  # the readings that carry tempC
    assert [name for name, _ in told["products"]] == ["press"]
    assert "thresholds" in [name for name, _ in told["kinds"]]

    data = tmp_path / "data"
    (data / "run").mkdir(parents=True)
    body = {"component": "flow", "pid": os.getpid(), "state": "running", "rules": told}
    write_atomically(data / "run" / "flow.json", json.dumps(body).encode())
    with TestClient(make_app(data, "127.0.0.1:8080"), base_url="http://127.0.0.1:8080") as client:
        found = samples(client)
    assert found["penstock_rule_evaluations_total", "press", "hot"] == 9
    assert found["penstock_rule_raised_total", "press", "hot"] == 1
    assert found["penstock_rule_cleared_total", "press", "hot"] == 1
    assert found["penstock_rule_alarm_seconds_total", "press", "hot"] == 40
    assert found["penstock_rule_unknown_ratio", "press", "hot"] == 4 / 9
    assert found["penstock_rule_active", "press", "hot"] == 0
    assert found["penstock_rules_product_seconds_total", "press"] > 0


def test_a_thousand_rules_in_the_status_file(tmp_path: Path) -> None:
    plant = open_plant(recorded(tmp_path).parent)
    one = plant.rules[0]
    assert isinstance(one, ThresholdRule)
    for number in range(1000):
        made = ThresholdRule(
            ruleId=f"a-rule-with-a-long-name-{number}",
            productId="press",
            condition=f"tempC > {number}",
            severity="low",
        )
        plant.rules.append(made)
    shard = run_slices(plant, recorded_slices(plant, [tmp_path / "recorded.jsonl"]), lambda item: None)
    assert len(json.dumps(shard.told_of_rules())) < 100_000


def test_figures_of_the_alarm_system(tmp_path: Path) -> None:
    now = time.time() - START_MS / 1000
    day = 86_400
    events = [
        event(now - 2 * day, "raised", "a/stale", "critical"),
        event(now - 700, "raised", "b/old", acknowledged=False),
        *(event(now - 300 + n, "raised", f"c{n}/hot", "low", suppressed=n == 0) for n in range(5)),
        *(event(now - 40 + 10 * n, "raised", "d/chatters", "medium") for n in range(3)),
        event(now - 5, "raised", "e/told", "info"),
    ]
    devices = Devices()
    writer = OutputWriter(tmp_path / "output", devices, {})
    item = Slice(1, 1, _no_frames())
    item.alarms = [
        AlarmEvent(0, one["data"]["device_id"], one["data"]["ruleId"], f"{n:020d}", one)
        for n, one in enumerate(events)
    ]
    writer.write(item)
    writer.flush()
    writer.close()
    with TestClient(make_app(tmp_path, "127.0.0.1:8080"), base_url="http://127.0.0.1:8080") as client:
        found = samples(client)
    assert found["penstock_alarms_raised_10m",] == 7  # c1 to c4, and d three times
    assert found["penstock_alarms_chattering",] == 1
    assert found["penstock_alarms_stale",] == 1
    assert found["penstock_alarms_hidden",] == 1
    assert found["penstock_alarms_unacknowledged",] == 1
    assert found["penstock_alarms_standing", "critical"] == 1
    assert found["penstock_alarms_standing", "low"] == 4
    assert found["penstock_alarms_standing", "medium"] == 1  # one subject


def _no_frames() -> Any:
    from connectors.journal.merging import empty_batch
    from operators.batch import Ticks

    return empty_batch(Ticks.none())
