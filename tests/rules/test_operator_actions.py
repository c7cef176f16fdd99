"""Operators' actions on alarms: what is answered, word by word, and the events that they become."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from operators.batch import Control, FrameBatch, Slice
from rules.lifecycle import OVER_KEPT
from rules.lifecycle_table import ACTIONS, BITS, TABLE, markdown, met
from rules.spec import LimitRule, Limits
from rules.step import RulesLogic
from tests.rules.test_alarm_events import (
    MINUTE,
    SECOND,
    START,
    control,
    logic,
    process,
    readings,
    rule,
    spec,
)

NAME = "press-01/temp-high-press"


def act(
    stage: RulesLogic, action: str, alarm_id: str, second: int = 60, until: int | None = None, **keys: Any
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The answer to an action, and the bodies of its events."""
    data = {
        "id": "a" * 32,
        "kind": "alarm",
        "action": action,
        "alarm_id": alarm_id,
        "by": "kim",
        "why": "seen",
        "until_ms": None if until is None else (START + until * SECOND) // 1_000_000,
    }
    item = Slice(2, 9, FrameBatch.none(), Control("action", START + second * SECOND, data | keys))
    stage.process(item)
    assert len(item.answers) == 1
    return item.answers[0], [event.event["data"] for event in item.alarms]


def raised(**keys: Any) -> tuple[RulesLogic, str]:
    stage = logic(rule(on_delay=0, **keys))
    events = process(stage, readings((0, 85)))
    return stage, events[0].event["data"]["alarm_id"]


def test_an_acknowledgement_is_an_event_and_is_answered() -> None:
    stage, alarm_id = raised()
    answer, events = act(stage, "ack", alarm_id)
    state = {
        "active": True,
        "acknowledged": True,
        "latched": False,
        "shelved_until": None,
        "suppressed": False,
        "out_of_service": False,
    }
    assert answer == {
        "id": "a" * 32,
        "accepted": True,
        "message": f"{NAME} is acknowledged",
        "alarm_id": alarm_id,
        "subject": NAME,
        "state": state,
        "at_ms": START // 1_000_000 + 60_000,
    }
    assert [
        (one["transition"], one["actor"], one["comment"], one["event_time"], one["ingest_time"], one["state"])
        for one in events
    ] == [("acknowledged", "kim", "seen", "2026-03-01T09:01:00.000Z", "2026-03-01T09:01:00.000Z", state)]
    assert events[0]["evidence"] == {
        "expression": "metrics.tempC > param.tempHigh",
        "values": {"tempC": 85.0},
        "quality": "good",
        "position": 8,  # of the last frame before the action
    }
    cleared = process(stage, readings((90, 70), first=9))
    assert [event.event["data"]["transition"] for event in cleared] == ["cleared", "closed"]


def test_an_action_on_what_is_over_names_the_state_that_it_met() -> None:
    stage, alarm_id = raised(severity="low")
    process(stage, readings((1, 70), first=1))
    answer, events = act(stage, "ack", alarm_id)
    assert events == []
    assert (answer["accepted"], answer["message"]) == (False, f"{NAME}: this occurrence is closed")
    assert answer["state"]["active"] is False
    answer, _ = act(stage, "ack", "f" * 32)
    assert answer["message"] == f"no open alarm '{'f' * 32}': it is closed, or never was"
    assert (answer["subject"], answer["state"]) == (None, None)


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (["ack", "ack"], "is acknowledged already, or need not be"),
        (["reset"], "is not latched; there is nothing to reset"),
        (["unshelve"], "is not shelved"),
        (["suppress", "suppress"], "is suppressed already"),
        (["unsuppress"], "is not suppressed"),
        (["out_of_service", "out_of_service"], "is out of service already"),
        (["in_service"], "is in service"),
    ],
)
def test_what_cannot_be_done_is_refused(actions: list[str], message: str) -> None:
    stage, alarm_id = raised()
    for action in actions[:-1]:
        answer, _ = act(stage, action, alarm_id)
        assert answer["accepted"]
    before = stage.alarms.export() | {"frames": None}  # these know the journal's clock
    answer, events = act(stage, actions[-1], alarm_id)
    assert (answer["accepted"], answer["message"], events) == (False, f"{NAME} {message}", [])
    assert stage.alarms.export() | {"frames": None} == before


def test_an_unknown_action_is_refused() -> None:
    stage, alarm_id = raised()
    answer, _ = act(stage, "erase", alarm_id)
    assert answer["message"] == f"no action 'erase'; known: {', '.join(ACTIONS)}"
    answer, _ = act(stage, "ack", alarm_id, why=None)
    assert answer["accepted"]


def test_shelving_ends_by_the_devices_clock() -> None:
    stage, alarm_id = raised()
    answer, events = act(stage, "shelve", alarm_id, until=90)
    assert answer["message"] == f"{NAME} is shelved until 2026-03-01T09:01:30.000Z"
    assert events[0]["state"]["shelved_until"] == "2026-03-01T09:01:30.000Z"
    assert process(stage, readings((80, 86), first=9, ticks=((1, 91),))) == []
    [event] = process(stage, readings(first=10, ticks=((0, 92),)))
    data = event.event["data"]
    assert (data["transition"], data["actor"], data["event_time"]) == (
        "unshelved",
        None,
        "2026-03-01T09:01:30.000Z",
    )
    assert (data["evidence"]["position"], data["ingest_time"]) == (9, "2026-03-01T09:01:20.250Z")
    assert data["state"]["shelved_until"] is None


