"""The plan of a change, to the letter, and what is refused of it and of parameters."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from connectors.errors import ConfigError
from flows import specs
from flows.change import plan_change
from flows.history_command import write_files
from flows.param_rows import parameter_rows, read_value
from operators.parameters import Parameters, refusal
from tests.change.plants import FILES, changed, plant_of, write

BEFORE = plant_of(FILES)
OPEN = [{"ruleId": "hot", "productId": "press"}] * 2 + [{"ruleId": "fast", "productId": "press"}]


def lines(files: Mapping[str, str], waiting: Mapping[str, Any] | None = None) -> list[str]:
    """The plan without its head."""
    return plan_change(BEFORE, plant_of(files), OPEN, waiting or {}).lines()[1:]


def test_rules() -> None:
    files = changed(FILES, ("rules/hot.yaml", "rpm > 5000", "rpm > 4000"))
    files["rules/new.yaml"] = (
        FILES["rules/hot.yaml"].partition("---\n")[0].replace("ruleId: hot", "ruleId: x")
    )
    assert lines(files) == [
        "  rule  fast  changed   live; begins anew, 1 open alarm is closed",
        "      condition: rpm > 5000 -> rpm > 4000",
        "  rule  x     added     live; begins with the next reading",
        "2 changes; open alarms: 2 kept, 1 closed",
    ]


def test_a_rule_that_means_the_same_keeps_its_state() -> None:
    files = changed(FILES, ("rules/hot.yaml", "severity: high", "severity: high\nmessage: too hot"))
    assert lines(files) == [
        "  rule  hot  changed   live; keeps its state, 2 open alarms are kept",
        "      message: added too hot",
        "1 change; open alarms: 3 kept, 0 closed",
    ]


def test_comments_alone() -> None:
    files = changed(FILES, ("rules/hot.yaml", "severity: low", "severity: low # for now"))
    assert lines(files) == [
        "  comments and layout alone; every state is kept",
        "0 changes; open alarms: 3 kept, 0 closed",
    ]


def test_a_metric_of_another_type_takes_its_rules_along() -> None:
    files = changed(FILES, ("products/press.yaml", "rpm: {range: [0, 6000]}", "rpm: {type: integer}"))
    assert lines(files) == [
        "  product  press  changed   live",
        "      metrics.rpm.type: added integer",
        "      metrics.rpm.range: removed (was [0,6000])",
        "  rule     fast   affected  live; begins anew for press: what it uses has changed, "
        "1 open alarm is closed",
        "2 changes; open alarms: 2 kept, 1 closed",
    ]


def test_a_device_that_goes_takes_its_alarms_along() -> None:
    files = {**FILES, "devices.csv": "device_id,productId,hub_id,k\np2,press,h1,3\n"}
    rows = [{**OPEN[0], "device_id": "p1"}, {**OPEN[0], "device_id": "p2"}]
    assert plan_change(BEFORE, plant_of(files), rows).lines()[1:] == [
        "  device  p1  removed   live; 1 open alarm is closed",
        "1 change; open alarms: 1 kept, 1 closed",
    ]


def test_windows_sinks_and_tables() -> None:
    kafka = changed(
        FILES, ("plant.yaml", "journal:", 'sinks: {alarms: {kind: kafka, bootstrap: "k:9092"}}\njournal:')
    )
    files = changed(FILES, ("products/press.yaml", "every: 10s", "every: 5s"))
    files["devices.csv"] += "".join(f"q{n},press,h1,\n" for n in range(20))
    before = plant_of(kafka)
    told = plan_change(before, plant_of(files), [], {"kafka": {"records": 12}}).lines()[1:]
    assert [line for line in told if not line.startswith("      ")] == [
        "  product  press                 changed   live; open windows of 10s are written as they stand",
        "  devices  q0, q1, q2, ... (20)  added     live",
        "  sink     alarms                removed   stops drainer-kafka; "
        "12 records that wait for it are not sent to kafka",
        "22 changes; open alarms: 0 kept, 0 closed; stops drainer-kafka",
    ]


def test_secrets_are_not_shown() -> None:
    before = changed(FILES, ("plant.yaml", "kind: tcp", "kind: mqtt\n    host: b\n    subscribe: [x]"))
    before["plant.yaml"] = "\n".join(
        line
        for line in before["plant.yaml"].splitlines()
        if 'listen: "127.0.0.1:${LINE1' not in line and "framing" not in line
    )
    one, two = (
        plant_of(
            changed(before, ("plant.yaml", "host: b", f"host: b\n    username: u\n    password: {word}"))
        )
        for word in ("geheim", "anders")
    )
    told = plan_change(one, two).lines()
    assert "      password: *** -> ***" in told


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            "plant: change-line",
            "plant: other",
            "plant.yaml  plant: 'change-line' cannot become 'other': its name stands in each alarm and "
            "every subject; keep 'change-line', or run the new plant over a data directory of its own",
        ),
        (
            "max: 100MB",
            "max: 90MB",
            "plant.yaml  journal.max: 100,000,000 bytes cannot become 90,000,000: a journal on disk never "
            "shrinks; keep it as it is, or larger",
        ),
        (
            "max: 100MB",
            'max: 100MB, kind: kafka, bootstrap: "k:9092"',
            "plant.yaml  journal: another journal does not hold what this one does; keep kind and topic as "
            "they are, or run the new plant over a data directory of its own",
        ),
        (
            "journal:",
            "shards: {count: 1, by: hub_id}\njournal:",
            "plant.yaml  shards: devices cannot move between shards while they are heard; keep it as it "
            "is, or run the new plant over a data directory of its own",
        ),
    ],
)
def test_what_a_running_plant_cannot_become(old: str, new: str, told: str) -> None:
    plan = plan_change(BEFORE, plant_of(changed(FILES, ("plant.yaml", old, new))))
    assert plan.refused == [told]
    assert [item.effect for item in plan.items] == ["refused"]
    assert plan.lines()[-1] == "1 change; nothing is done, because of what is refused"


@pytest.mark.parametrize(
    ("device", "param", "value", "told"),
    [
        ("p1", "tempHigh", 70.0, None),
        ("p1", "note", "spare", None),
        ("p1", "tempHig", 1.0, "no parameter 'tempHig' of press; did you mean 'tempHigh'?"),
        ("p1", "zzz", 1.0, "no parameter 'zzz' of press; it has k, tempHigh, note"),
        ("pp1", "k", 1.0, "no device 'pp1' in devices.csv; did you mean 'p1'?"),
        ("p1", "k", "warm", "'k' of press is a number, not the text 'warm'"),
        ("p1", "note", 3.5, "'note' of press is a text, not the number 3.5"),
        ("p1", "k", float("nan"), "a finite number or a text is expected for 'k'"),
        ("p1", "k", True, "a finite number or a text is expected for 'k'"),
        ("p1", "k", [1], "a finite number or a text is expected for 'k'"),
        ("p1", 7, 1.0, "device_id and param are names"),
        (None, "k", 1.0, "device_id and param are names"),
        ("p1", "note", "x" * 1001, "a text of 1001 characters; at most 1000"),
    ],
)
def test_parameters_that_are_refused(device: Any, param: Any, value: Any, told: str | None) -> None:
    assert refusal(device, param, value, specs.parameters(BEFORE), Parameters()) == told


def test_a_value_is_read_as_its_parameter_takes_it() -> None:
    spec = specs.parameters(BEFORE)
    assert read_value(spec, "p1", "k", "7") == 7.0
    assert read_value(spec, "p1", "note", "7") == "7"
    with pytest.raises(ConfigError, match=r"^k: 'warm' is no number, and 'k' is one$"):
        read_value(spec, "p1", "k", "warm")


def test_where_each_value_comes_from() -> None:
    about = {"by": "kim", "why": "summer", "at_ms": 1_772_355_600_000}
    rows = parameter_rows(
        BEFORE,
        [
            {"device_id": "p1", "param": "tempHigh", "value": 70.0, **about},
            {"device_id": "p1", "param": "note", "value": 5.0, **about},
            {"device_id": "gone", "param": "k", "value": 5.0, **about},
        ],
    )
    assert [(r["device_id"], r["param"], r["value"], r["source"], r["in_effect"]) for r in rows] == [
        ("p1", "k", 2.0, "product", True),
        ("p1", "tempHigh", 70.0, "set", True),
        ("p1", "note", 5.0, "set", False),
        ("p1", "note", "none", "product", True),
        ("p2", "k", 3.0, "devices.csv", True),
        ("p2", "tempHigh", 80.0, "product", True),
        ("p2", "note", "none", "product", True),
        ("gone", "k", 5.0, "set", False),
    ]
    assert (rows[1]["by"], rows[1]["why"], rows[1]["at"]) == ("kim", "summer", "2026-03-01T09:00:00.000Z")


def test_a_version_is_written_into_a_folder(tmp_path: Path) -> None:
    folder = write(tmp_path / "plant", {**FILES, "rules/more.yaml": "", "tests/a.yaml": "name: x\n"})
    (folder / "rules" / "hot.yaml").write_text("changed", "utf-8")
    assert write_files(folder, BEFORE.files) == 2
    assert {path: (folder / path).read_text("utf-8") for path in FILES} == FILES
    assert not (folder / "rules" / "more.yaml").exists()
    assert (folder / "tests" / "a.yaml").exists()
