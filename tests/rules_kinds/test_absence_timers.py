"""Timers of an alarm of a device that was never heard: by the journal's clock, until it is heard."""

from __future__ import annotations

from operators.batch import Control
from rules.spec import AbsenceRule
from tests.rules_kinds.stage import SECOND, START, Frame, Item, Tick, logic, run

LISTED = {"d1": {"productId": "p"}, "d2": {"productId": "p"}}
SILENT = AbsenceRule(ruleId="silent", productId="p", for_=2 * SECOND, severity="low", latch=True, version="1")


def frame(name: str, time: int, ingest: int) -> Item:
    return Frame(name, START + time * SECOND, START + ingest * SECOND, {"a": (1.0, "good")})


def test_shelving_goes_by_the_devices_clock_once_it_is_heard() -> None:
    before: list[Item] = [frame("d2", 0, 0), Tick(START + 3 * SECOND)]
    [raised] = [
        event for event in run(logic([SILENT], LISTED), before, []) if event.event["subject"] == "d1/silent"
    ]
    data = raised.event["data"]
    assert (data["device_id"], data["event_time"][17:19]) == ("d1", "02")
    shelve = Control(
        "action",
        START + 4 * SECOND,
        {"id": "a", "kind": "alarm", "action": "shelve", "alarm_id": data["alarm_id"], "by": "kim"}
        | {"until_ms": START // 1_000_000 + 10_000},
    )
    late = frame("d1", -35, 5)  # 40 s behind: its clock reaches the tenth second at the fiftieth
    early = run(logic([SILENT], LISTED), [*before, shelve, late, Tick(START + 11 * SECOND)], [])
    assert "unshelved" not in [event.event["data"]["transition"] for event in early]
    told = []
    for cuts in ([], range(12)):
        ticks: list[Item] = [Tick(START + second * SECOND) for second in (11, 50, 52)]
        items = [*before, shelve, late, *ticks, frame("d2", 53, 53)]
        events = run(logic([SILENT], LISTED), items, list(cuts))
        mine = [event for event in events if event.event["subject"] == "d1/silent"]
        told.append([event.event for event in mine])
        found = [event.event["data"]["transition"] for event in mine]
        assert found == ["raised", "shelved", "cleared", "closed", "raised", "unshelved"]
    assert told[0] == told[1]
