"""What goes on over a change of the plant, and what begins anew: through the live engine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from flows.engine import run_recording
from flows.recorded import recorded_slices
from flows.replay_files import Outcome
from tests.change.plants import FILES, applied, changed, frame, parameter, plant_of, recording

CUTS = (1, 3, 1000)


def run(tmp_path: Path, *lines: Mapping[str, Any]) -> Outcome:
    """The outcome, which no cut into entries changes."""
    path = recording(tmp_path / "in.jsonl", *lines)
    plant = plant_of(FILES)
    outcomes = [run_recording(plant, recorded_slices(plant, [path], cut), close=True) for cut in CUTS]
    told = [
        json.dumps([one.alarms, list(one.window_rows()), one.rejects, one.state, one.summary])
        for one in outcomes
    ]
    assert told[0] == told[1] == told[2]
    return outcomes[0]


def temperatures(*seconds: float, device: str = "p1", **metrics: Any) -> list[dict[str, Any]]:
    return [frame(second, device, tempC=85.0, rpm=100, **metrics) for second in seconds]


def alarms(outcome: Outcome) -> list[tuple[str, str, float, str | None]]:
    """(ruleId, transition, seconds since the start, comment)."""
    found = []
    for event in outcome.alarms:
        data = event["data"]
        minutes, seconds = data["event_time"][14:-1].split(":")
        at = 60 * int(minutes) + float(seconds)
        found.append((data["ruleId"], data["transition"], at, data["comment"]))
    return found


def windows(outcome: Outcome, metric: str = "tempC", every: str = "10s") -> list[tuple[Any, ...]]:
    """(start second, count, mean, revision) of p1's windows."""
    return [
        (int(row["start"][17:19]), row["count"], row["mean"], row["revision"])
        for row in outcome.window_rows()
        if (row["device_id"], row["metric"], row["window"]) == ("p1", metric, every)
    ]


def test_a_delay_goes_on_where_another_rule_changes(tmp_path: Path) -> None:
    files = changed(FILES, ("rules/hot.yaml", "rpm > 5000", "rpm > 4000"))
    found = run(tmp_path, *temperatures(0, 1, 2, 3), applied(3.5, files), *temperatures(4, 5, 6))
    assert alarms(found) == [("hot", "raised", 5.0, None)]


def test_a_delay_begins_anew_with_its_rule(tmp_path: Path) -> None:
    files = changed(FILES, ("rules/hot.yaml", "on_delay: 5s", "on_delay: 4s"))
    found = run(tmp_path, *temperatures(0, 1, 2, 3), applied(3.5, files), *temperatures(4, 5, 6, 7, 8, 9))
    assert alarms(found) == [("hot", "raised", 8.0, None)]


def test_an_open_alarm_of_a_rule_that_goes_is_closed(tmp_path: Path) -> None:
    files = {**FILES, "rules/hot.yaml": FILES["rules/hot.yaml"].partition("---\n")[2]}
    found = run(tmp_path, *temperatures(0, 3, 6), applied(6.5, files), *temperatures(7, 20))
    assert alarms(found) == [("hot", "raised", 5.0, None), ("hot", "closed", 6.5, "rule removed")]


def test_a_metric_that_is_new_counts_from_the_change_on_and_the_others_go_on(tmp_path: Path) -> None:
    files = changed(FILES, ("products/press.yaml", "  rpm: {range", "  torque: {}\n  rpm: {range"))
    found = run(
        tmp_path,
        *temperatures(1, 2, 3, torque=5.0),
        applied(3.5, files),
        *temperatures(4, 5, torque=7.0),
        *temperatures(11, torque=1.0),
    )
    assert windows(found) == [(0, 5, 85.0, 1), (10, 1, 85.0, 1)]
    assert windows(found, "torque") == [(0, 2, 7.0, 1), (10, 1, 1.0, 1)]
    assert found.state["p1"]["torque"]["value"] == 1.0
    assert found.summary["readings"]["accepted"] == 6


