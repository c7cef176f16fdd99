"""Events as people read them: whole JSON, messages, what a changed plant does to open alarms."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import pytest

from operators.batch import IN_ORDER, AlarmEvent, Control, FrameBatch, ReadingBatch, Slice, Ticks
from operators.devices import Devices
from operators.expression.tree import ExpressionError
from rules.alarm import iso_ms
from rules.check import Known, RuleProblem, check_rule
from rules.message import parse_message
from rules.spec import Rule, RuleProduct, RulesSpec, ThresholdRule
from rules.step import RulesLogic

SECOND = 1_000_000_000
MINUTE = 60 * SECOND
START = 1_772_355_600 * SECOND  # 2026-03-01T09:00:00Z
PRODUCT = RuleProduct(
    "press-v1", {"tempC": "number", "mode": "string", "on": "boolean", "n": "integer"}, {"tempHigh": 80.0}
)
ATTRIBUTES = {"press-01": {"site_id": "ulsan", "customer_id": "", "line": "A"}}


def rule(**keys: Any) -> ThresholdRule:
    given = {
        "ruleId": "temp-high-press",
        "productId": "press-v1",
        "condition": "metrics.tempC > param.tempHigh",
        "clear_condition": "metrics.tempC < param.tempHigh - 5",
        "on_delay": 10 * SECOND,
        "severity": "high",
        "message": "{device_id}: {tempC:.1f} Cel, above {param.tempHigh} for 10 s",
        "version": "0123456789ab",
    }
    return ThresholdRule(**(given | keys))


def spec(*rules: Rule, product: RuleProduct = PRODUCT) -> RulesSpec:
    return RulesSpec("press-line", {"press-v1": product}, rules, ATTRIBUTES)


def logic(*rules: Rule) -> RulesLogic:
    devices = Devices()
    devices.add("press-01", "press-v1", "hub-7")
    return RulesLogic(spec(*rules), devices)


def readings(*rows: tuple[float, float], first: int = 0, ticks: tuple[tuple[int, int], ...] = ()) -> Slice:
    """Rows (seconds, tempC) of press-01 from position `first` on; ticks (row, second)."""
    n = len(rows)
    value = np.full((4, n), np.nan)
    quality = np.full((4, n), 3, np.uint8)
    value[0] = [row[1] for row in rows]
    quality[0] = 0
    times = np.array([START + int(row[0] * SECOND) for row in rows], np.int64)
    batch = ReadingBatch(
        "press-v1",
        np.zeros(n, np.int32),
        times,
        value,
        quality,
        (np.arange(first, first + n, dtype=np.uint64) << np.uint64(16)),
        times + 250_000_000,
        np.full(n, IN_ORDER, np.uint8),
        np.zeros(n, np.int32),
        {},
        Ticks(
            np.array([tick[0] for tick in ticks], np.int64),
            np.array([START + tick[1] * SECOND for tick in ticks], np.int64),
        ),
    )
    return Slice(1, first + n, FrameBatch.none(), readings=[batch])


def process(stage: RulesLogic, item: Slice) -> list[AlarmEvent]:
    stage.process(item)
    return item.alarms


def told(events: list[AlarmEvent]) -> list[tuple[str, str, int]]:
    return [(e.event["data"]["transition"], e.event["time"][14:], e.position) for e in events]


def test_a_press_that_overheats_as_whole_json() -> None:
    stage = logic(rule())
    events = process(stage, readings((0, 85), (5, 86), (11, 86), (60, 70)))
    subject = "press-01/temp-high-press"
    alarm_id = hashlib.sha256(f"temp-high-press\x1f{subject}\x1f1772355600000".encode()).hexdigest()[:32]
    sequence = "00000000000000065536"
    assert json.loads(json.dumps(events[0].event)) == {
        "specversion": "1.0",
        "id": hashlib.sha256(f"press-line\x1f0\x1f{subject}\x1f{sequence}".encode()).hexdigest()[:32],
        "type": "org.penstock.alarm.raised",
        "source": "/plants/press-line",
        "subject": subject,
        "time": "2026-03-01T09:00:10.000Z",
        "sequence": sequence,
        "partitionkey": subject,
        "data": {
            "alarm_id": alarm_id,
            "ruleId": "temp-high-press",
            "rule_version": "0123456789ab",
            "productId": "press-v1",
            "device_id": "press-01",
            "hub_id": "hub-7",
            "site_id": "ulsan",
            "customer_id": None,
            "transition": "raised",
            "severity": "high",
            "onset_time": "2026-03-01T09:00:00.000Z",
            "event_time": "2026-03-01T09:00:10.000Z",
            "ingest_time": "2026-03-01T09:00:05.250Z",
            "actor": None,
            "comment": None,
            "state": {
                "active": True,
                "acknowledged": False,
                "latched": False,
                "shelved_until": None,
                "suppressed": False,
                "out_of_service": False,
            },
            "evidence": {
                "expression": "metrics.tempC > param.tempHigh",
                "values": {"tempC": 86.0},
                "quality": "good",
                "position": 1,
            },
            "message": "press-01: 86.0 Cel, above 80 for 10 s",
        },
    }
    assert list(events[0].event["data"]) == [
        *("alarm_id", "ruleId", "rule_version", "productId", "device_id", "hub_id", "site_id", "customer_id"),
        *("transition", "severity", "onset_time", "event_time", "ingest_time", "actor", "comment", "state"),
        *("evidence", "message"),
    ]
    assert told(events) == [("raised", "00:10.000Z", 1), ("cleared", "01:00.000Z", 3)]
    cleared = events[1].event["data"]
    assert cleared["alarm_id"] == alarm_id
    assert cleared["state"]["active"] is False
    assert stage.export_active() == [cleared]
    assert stage.counters() == {"temp-high-press": {"evaluations": 4, "raised": 1, "cleared": 1}}


def test_a_tick_finds_the_delay_over_with_the_same_bytes_as_a_reading() -> None:
    by_tick = process(logic(rule()), readings((0, 85), (5, 86), ticks=((2, 6), (2, 11), (2, 12))))
    by_reading = process(logic(rule()), readings((0, 85), (5, 86), (30, 50)))
    assert told(by_tick) == [("raised", "00:10.000Z", 1)]
    assert by_tick[0] == by_reading[0]


def test_a_tick_waits_for_the_grace() -> None:
    # the reading of 09:00:05 came at :05.250, so the device's clock is 0.25 s behind the journal's
    stage = logic(rule())
    assert process(stage, readings((0, 85), (5, 86), ticks=((2, 11),))) == []
    assert told(process(stage, readings(first=2, ticks=((0, 12),)))) == [("raised", "00:10.000Z", 1)]


def test_an_open_occurrence_is_closed_before_the_next_is_raised() -> None:
    stage = logic(rule(on_delay=0))
    events = process(stage, readings((0, 85), (1, 70), (2, 90)))
    assert told(events) == [
        ("raised", "00:00.000Z", 0),
        ("cleared", "00:01.000Z", 1),
        ("closed", "00:02.000Z", 2),
        ("raised", "00:02.000Z", 2),
    ]
    closed, raised = events[2].event["data"], events[3].event["data"]
    assert closed["alarm_id"] == events[0].event["data"]["alarm_id"] != raised["alarm_id"]
    assert closed["onset_time"] == "2026-03-01T09:00:00.000Z"
    assert [event.sequence[-6:] for event in events[2:]] == ["131072", "131073"]


@pytest.mark.parametrize(
    ("severity", "acknowledge", "transitions"),
    [
        ("medium", None, ["raised", "cleared"]),
        ("low", None, ["raised", "cleared", "closed"]),
        ("info", None, ["raised", "cleared", "closed"]),
        ("critical", "none", ["raised", "cleared", "closed"]),
        ("low", "required", ["raised", "cleared"]),
    ],
)
def test_what_is_acknowledged_stays_open(
    severity: str, acknowledge: str | None, transitions: list[str]
) -> None:
    stage = logic(rule(on_delay=0, severity=severity, acknowledge=acknowledge))
    events = process(stage, readings((0, 85), (1, 70)))
    assert [event.event["data"]["transition"] for event in events] == transitions
    by_hand = transitions[-1] != "closed"
    assert {event.event["data"]["state"]["acknowledged"] for event in events} == {not by_hand}
    assert len(stage.export_active()) == by_hand


def test_deadband_moves_the_bound_that_clears() -> None:
    stage = logic(rule(condition="tempC > 80", clear_condition=None, deadband=2.0, on_delay=0))
    assert told(process(stage, readings((0, 81), (1, 79), (2, 78.1), (3, 78), (4, 79)))) == [
        ("raised", "00:00.000Z", 0),
        ("cleared", "00:03.000Z", 3),
    ]
    low = logic(rule(condition="not (tempC >= 20)", clear_condition=None, deadband=2.0, on_delay=0))
    assert told(process(low, readings((0, 19), (1, 21), (2, 22)))) == [
        ("raised", "00:00.000Z", 0),
        ("cleared", "00:02.000Z", 2),
    ]


def control(stage: RulesLogic, changed: RulesSpec) -> list[AlarmEvent]:
    stage.apply(changed)
    data = {"sha256": "x", "files": {}}
    return process(stage, Slice(2, 9, FrameBatch.none(), Control("plant", START + 99 * SECOND, data)))


def test_an_unchanged_rule_keeps_its_state_over_a_changed_plant() -> None:
    stage = logic(rule(), rule(ruleId="other", on_delay=0))
    assert len(process(stage, readings((0, 85), (5, 86)))) == 1
    wider = RuleProduct("press-v1", {"new": "number", **PRODUCT.metrics}, {"tempHigh": 80.0})
    added = rule(ruleId="added", condition="new > 3", message=None)
    assert control(stage, spec(added, rule(), rule(ruleId="other", on_delay=0), product=wider)) == []
    assert len(stage.export_active()) == 1
    events = process(stage, wider_readings(readings((11, 86), (60, 70), first=9)))
    assert [(e.ruleId, e.event["data"]["transition"]) for e in events] == [
        ("temp-high-press", "raised"),
        ("temp-high-press", "cleared"),
        ("other", "cleared"),
    ]


def wider_readings(item: Slice) -> Slice:
    """The same readings of a product that has one more metric, its first, absent."""
    batch = item.readings[0]
    batch.value = np.vstack((np.full((1, len(batch)), np.nan), batch.value))
    batch.quality = np.vstack((np.full((1, len(batch)), 3, np.uint8), batch.quality))
    return item


@pytest.mark.parametrize(
    ("changed", "comment"),
    [([], "rule removed"), ([rule(on_delay=0, off_delay=SECOND, version="9")], "rule changed")],
)
def test_what_a_changed_plant_leaves_open_is_closed(changed: list[ThresholdRule], comment: str) -> None:
    stage = logic(rule(on_delay=0))
    raised = process(stage, readings((0, 85)))[0].event["data"]
    events = control(stage, spec(*changed))
    assert told(events) == [("closed", "01:39.000Z", 8)]
    data = events[0].event["data"]
    assert (data["comment"], data["alarm_id"], data["state"]["active"]) == (
        comment,
        raised["alarm_id"],
        False,
    )
    assert events[0].sequence == f"{8 << 16:020d}"
    assert stage.export_active() == []
    assert control(stage, spec(*changed)) == []
    again = process(stage, readings((200, 85), first=9))
    assert [e.event["data"]["transition"] for e in again] == ["raised"] * len(changed)


def test_times_are_cut_down() -> None:
    assert iso_ms(1_999_999) == "1970-01-01T00:00:00.001Z"
    assert iso_ms(-1) == "1969-12-31T23:59:59.999Z"


def test_messages() -> None:
    known = {"metrics": ["tempC", "a-b"], "params": ["p"], "attributes": ["site_id"], "owner": "press-v1"}
    template = parse_message(
        "{{{device_id}}} {tempC:.1f} {tempC} {metrics.`a-b`:d} {param.p} {device.site_id}",
        **known,  # type: ignore[arg-type]
    )
    values = {
        ("", "device_id"): "x",
        ("metrics", "tempC"): 85.0,
        ("metrics", "a-b"): 2.5,
        ("param", "p"): None,
    }
    assert template.fill(lambda root, name: values.get((root, name))) == "{x} 85.0 85 2 unknown unknown"


@pytest.mark.parametrize(
    ("text", "told", "start", "stop"),
    [
        ("is {tempc}", "no metric 'tempc' in press-v1; did you mean 'tempC'?", 3, 10),
        ("{param.q}", "no parameter 'q' in press-v1", 0, 9),
        ("{device.site}", "no column 'site' in devices.csv; did you mean 'site_id'?", 0, 13),
        ("{tempC", "a single '{'; write '{{' for a brace", 0, 1),
        ("50 } x", "a single '}'; write '}}' for a brace", 3, 4),
        ("{tempC:>99999999f}", "'>99999999f' is no number format; write for example {tempC:.1f}", 0, 18),
        ("{0.__class__}", "no metric '0.__class__' in press-v1", 0, 13),
        ("{}", "no metric '' in press-v1; write '{{}}' for braces", 0, 2),
        ("{tempC.real}", "no metric 'tempC.real' in press-v1; did you mean 'tempC'?", 0, 12),
        ("x" * 3000, "a message of 3000 characters; at most 2000 are taken", 2000, 2001),
    ],
)
def test_messages_that_are_refused(text: str, told: str, start: int, stop: int) -> None:
    with pytest.raises(ExpressionError) as caught:
        parse_message(text, metrics=["tempC"], params=["p"], attributes=["site_id"], owner="press-v1")
    assert (caught.value.message, caught.value.start, caught.value.stop) == (told, start, stop)


@pytest.mark.parametrize(
    ("keys", "problems"),
    [
        ({}, []),
        (
            {"condition": "metrics.tempc > 80", "clear_condition": None},
            [("condition", "no metric 'tempc' in press-v1; did you mean 'tempC'?", 0, 13, False)],
        ),
        (
            {"clear_condition": "tempC <"},
            [("clear_condition", "the expression ends where a value is expected", 6, 7, False)],
        ),
        (
            {"productId": "presv1"},
            [("productId", "no product 'presv1'; did you mean 'press-v1'?", -1, -1, False)],
        ),
        (
            {"message": "{tempc}"},
            [("message", "no metric 'tempc' in press-v1; did you mean 'tempC'?", 0, 7, False)],
        ),
        (
            {"deadband": 2.0},
            [("deadband", "clear_condition says already when it clears; leave one out", -1, -1, False)],
        ),
        (
            {"deadband": 2.0, "clear_condition": None, "condition": "mode == 'run'"},
            [
                (
                    "deadband",
                    "a deadband needs a comparison with <, <=, > or >= in the condition, "
                    "outside of functions",
                    -1,
                    -1,
                    False,
                )
            ],
        ),
        (
            {"severity": "info", "acknowledge": "required"},
            [("acknowledge", "an info rule is an event and never acknowledged; leave it out", -1, -1, False)],
        ),
        (
            {"condition": "param.tempHigh > 3"},
            [
                ("condition", "always holds within the contract of press-v1", 0, 18, True),
            ],
        ),
        (
            {"condition": "tempC > 200 or n > 1 and abs(tempC) > 1000"},
            [("condition", "never holds within the contract of press-v1", 0, 42, True)],
        ),
        (
            {"condition": "tempC + 100 >= clamp(n, -5, 60)"},
            [("condition", "always holds within the contract of press-v1", 0, 31, True)],
        ),
    ],
)
def test_check_of_a_rule(keys: dict[str, Any], problems: list[Any]) -> None:
    ranges = {"press-v1": {"tempC": (-40.0, 150.0)}}
    found = check_rule(rule(**keys), Known({"press-v1": PRODUCT}, ["site_id", "line"], ATTRIBUTES, ranges))
    assert found == [RuleProblem(*problem) for problem in problems]


def test_a_condition_without_a_metric_is_refused() -> None:
    found = check_rule(
        rule(condition="3 > param.tempHigh", clear_condition=None), Known({"press-v1": PRODUCT})
    )
    assert found[0] == RuleProblem("condition", "names no metric, so no reading evaluates it", 0, 18)
