"""The input-gap alarm through the rules stage: told at its own place, and open until acknowledged."""

from __future__ import annotations

from operators.batch import Control
from rules.alarm import iso_ms
from tests.rules_kinds.stage import SECOND, START, logic, slices


def test_lost_input_is_told_and_waits_for_someone() -> None:
    stage = logic([], {})
    one = {"source": "fleet", "what": "messages of frames/0", "missing": 20}
    two = {"source": "journal", "what": "messages of frames/1", "missing": None}
    controls = [Control("gap", START + at * SECOND, data) for at, data in enumerate((one, two), 1)]
    items = slices(controls, (), stage.devices)
    for item in items:
        stage.process(item)
    told = [event.event for item in items for event in item.alarms]
    assert [(one["subject"], one["data"]["transition"], one["data"]["message"]) for one in told] == [
        (
            f"source:{source}/input-gap",
            transition,
            f"{source}: {missing} messages of {where} were deleted before they were read",
        )
        for source, missing, where in (
            ("fleet", 20, "frames/0"),
            ("journal", "an unknown number of", "frames/1"),
        )
        for transition in ("raised", "cleared")
    ]
    first = told[0]["data"]
    assert (first["severity"], first["productId"], first["device_id"]) == ("high", None, None)
    assert first["event_time"] == iso_ms(START + SECOND)
    assert first["evidence"]["values"] == {"source": "fleet", "missing": 20, "what": "messages of frames/0"}
    assert [one["ruleId"] for one in stage.export_active()] == ["input-gap", "input-gap"]
