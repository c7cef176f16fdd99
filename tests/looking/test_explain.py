"""`penstock explain` against values worked out by hand from the recording below."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from connectors.errors import ConfigError, PenstockError
from flows.explain_command import explain

START_MS = 1_772_355_600_000  # 2026-03-01T09:00:00Z
FILES = {
    "plant.yaml": """
plant: explained
sources:
  line1: {kind: mqtt, host: 127.0.0.1, subscribe: ["d/#"], topic: "d/{device_id}", product: press}
""",
    "products/press.yaml": """
productId: press
version: 1
decode: {format: json, timestamp: t, metrics: m}
expected_every: 10s
metrics:
  tempC: {unit: Cel}
  flow: {}
  mode: {type: string, values: [idle, run]}
params: {high: 80}
""",
    "rules/hot.yaml": """
ruleId: hot
productId: press
type: threshold
condition: "(tempC + flow * 2 > param.high and mode == 'run') or avg(tempC, 30s) > 100"
clear_condition: "tempC < param.high - 10"
on_delay: 15s
severity: high
---
ruleId: steep
productId: press
type: threshold
condition: "rate(tempC) > 0.3 and not held(tempC > 70, 20s) and since(tempC > 76) >= 0"
severity: low
---
ruleId: faulty
productId: press
type: threshold
condition: "mode == 'idle'"
where: "device.line == 'north'"
severity: low
""",
    "devices.csv": "device_id,productId,high,line\np1,press,,north\np2,press,85,south\np3,press,,north\n",
}
READINGS: list[tuple[int, str, dict[str, Any]]] = [
    (0, "p1", {"tempC": 70, "flow": 3, "mode": "run"}),
    (5, "p1", {"tempC": 75}),
    (10, "p1", {"tempC": 74.5, "flow": 4}),
    (12, "p2", {"tempC": 60}),
    (20, "p1", {"tempC": 78}),
    (28, "p1", {"flow": None}),
    (42, "p1", {"mode": "run"}),
]


@pytest.fixture
def plant(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    lines = []
    for second, device, metrics in READINGS:
        at = START_MS + 1000 * second
        payload = json.dumps({"t": at, "m": metrics})
        lines.append({"ingest_ts": at, "source": "line1", "topic": f"d/{device}", "payload": payload})
    (tmp_path / "recorded.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def run(plant: Path, rule: str, *options: str) -> Any:
    asked = [str(plant), rule, "--input", str(plant / "recorded.jsonl"), *options]
    return CliRunner().invoke(explain, asked, catch_exceptions=True)


def at(second: int) -> str:
    return f"2026-03-01T09:00:{second:02}Z"


def told(plant: Path, rule: str, second: int, device: str = "p1") -> dict[str, Any]:
    result = run(plant, rule, "--device", device, "--at", at(second), "--json")
    assert result.exception is None, result.exception
    (found,) = json.loads(result.stdout)["devices"]
    return dict(found)


def nodes(found: dict[str, Any], what: str = "condition") -> dict[str, dict[str, Any]]:
    """Every sub-expression of one expression by its text."""
    (tree,) = [one["tree"] for one in found["expressions"] if one["what"] == what]
    by_text: dict[str, dict[str, Any]] = {}

    def gather(node: dict[str, Any]) -> None:
        by_text[node["text"]] = node
        for below in node["children"]:
            gather(below)

    gather(tree)
    return by_text


def values(found: dict[str, Any], what: str = "condition") -> dict[str, Any]:
    return {text: node["value"] for text, node in nodes(found, what).items()}


def test_every_sub_expression(plant: Path) -> None:
    found = told(plant, "hot", 12)
    assert values(found) == {
        "tempC + flow * 2 > param.high and mode == 'run' or avg(tempC, 30s) > 100": True,
        "tempC + flow * 2 > param.high and mode == 'run'": True,
        "tempC + flow * 2 > param.high": True,  # 82.5 > 80
        "tempC + flow * 2": 82.5,  # 74.5 + 4 * 2
        "tempC": 74.5,
        "flow * 2": 8.0,
        "flow": 4.0,
        "param.high": 80.0,
        "mode == 'run'": True,
        "mode": "run",
        "avg(tempC, 30s) > 100": False,
        "avg(tempC, 30s)": (70 + 75 + 74.5) / 3,
    }
    assert values(found, "clear") == {
        "tempC < param.high - 10": False,
        "tempC": 74.5,
        "param.high - 10": 70.0,
        "param.high": 80.0,
    }
    assert found["evaluated"] == {
        "time": "2026-03-01T09:00:10.000Z",
        "ingest_time": "2026-03-01T09:00:10.000Z",
        "position": 2,
        "recalled": False,
    }
    assert found["parameters"] == [{"name": "high", "value": 80.0, "from": "press: params"}]


def test_held_values_and_their_age(plant: Path) -> None:
    found = nodes(told(plant, "hot", 20))
    assert (found["tempC"]["quality"], found["tempC"]["age_s"]) == ("good", 0.0)
    assert (found["flow"]["value"], found["flow"]["quality"], found["flow"]["age_s"]) == (4.0, "good", 10.0)
    assert (found["mode"]["value"], found["mode"]["age_s"]) == ("run", 20.0)
    null = nodes(told(plant, "hot", 28))
    assert (null["flow"]["value"], null["flow"]["quality"], null["flow"]["age_s"]) == (None, "bad", 0.0)
    assert null["tempC + flow * 2"]["value"] is None
    # mode at 42 s: by itself; tempC of 20 s is 22 s old and counts, that of 10 s would not
    later = nodes(told(plant, "hot", 59))
    assert (later["tempC"]["value"], later["tempC"]["age_s"]) == (78.0, 22.0)
    assert later["mode"]["age_s"] == 0.0


def test_windows(plant: Path) -> None:
    average = nodes(told(plant, "hot", 28))["avg(tempC, 30s)"]
    assert average["value"] == (70 + 75 + 74.5 + 78 + 78) / 5  # the held value counts at 28 s
    assert average["past"] == {
        "samples": [
            {"time": f"2026-03-01T09:00:{second}.000Z", "value": value}
            for second, value in (("00", 70.0), ("05", 75.0), ("10", 74.5), ("20", 78.0), ("28", 78.0))
        ]
    }
    later = nodes(told(plant, "hot", 59))["avg(tempC, 30s)"]
    assert [one["value"] for one in later["past"]["samples"]] == [78.0, 78.0, 78.0]  # of (12 s, 42 s]
    assert later["value"] == 78.0


def test_functions_of_the_past(plant: Path) -> None:
    found = nodes(told(plant, "steep", 20))
    assert found["rate(tempC)"]["value"] == (78 - 74.5) / 10
    assert found["held(tempC > 70, 20s)"]["value"] is False  # true since 5 s
    assert found["held(tempC > 70, 20s)"]["past"]["true_since"] == "2026-03-01T09:00:05.000Z"
    assert found["since(tempC > 76)"]["value"] == 0.0
    later = told(plant, "steep", 28)  # the reading of 28 s carries none of its metrics
    assert later["evaluated"]["time"] == "2026-03-01T09:00:20.000Z"
    assert later["last_reading"] == "2026-03-01T09:00:28.000Z"
    assert values(later)["held(tempC > 70, 20s)"] is False
    before = nodes(told(plant, "steep", 11))
    assert before["since(tempC > 76)"]["value"] is None
    assert before["rate(tempC)"]["value"] == (74.5 - 75) / 5
    assert "true_at" in before["since(tempC > 76)"]["past"]


def test_a_delay_that_runs(plant: Path) -> None:
    # 70 + 6 < 80 at 0 s; 75 + 6 > 80 at 5 s: the delay of 15 s ends at 20 s
    found = told(plant, "hot", 12)
    assert found["outcome"] == (
        "not raised yet: the condition holds since 2026-03-01T09:00:05.000Z, on_delay runs"
    )
    (delay,) = found["delays"]
    assert (delay["phase"], delay["since"], delay["due"], delay["paused"]) == (
        "rising",
        "2026-03-01T09:00:05.000Z",
        "2026-03-01T09:00:20.000Z",
        None,
    )
    raised = told(plant, "hot", 20)
    assert raised["outcome"] == "raised: active, unacknowledged since 2026-03-01T09:00:05.000Z"
    (alarm,) = raised["alarms"]
    assert (alarm["transition"], alarm["event_time"]) == ("raised", "2026-03-01T09:00:20.000Z")


def test_parameters_of_a_device(plant: Path) -> None:
    found = told(plant, "hot", 59, "p2")
    assert found["parameters"] == [{"name": "high", "value": 85.0, "from": "devices.csv"}]
    assert values(found)["tempC + flow * 2"] is None
    assert found["outcome"] == "not raised: the condition is unknown"


def test_a_parameter_is_told_as_the_reading_met_it(plant: Path) -> None:
    """Whatever was said of it since, and by whom."""
    changes = [{"op": "upsert", "table": "devices", "data": {"device_id": "p2", "high": "95"}}]
    master = {"id": "a1", "kind": "master", "changes": changes, "by": "kim", "why": None}
    param = {"id": "a2", "kind": "param", "device_id": "p2", "param": "high", "value": 70.0, "by": "kim"}
    reading = {"t": START_MS + 50_000, "m": {"tempC": 61, "flow": 1, "mode": "run"}}
    lines: list[dict[str, Any]] = [
        {"action": master, "at": START_MS + 43_000},
        {"ingest_ts": START_MS + 50_000, "source": "line1", "topic": "d/p2", "payload": json.dumps(reading)},
        {"action": {**param, "why": None}, "at": START_MS + 52_000},
        {"tick": START_MS + 58_000},
    ]
    with (plant / "recorded.jsonl").open("a") as recorded:
        recorded.writelines(json.dumps(line) + "\n" for line in lines)
    for second, high in ((45, 85.0), (59, 95.0)):
        assert told(plant, "hot", second, "p2")["parameters"] == [
            {"name": "high", "value": high, "from": "devices.csv"}
        ]


def test_a_device_that_was_not_heard(plant: Path) -> None:
    found = told(plant, "hot", 59, "p3")
    assert (found["outcome"], found["expressions"]) == ("no reading of it has reached the rules", [])
    silent = told(plant, "faulty", 12, "p2")
    assert silent["outcome"] == "not evaluated: no reading carried one of its metrics"


def test_readings_that_rules_did_not_see(plant: Path) -> None:
    lines = (plant / "recorded.jsonl").read_text().splitlines()

    def late(ingest: int, second: int, **metrics: Any) -> str:
        payload = json.dumps({"t": START_MS + 1000 * second, "m": metrics})
        line = {"ingest_ts": START_MS + 1000 * ingest, "source": "line1", "topic": "d/p1", "payload": payload}
        return json.dumps(line)

    lines += [late(43, 41, tempC=99), late(44, -2000, tempC=99), late(45, 44, tempC="warm")]
    (plant / "recorded.jsonl").write_text("".join(line + "\n" for line in lines))
    found = told(plant, "hot", 59)
    assert found["passed_by"] == {"out of order": 1, "historical": 1, "rejected: type": 1}
    assert found["evaluated"]["time"] == "2026-03-01T09:00:42.000Z"
    assert values(found)["tempC"] == 78.0


def test_out_of_schedule_and_suppressed(plant: Path) -> None:
    rule = """