def test_newest_values_of_a_silent_device_stay(tmp_path: Path) -> None:
    files = changed(FILES, ("products/press.yaml", "  rpm: {range", "  torque: {}\n  rpm: {range"))
    found = run(tmp_path, *temperatures(1), applied(2, files), *temperatures(3, device="p2"))
    assert found.state["p1"]["tempC"] == {
        "value": 85.0,
        "quality": "good",
        "time": "2026-03-01T09:00:01.000Z",
        "position": 0,
    }


def test_the_timeline_and_the_last_value_stay(tmp_path: Path) -> None:
    """An older reading is out of order after the change too, and a step is measured over it."""
    files = changed(FILES, ("products/press.yaml", "range: [0, 6000]", "range: [0, 7000]"))
    found = run(
        tmp_path,
        *temperatures(10),
        applied(11, files),
        frame(9, "p1", tempC=20.0),  # out of order: neither a step nor a newest value
        frame(12, "p1", tempC=0.0),  # 85 degrees in one step
    )
    assert found.state["p1"]["tempC"]["value"] == 0.0
    assert found.state["p1"]["tempC"]["quality"] == "bad"


def test_a_duplicate_over_a_change_is_filtered(tmp_path: Path) -> None:
    files = changed(FILES, ("products/press.yaml", "range: [0, 6000]", "range: [0, 7000]"))
    found = run(tmp_path, *temperatures(1), applied(2, files), *temperatures(1), *temperatures(3))
    assert found.summary["readings"] == {"decoded": 3, "accepted": 2, "late": 0, "rejected": 0, "filtered": 1}


def test_windows_that_go_come_out_as_they_stand(tmp_path: Path) -> None:
    files = changed(FILES, ("products/press.yaml", "every: 10s", "every: 5s"))
    found = run(tmp_path, *temperatures(1, 2, 3), applied(3.5, files), *temperatures(4, 6, 11))
    assert windows(found) == [(0, 3, 85.0, 1)]
    assert windows(found, every="5s") == [(0, 1, 85.0, 1), (5, 1, 85.0, 1), (10, 1, 85.0, 1)]


def test_aggregates_that_are_new_are_null_in_windows_that_were_open(tmp_path: Path) -> None:
    files = changed(FILES, ("products/press.yaml", "mean, last]", "mean, last, std, p50]"))
    found = run(tmp_path, *temperatures(1, 2), applied(3, files), *temperatures(4, 11, 12))
    rows = [row for row in found.window_rows() if (row["device_id"], row["metric"]) == ("p1", "tempC")]
    assert [(row["count"], row["mean"], row["std"], row["p50"]) for row in rows] == [
        (3, 85.0, None, None),
        (2, 85.0, 0.0, pytest.approx(85.0, rel=0.01)),
    ]


def test_lateness_that_grows_keeps_windows_open_for_longer(tmp_path: Path) -> None:
    files = changed(FILES, ("products/press.yaml", "{every: 10s,", "{every: 10s, lateness: 20s,"))
    found = run(
        tmp_path,
        *temperatures(8),
        applied(9, files),
        frame(12, "p1", tempC=85.0),
        frame(7, "p1", tempC=65.0),  # late by the plant before, in time by this one
        *temperatures(35),
    )
    assert sorted(windows(found))[0] == (0, 2, 75.0, 1)


def test_a_product_that_is_new_and_one_that_goes(tmp_path: Path) -> None:
    other = FILES["products/press.yaml"].replace("productId: press", "productId: mill")
    files = {
        **changed(FILES, ("plant.yaml", "    product: press\n", "")),
        "products/mill.yaml": other,
        "devices.csv": "device_id,productId\np1,press\np3,mill\n",
    }
    gone = {
        **changed(FILES, ("plant.yaml", "product: press", "product: mill")),
        "products/mill.yaml": other,
        "devices.csv": "device_id,productId\np3,mill\n",
    }
    del gone["products/press.yaml"], gone["rules/hot.yaml"]
    found = run(
        tmp_path,
        *temperatures(1),
        *temperatures(1, device="p3"),
        applied(2, files),
        *temperatures(3),
        *temperatures(3, device="p3"),
        applied(4, gone),
        *temperatures(5),
        *temperatures(5, device="p3"),
    )
    assert [(row["reason"], row["position"]) for row in found.rejects] == [
        ("unknown_device", 1),
        ("unknown_device", 4),
    ]
    assert windows(found) == [(0, 2, 85.0, 1)]


