"""A real machine that fails: 22,695 readings of the Numenta Anomaly Benchmark (MIT licence) through the
`files` source of examples/machine-temperature, replayed and live."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from flows.cli import main

ROOT = Path(__file__).resolve().parents[2]
PLANT = ROOT / "examples" / "machine-temperature"
NAB = ROOT.parent / "shared" / "data" / "nab"
SERIES = NAB / "machine_temperature_system_failure.csv"


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not SERIES.exists():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{SERIES} is missing")
        pytest.skip("the series of the Numenta Anomaly Benchmark is not there")
    out = tmp_path_factory.mktemp("nab")
    with pytest.raises(SystemExit) as ended:
        main(["replay", str(PLANT), "--input", str(SERIES), "--output", str(out)])
    assert ended.value.code == 0
    return out


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in path.read_text("utf-8").splitlines()]


def test_every_reading_is_accounted_for(outcome: Path) -> None:
    summary = json.loads((outcome / "summary.json").read_bytes())
    assert summary["frames"] == {"in": 22_695, "decoded": 22_695, "rejected": 0, "filtered": 0, "held": 0}
    assert summary["readings"]["decoded"] == 22_695
    assert summary["readings"]["rejected"] == 0
    assert sum(summary["readings"][t] for t in ("accepted", "late", "filtered")) == 22_695


def test_the_failure_at_the_end_raises_an_alarm_in_its_labelled_window(outcome: Path) -> None:
    windows = json.loads((NAB / "windows.json").read_bytes())
    labelled = windows["realKnownCause/machine_temperature_system_failure.csv"]
    events = [e for e in lines(outcome / "alarms.jsonl") if e["data"]["ruleId"] != "device-clock"]
    raised = [e for e in events if e["data"]["transition"] == "raised"]
    inside = [
        sum(
            start.replace(" ", "T")[:19] <= event["time"][:19] <= end.replace(" ", "T")[:19]
            for event in raised
        )
        for start, end in labelled
    ]
    assert inside == [1, 2, 1, 2], [(e["subject"], e["time"]) for e in raised]
    assert len(raised) == 12  # the other six are outside the labelled windows
    assert sum(e["data"]["transition"] == "cleared" for e in events) == 12


def test_the_hour_that_the_recorder_wrote_twice_is_told(outcome: Path) -> None:
    told = [e for e in lines(outcome / "alarms.jsonl") if e["data"]["ruleId"] == "device-clock"]
    assert [(e["data"]["transition"], e["time"]) for e in told] == [
        ("raised", "2014-01-07T02:10:00.000Z"),
        ("cleared", "2014-01-07T02:15:00.000Z"),
        ("closed", "2014-01-07T02:15:00.000Z"),
    ]


def test_fahrenheit_becomes_celsius_in_windows(outcome: Path) -> None:
    first = next(w for w in lines(outcome / "windows.jsonl") if w["window"] == "30m")
    fahrenheit = [float(row.split(",")[1]) for row in SERIES.read_text().splitlines()[1:4]]
    assert first["start"] == "2013-12-02T21:00:00.000Z"
    assert first["count"] == 3  # 21:15, 21:20, 21:25
    celsius = [(f - 32) * 5 / 9 for f in fahrenheit]
    assert first["mean"] == pytest.approx(sum(celsius) / 3, rel=1e-15)
    assert (first["min"], first["max"], first["last"]) == (min(celsius), max(celsius), celsius[-1])


def test_packed_and_in_another_encoding_it_is_the_same(outcome: Path, tmp_path: Path) -> None:
    path = tmp_path / "machine-1.csv.gz"
    path.write_bytes(gzip.compress(SERIES.read_text().replace("\n", "\r\n").encode("utf-16"), 1))
    with pytest.raises(SystemExit) as ended:
        main(["replay", str(PLANT), "--input", str(path), "--output", str(tmp_path / "out")])
    assert ended.value.code == 0
    for name in ("alarms.jsonl", "windows.jsonl", "rejects.jsonl", "summary.json", "state.json"):
        assert (tmp_path / "out" / name).read_bytes() == (outcome / name).read_bytes(), name