ruleId: night
productId: press
type: threshold
condition: "tempC > 50"
schedule: {cron: "0 22 * * *", for: 8h}
suppressed_by: hot
severity: low
"""
    (plant / "rules" / "night.yaml").write_text(rule)
    found = told(plant, "night", 12)
    assert (found["in_schedule"], found["suppressed_by"]) == (False, ["hot"])
    assert found["outcome"] == "not raised: the reading stands outside of the rule's schedule"
    lines = run(plant, "night", "--device", "p1").stdout.splitlines()
    assert "suppressed by hot while that is active" in lines


def test_limits(plant: Path) -> None:
    rule = """
ruleId: bounds
productId: press
type: limit
of: tempC
limits: {HH: 90, H: 76, L: 5}
deadband: 2
severity: {HH: critical, H: high, L: low}
"""
    (plant / "rules" / "bounds.yaml").write_text(rule)
    found = told(plant, "bounds", 20)
    assert {one["what"]: one["value"] for one in found["expressions"]} == {
        "condition HH": False,
        "clear HH": True,
        "condition H": True,
        "clear H": False,
        "condition L": False,
        "clear L": True,
    }
    assert values(found, "clear H")["76 - 2.0"] == 74.0
    assert [(one["part"], one["phase"]) for one in found["delays"]] == [
        ("HH", "idle"),
        ("H", "active"),
        ("L", "idle"),
    ]
    assert found["outcome"].startswith("raised: active")


def test_what_is_printed(plant: Path) -> None:
    lines = run(plant, "hot", "--device", "p1", "--at", at(12)).stdout.splitlines()
    assert [line.rstrip() for line in lines[1:14]] == [
        "p1 (press): not raised yet: the condition holds since 2026-03-01T09:00:05.000Z, on_delay runs",
        "last evaluated by the reading of 2026-03-01T09:00:10.000Z, position 2",
        "",
        "value    condition",
        "true     tempC + flow * 2 > param.high and mode == 'run' or avg(tempC, 30s) > 100",
        "true       tempC + flow * 2 > param.high and mode == 'run'",
        "true         tempC + flow * 2 > param.high",
        "82.5           tempC + flow * 2",
        "74.5             tempC   [good]",
        "8                flow * 2",
        "4                  flow   [good]",
        "80             param.high   [press: params]",
        "true         mode == 'run'",
    ]
    assert "on_delay 15 s: runs since 2026-03-01T09:00:05.000Z, over at 2026-03-01T09:00:20.000Z" in lines


def test_a_line_for_each_device(plant: Path) -> None:
    lines = [line.split("  ") for line in run(plant, "hot").stdout.splitlines()]
    assert lines[3][0] == "p1"
    assert lines[4][0] == "p2"


@pytest.mark.parametrize(
    ("arguments", "error", "told"),
    [
        (("hott",), ConfigError, "no rule 'hott'; did you mean 'hot'?"),
        (("hot", "--device", "p9"), ConfigError, "no device 'p9' in devices.csv"),
        (("hot", "--at", "soon"), ConfigError, "--at soon: write a time, e.g. 2026-03-01T09:00:00Z"),
    ],
)
def test_refusals(plant: Path, arguments: tuple[str, ...], error: type[Exception], told: str) -> None:
    result = run(plant, *arguments)
    assert type(result.exception) is error
    assert str(result.exception) == told


def test_a_plant_that_never_ran(plant: Path) -> None:
    result = CliRunner().invoke(explain, [str(plant), "hot"])
    assert isinstance(result.exception, PenstockError)
    assert "run it first: penstock run" in str(result.exception)


def test_where(plant: Path) -> None:
    found = told(plant, "faulty", 20)
    assert values(found, "where") == {"device.line == 'north'": True, "device.line": "north"}
    assert values(found) == {"mode == 'idle'": False, "mode": "run"}