def test_shelving_is_limited() -> None:
    stage, alarm_id = raised()
    answer, _ = act(stage, "shelve", alarm_id)
    assert answer["message"] == f"{NAME} can be shelved only until a time; its rule has no max_shelve"
    answer, _ = act(stage, "shelve", alarm_id, until=60)
    assert answer["message"] == f"{NAME} cannot be shelved until 2026-03-01T09:01:00.000Z: that is past"
    for until in (None, 3600):
        stage, alarm_id = raised(max_shelve=5 * MINUTE)
        answer, _ = act(stage, "shelve", alarm_id, until=until)
        assert answer["state"]["shelved_until"] == "2026-03-01T09:06:00.000Z"


def test_a_latched_alarm_waits_for_its_reset() -> None:
    stage, alarm_id = raised(severity="low", latch=True)
    answer, _ = act(stage, "reset", alarm_id)
    assert answer["message"] == f"{NAME} is still active; it can be reset once it has cleared"
    [cleared] = process(stage, readings((61, 70), first=9))
    assert cleared.event["data"]["state"]["latched"] is True
    answer, events = act(stage, "reset", alarm_id, 70)
    assert [(one["transition"], one["state"]["latched"]) for one in events] == [
        ("reset", False),
        ("closed", False),
    ]
    assert stage.export_active() == []


def test_what_stands_carries_over_to_the_next_occurrence() -> None:
    stage, first = raised(severity="low")
    act(stage, "out_of_service", first)
    cleared = process(stage, readings((61, 70), first=9))
    assert [event.event["data"]["transition"] for event in cleared] == ["cleared"]
    closed, again = process(stage, readings((62, 85), first=10))
    assert [closed.event["data"]["transition"], again.event["data"]["transition"]] == ["closed", "raised"]
    assert again.event["data"]["state"]["out_of_service"] is True
    answer, _ = act(stage, "in_service", first)
    assert answer["accepted"] is False
    answer, _ = act(stage, "in_service", again.event["data"]["alarm_id"])
    assert answer["accepted"]


def test_a_sequence_never_falls_behind_an_action() -> None:
    """A delay found over by a tick rests on a reading before the action."""
    stage = logic(rule(on_delay=0, off_delay=10 * SECOND))
    [event] = process(stage, readings((0, 85)))
    process(stage, readings((1, 70), first=1))
    act(stage, "ack", event.event["data"]["alarm_id"], 5)
    ended = process(stage, readings(first=9, ticks=((0, 13),)))
    assert [(one.event["data"]["transition"], one.position, one.sequence[-6:]) for one in ended] == [
        ("cleared", 8, "524289"),
        ("closed", 8, "524290"),
    ]


def test_only_so_many_that_are_over_are_known() -> None:
    stage, first = raised(severity="low")
    rows = [(1 + at, 70 if at % 2 == 0 else 85) for at in range(2 * OVER_KEPT + 1)]
    process(stage, readings(*rows, first=1))
    answer, _ = act(stage, "ack", first)
    assert answer["message"].startswith("no open alarm")
    assert len(stage.alarms.over) == OVER_KEPT


def test_a_changed_message_keeps_the_state_and_a_changed_mode_does_not() -> None:
    stage, alarm_id = raised(max_shelve=5 * MINUTE)
    act(stage, "shelve", alarm_id, until=90)
    changed = rule(
        on_delay=0, max_shelve=8 * MINUTE, message="{device_id} is hot", version="9", severity="low"
    )
    assert control(stage, spec(changed)) == []
    [ended] = process(stage, readings((120, 86), first=9))
    data = ended.event["data"]
    assert (data["transition"], data["severity"], data["rule_version"]) == ("unshelved", "high", "9")
    [closed] = control(stage, spec(rule(on_delay=0, max_shelve=8 * MINUTE, mode="shadow")))
    assert (closed.event["data"]["transition"], closed.event["data"]["comment"]) == ("closed", "rule changed")


def test_each_limit_is_a_subject_and_the_one_beyond_suppresses() -> None:
    stage = logic(
        LimitRule(
            ruleId="limits", productId="press-v1", of="tempC", limits=Limits(HH=95.0, H=80.0), severity="high"
        )
    )
    events = process(stage, readings((0, 85), (1, 96), (2, 90), (3, 70)))
    assert [
        (one.event["subject"], one.event["data"]["transition"], one.event["data"]["state"]["suppressed"])
        for one in events
    ] == [
        ("press-01/limits/H", "raised", False),
        ("press-01/limits/HH", "raised", False),
        ("press-01/limits/H", "suppressed", True),
        ("press-01/limits/HH", "cleared", False),
        ("press-01/limits/H", "unsuppressed", False),
        ("press-01/limits/H", "cleared", False),
    ]
    assert events[0].event["data"]["evidence"]["expression"] == "tempC > 80"


def test_the_table_is_the_one_that_is_documented() -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "alarms.md"
    assert markdown() in page.read_text(encoding="utf-8")


def test_every_action_has_a_row_in_every_state() -> None:
    for flags in range(1 << len(BITS)):
        if flags & BITS["open"]:
            assert all(met(action, flags) is not None for action in ACTIONS)
    assert {row.happens for row in TABLE} >= set(ACTIONS)