def test_devices_csv_changes_from_one_frame_to_the_next(tmp_path: Path) -> None:
    files = {**FILES, "devices.csv": "device_id,productId,hub_id,k\np1,press,h2,5\np3,press,h1,\n"}
    found = run(
        tmp_path,
        *temperatures(1),
        frame(1, "p2", rpm=1),
        frame(1, "p3", rpm=1),
        applied(2, files),
        frame(3, "p2", rpm=1),
        frame(3, "p3", rpm=1),
        *temperatures(4, 5, 6, 7, 8, 9),
    )
    assert [(row["device_id"], row["position"]) for row in found.rejects] == [("p3", 2), ("p2", 3)]
    assert found.state["p1"]["load"]["value"] == 500.0
    assert [event["data"]["hub_id"] for event in found.alarms] == ["h2"]


def test_a_parameter_counts_from_its_place_on_in_derive_and_in_rules(tmp_path: Path) -> None:
    found = run(
        tmp_path,
        *temperatures(1),
        parameter(1.5, 1, "p1", "k", 10),
        parameter(1.5, 2, "p1", "tempHigh", 90.0),
        *temperatures(2, device="p2"),
        *temperatures(2, 4, 9),
        parameter(9.5, 3, "p1", "tempHigh", None),
        *temperatures(10, 12, 16),
    )
    assert found.state["p1"]["load"]["value"] == 1000.0
    assert found.state["p2"]["load"]["value"] == 300.0
    p1 = [event for event in found.alarms if event["data"]["device_id"] == "p1"]
    assert [event["data"]["onset_time"] for event in p1] == ["2026-03-01T09:00:10.000Z"]


def test_a_parameter_stays_over_a_change_and_counts_where_the_plant_knows_it(tmp_path: Path) -> None:
    without = changed(
        FILES, ("products/press.yaml", "k: 2, ", ""), ("products/press.yaml", "rpm * param.k", "rpm")
    )
    without["devices.csv"] = "device_id,productId,hub_id\np1,press,h1\np2,press,h1\n"
    again = changed(FILES, ("products/press.yaml", "k: 2", "k: 4"))
    found = run(
        tmp_path,
        parameter(0, 1, "p1", "k", 10),
        *temperatures(1),
        applied(2, without),
        *temperatures(3),
        parameter(3.5, 2, "p2", "k", 10),  # which the plant does not know now
        applied(4, again),
        *temperatures(5),
        *temperatures(5, device="p2"),
    )
    loads = {
        (row["device_id"], row["start"][17:19]): (row["min"], row["max"], row["last"])
        for row in found.window_rows()
        if row["metric"] == "load"
    }
    assert loads == {("p1", "00"): (100.0, 1000.0, 1000.0), ("p2", "00"): (300.0, 300.0, 300.0)}


def test_alarms_and_delays_of_a_device_that_goes_end_with_it(tmp_path: Path) -> None:
    files = {**FILES, "devices.csv": "device_id,productId,hub_id,k\np2,press,h1,3\n"}
    found = run(
        tmp_path,
        *temperatures(0),
        *temperatures(4, 6),
        *temperatures(6, device="p2"),
        applied(7, files),
        *temperatures(8, device="p2"),
        applied(8.5, {**files, "devices.csv": FILES["devices.csv"].replace("p2,press", "p9,press")}),
    )
    assert alarms(found) == [("hot", "raised", 5.0, None), ("hot", "closed", 7.0, "device removed")]
