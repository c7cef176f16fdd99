"""What a window said last stays: a plant folder through `replay`, and what stands in windows.jsonl."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from flows.cli import main
from operators.contract.spec import Metric
from operators.devices import Devices
from operators.windows.spec import ProductWindows, Window
from operators.windows.step import WindowsLogic
from tests.change.plants import FILES, START_MS, applied, changed, recording, write
from tests.contract.slices import slice_of

HALF_A_YEAR = 180 * 86_400
PLAIN = changed(
    FILES, ("products/press.yaml", "params:", "contract: {timestamp: {max_future: 400d}}\nparams:")
)


def reading(second: float, arrives: float, metric: float = 1.0) -> dict[str, Any]:
    payload = json.dumps({"id": "p1", "t": START_MS + round(1000 * second), "m": {"tempC": metric}})
    at = START_MS + round(1000 * arrives)
    return {"ingest_ts": at, "source": "line1", "topic": "127.0.0.1:1", "payload": payload}


def live(*seconds: float) -> list[dict[str, Any]]:
    return [reading(second, second) for second in seconds]


def replayed(
    tmp_path: Path, lines: Iterable[Mapping[str, Any]], files: Mapping[str, str] = PLAIN
) -> tuple[list[tuple[int, int, int]], int]:
    """(start, readings, revision) of every 10s window, in order of start, and how many readings were late;
    the same for every cut into entries. Every reading is in the telemetry, late or not."""
    plant, recorded = write(tmp_path / "plant", files), recording(tmp_path / "in.jsonl", *lines)
    found = []
    for cut in (1, 7, 10_000):
        out = tmp_path / str(cut)
        arguments = ["--input", str(recorded), "--output", str(out), "--entry-frames", str(cut), "--close"]
        with pytest.raises(SystemExit) as ended:
            main(["replay", str(plant), *arguments])
        assert not ended.value.code
        rows = [json.loads(row) for row in (out / "windows.jsonl").read_text().splitlines()]
        summary = json.loads((out / "summary.json").read_text())["readings"]
        assert summary["accepted"] + summary["late"] == pq.read_table(out / "telemetry.parquet").num_rows
        told = [
            (_seconds(row["start"]), row["count"], row["revision"])
            for row in rows
            if (row["metric"], row["window"]) == ("tempC", "10s")
        ]
        found.append((sorted(told), summary["late"]))
    assert found[0] == found[1] == found[2]
    return found[0]


def _seconds(text: str) -> int:
    return int(np.datetime64(text[:-1], "ms").astype(np.int64) - START_MS) // 1000


def test_a_gateway_that_sends_what_it_stored_behind_live_data_gets_its_windows(tmp_path: Path) -> None:
    stored = [reading(second, 7206) for second in range(25, 7200, 5)]
    lines = [*live(0, 5, 10, 15, 20, 7200, 7205), *stored, *live(7210, 7215, 7220)]
    windows, late = replayed(tmp_path, lines)
    assert windows == [
        (0, 2, 1),
        (10, 2, 1),
        (20, 1, 1),  # final when 7200 came
        (30, 1, 1),  # begins with the third reading that is older and rises
        *((start, 2, 1) for start in range(40, 7220, 10)),
        (7220, 1, 1),
    ]
    assert late == 2


def test_readings_that_come_again_behind_a_final_window_do_not_begin_it_anew(tmp_path: Path) -> None:
    again = [reading(second, 61, 2.0) for second in (1, 2, 3, 11, 12)]
    windows, late = replayed(tmp_path, [*live(*range(0, 65, 5)), *again, *live(65, 70)])
    assert windows == [*((start, 2, 1) for start in range(0, 70, 10)), (70, 1, 1)]
    assert late == 5


def test_a_clock_that_was_wrong_twice(tmp_path: Path) -> None:
    def ahead(*seconds: float, arrives: float) -> list[dict[str, Any]]:
        return [reading(HALF_A_YEAR + second, arrives) for second in seconds]

    lines = [
        *ahead(0, 5, 10, 15, arrives=15),
        *live(20, 25, 30, 35, 40),  # two are late, with the third the clock is right
        *ahead(3, 12, arrives=45),  # the window of 3 is final, that of 12 only closed by a tick
        *live(50, 55, 60, 65),
        *[reading(second, 66) for second in (21, 22, 23)],  # had no window
    ]
    windows, late = replayed(tmp_path, lines)
    assert windows == [
        (20, 1, 1),
        (30, 2, 1),
        (40, 1, 1),
        (60, 2, 1),
        (HALF_A_YEAR, 2, 1),
        (HALF_A_YEAR + 10, 2, 1),
        (HALF_A_YEAR + 10, 3, 2),
    ]
    assert late == 2 + 1 + 2 + 2


def test_a_device_that_seldom_sends_keeps_its_long_silence_open(tmp_path: Path) -> None:
    before, after = range(0, 3000, 100), range(6000, 6500, 100)
    stored = [reading(second, 6401) for second in range(3000, 6000, 100)]
    windows, late = replayed(tmp_path, [*live(*before, *after), *stored, *live(6500, 6600)])
    times = [*before, *range(3200, 6000, 100), *after, 6500, 6600]
    assert (windows, late) == ([(start, 1, 1) for start in times], 2)


def test_a_correction_still_comes_out_with_a_higher_revision(tmp_path: Path) -> None:
    files = changed(PLAIN, ("products/press.yaml", "{every: 10s,", "{every: 10s, correct_within: 60s,"))
    again = [reading(second, 71) for second in (31, 32, 33, 1)]  # 33 takes the clock back, 1 is final
    windows, late = replayed(tmp_path, [*live(*range(0, 75, 5)), *again, *live(75, 80)], files)
    corrected = [(30, 2, 1), (30, 3, 2), (30, 4, 3), (30, 5, 4)]
    others = [(start, 2, 1) for start in range(0, 80, 10) if start != 30]
    assert windows == sorted([*others, *corrected, (80, 1, 1)])
    assert late == 1


def test_a_window_within_correct_within_begins_however_many_gaps_there_are(tmp_path: Path) -> None:
    files = changed(PLAIN, ("products/press.yaml", "{every: 10s,", "{every: 10s, correct_within: 30m,"))
    between = [reading(second, 1501) for second in (1450, 1350, 1250, 150, 50)]  # never three that rise
    windows, late = replayed(tmp_path, [*live(*range(0, 1501, 100)), *between], files)
    assert (windows, late) == (
        [(n, 1, 1) for n in sorted([*range(0, 1501, 100), 1450, 1350, 1250, 150, 50])],
        0,
    )


def test_windows_that_go_and_come_with_the_plant_are_not_begun_anew(tmp_path: Path) -> None:
    other = changed(PLAIN, ("products/press.yaml", "{every: 10s,", "{every: 5s,"))
    lines = [*live(1, 2, 3), applied(3.5, other), *live(4), applied(4.5, PLAIN), *live(6, 11, 21)]
    assert replayed(tmp_path, lines) == ([(0, 3, 1), (10, 1, 1), (20, 1, 1)], 1)


def test_what_was_final_by_the_times_before_stays_so(tmp_path: Path) -> None:
    longer = changed(PLAIN, ("products/press.yaml", "{every: 10s,", "{every: 10s, lateness: 60s,"))
    lines = [*live(1, 12), applied(12.5, longer), reading(3, 13), reading(11, 14), *live(25)]
    assert replayed(tmp_path, lines) == ([(0, 1, 1), (10, 2, 1), (20, 1, 1)], 1)


DEVICES = Devices()
SPECS = {"p": ProductWindows({"a": Metric(name="a", type="number")}, (Window(every="10s"),))}


def fold(logic: WindowsLogic, *times: int) -> tuple[list[int], int]:
    """Starts of the windows that come out at readings in order at these seconds, and how many are late."""
    second, start = 1_000_000_000, START_MS // 1000
    rows = [
        {"device": "x", "frame": n, "ts": (start + at) * second, "ingest": (start + 999) * second}
        | {"flags": ("in_order",), "values": {"a": 1.0}}
        for n, at in enumerate(times)
    ]
    item = slice_of(rows, {"a": "number"}, DEVICES)
    logic.process(item)
    found = [int(ns) // second - start for batch in item.windows for ns in batch.start_ns]
    return found, sum(terms.get("readings_late", 0) for terms in item.ledger.values())


def test_what_came_out_is_known_after_a_restart_under_a_plant_without_the_window() -> None:
    without = {"p": ProductWindows(SPECS["p"].metrics, ())}
    before = WindowsLogic(SPECS, DEVICES)
    assert fold(before, 0, 10, 25) == ([0, 10], 0)
    before.apply(without)
    assert fold(before, 27) == ([20], 0)
    logic = WindowsLogic(without, DEVICES)
    logic.restore(before.snapshot())
    logic.apply(SPECS)
    assert fold(logic, 28, 11, 31, 45) == ([30], 2)


def test_state_of_a_version_that_did_not_know_what_came_out() -> None:
    """All that the device's clock had made final counts as come out, and what stands closed."""
    before = WindowsLogic(SPECS, DEVICES)
    assert fold(before, 0, 10, 20, 500, 510) == ([0, 10, 20, 500], 0)
    state = before.export()
    del state["p"]["10s"]["runs"]
    state["p"]["10s"]["clock"] = state["p"]["10s"]["clock"][:, :3]
    logic = WindowsLogic(SPECS, DEVICES)
    logic.load(state)
    assert fold(logic, 20, 300, 500, 515, 600) == ([510], 3)
