"""The files of a replay: their bytes, their order, and that no cut shows in them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow.parquet as pq
import pytest

from connectors.journal.lines import iso_time
from flows.plant_file import Plant
from flows.replay_files import EndState, Outcome, OutcomeCollector, write_outcome
from operators.batch import Slice
from operators.contract.spec import Metric
from operators.devices import Devices
from operators.windows.spec import Window
from tests.output.made import MODES, START_NS, devices, event, made_slice, reject, windows


def plant(aggregates: list[str]) -> Plant:
    """As much of a plant as is asked for."""
    metrics = {
        "tempC": Metric(name="tempC"),
        "count": Metric(name="count", type="integer"),
        "mode": Metric(name="mode", type="string"),
    }
    window = Window(every="1m", aggregates=cast(Any, aggregates))
    other = {"tempC": Metric(name="tempC", type="string"), "on": Metric(name="on", type="boolean")}
    products = {
        "press-v1": SimpleNamespace(productId="press-v1", metrics=metrics, windows=[window]),
        "lamp": SimpleNamespace(productId="lamp", metrics=other, windows=[]),
    }
    return cast(Plant, SimpleNamespace(products=products))


@dataclass
class End:
    devices: Devices = field(default_factory=devices)

    @property
    def stages(self) -> dict[str, Any]:
        value = {"value": 1.5, "quality": "good", "time": iso_time(START_NS), "position": 3}
        logic = SimpleNamespace(export_state=lambda: {"press-01": {"tempC": value}, "press-00": {}})
        return {"state": SimpleNamespace(logic=logic)}


def outcome(slices: list[Slice], aggregates: tuple[str, ...] = ("count", "min", "mean")) -> Outcome:
    collector = OutcomeCollector(plant(list(aggregates)))
    for item in slices:
        collector.take(item)
    return collector.outcome(cast(EndState, End()))


def cut(rows: int) -> list[Slice]:
    """120 readings in slices of `rows`, alarms, windows and rejects at fixed positions."""
    made = []
    for entry, first in enumerate(range(0, 120, rows)):
        inside = range(first, min(first + rows, 120))
        made.append(
            made_slice(
                entry + 1,
                first,
                len(inside),
                alarms=[event(p, n, device=d) for p in inside if p % 50 == 7 for n, d in ALARMS],
                rejects=[reject(p) for p in inside if p % 40 == 3],
                windows=[windows(p) for p in inside if p % 60 == 30],
            )
        )
    return made


ALARMS = ((0, "press-01"), (0, "press-00"), (1, "press-00"))


def test_lines_as_the_contract_says(tmp_path: Path) -> None:
    write_outcome(tmp_path, outcome(cut(120)))
    first, *_ = (tmp_path / "windows.jsonl").read_text().splitlines()
    assert first == (
        '{"window":"1m","productId":"press-v1","device_id":"press-00","metric":"tempC",'
        '"start":"2026-03-01T09:00:00.000Z","end":"2026-03-01T09:01:00.000Z","count":3,"good":3,"bad":1,'
        '"coverage":75.0,"min":1.0,"mean":null,"revision":31}'
    )
    first, *_ = (tmp_path / "rejects.jsonl").read_text().splitlines()
    assert first == (
        '{"reason":"short","message":"7 bytes, 9 needed","source":"line1","topic":"t/1","device_id":null,'
        '"productId":null,"position":3,"index":0,"ingest_time":"2026-03-01T09:00:00.000Z",'
        '"payload_hex":"00ff"}'
    )
    alarms = [json.loads(line) for line in (tmp_path / "alarms.jsonl").read_text().splitlines()]
    assert [(a["data"]["evidence"]["position"], a["subject"], a["sequence"][-1]) for a in alarms[:3]] == [
        (7, "press-00/temp-high", event(7, 0).sequence[-1]),
        (7, "press-00/temp-high", event(7, 1).sequence[-1]),
        (7, "press-01/temp-high", event(7, 0).sequence[-1]),
    ]
    assert alarms[0] == event(7).event
    assert list(json.loads((tmp_path / "state.json").read_text())) == ["press-00", "press-01"]
    assert json.loads((tmp_path / "summary.json").read_text()) == {
        "frames": {"in": 120, "decoded": 0, "rejected": 0, "filtered": 0, "held": 0},
        "readings": {"decoded": 0, "accepted": 120, "late": 0, "rejected": 0, "filtered": 0},
        "alarms": {"raised": 9},
    }


def test_count_is_absent_where_it_was_not_asked_for() -> None:
    assert all("count" not in line for line in outcome(cut(120), ("min", "mean")).windows)


@pytest.mark.parametrize("rows", [1, 7, 50])
def test_no_cut_shows(rows: int, tmp_path: Path) -> None:
    write_outcome(tmp_path / "whole", outcome(cut(120)))
    write_outcome(tmp_path / "cut", outcome(cut(rows)))
    for name in ("alarms.jsonl", "windows.jsonl", "rejects.jsonl", "state.json", "summary.json"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    whole, found = (pq.read_table(tmp_path / d / "telemetry.parquet") for d in ("whole", "cut"))
    assert found.equals(whole)


def test_telemetry_over_all_products(tmp_path: Path) -> None:
    write_outcome(tmp_path, outcome(cut(120)))
    table = pq.read_table(tmp_path / "telemetry.parquet")
    assert table.column_names == [
        "_product",
        "_ts",
        "_ingest_ts",
        "_device",
        "_seq",
        "_historical",
        "tempC",
        "tempC__quality",
        "count",
        "count__quality",
        "mode",
        "mode__quality",
        "on",
        "on__quality",
    ]
    rows = table.to_pylist()
    assert len(rows) == 120
    assert rows[4]["tempC"] is None
    assert rows[4]["tempC__quality"] == "absent"
    assert float(rows[5]["tempC"]) == 2.5  # a text: it is one in the other product
    assert rows[5]["count"] == 5
    assert [row["mode"] for row in rows[:3]] == list(MODES)
    assert rows[10]["_historical"] is True
    assert rows[0]["on"] is None
    assert rows[0]["on__quality"] == "absent"
    assert np.all(np.diff([row["_seq"] for row in rows]) > 0)


def test_times_are_cut_down_and_never_rounded() -> None:
    assert iso_time(START_NS + 999_999_999) == "2026-03-01T09:00:00.999Z"
    assert iso_time(-1) == "1969-12-31T23:59:59.999Z"
