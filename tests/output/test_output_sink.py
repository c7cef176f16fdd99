"""The output log at the end of a Bytewax dataflow: its plant, its recovery, its counting stand-in."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.outputs import Sink
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSource, cluster_main, run_main

from connectors.journal.columns import TelemetrySpec, decode_alarms, decode_telemetry
from connectors.journal.output import CountingSink, OutputLog, OutputReader
from operators.batch import Control, Slice
from tests.output.made import SPEC, SPECS, START_NS, devices, event, made_slice

OTHER = TelemetrySpec("press-v1", (("pressure", "number"), *SPEC.metrics[1:]))


def telemetry(sha256: str | None) -> Mapping[str, TelemetrySpec]:
    return {None: SPECS, "new": {"press-v1": OTHER}}[sha256]


def plant(entry: int) -> Slice:
    item = made_slice(entry, 0, 0)
    item.control = Control("plant", START_NS, {"sha256": "new", "files": {}})
    return item


def flow(items: list[object], sink: Sink[tuple[str, Slice]]) -> Dataflow:
    made = Dataflow("test")
    source: TestingSource[tuple[str, Slice]] = TestingSource(items)  # type: ignore[arg-type]  # or a signal
    op.output("output", op.input("journal", made, source), sink)
    return made


def keyed(*items: Slice) -> list[object]:
    return [("shard", item) for item in items]


def test_records_are_written_under_the_plant_of_their_place(tmp_path: Path) -> None:
    sink = OutputLog(tmp_path / "output", devices(), telemetry, map_bytes=1 << 28)
    items = keyed(made_slice(1, 0, 10), plant(2), made_slice(3, 10, 10, alarms=[event(12)]))
    run_main(flow(items, sink), epoch_interval=timedelta(0))
    reader = OutputReader(tmp_path / "output")
    found = [decode_telemetry(record.body) for record in reader.read("telemetry", 0)]
    names = {int(t.seq[0]) >> 16: [name for name, _ in t.metrics] for t in found}
    assert names == {0: ["tempC", "count", "mode"], 10: ["pressure", "count", "mode"]}
    assert sink.boundaries() == [3, 3]
    assert sink.reached() == 3
    reader.close()


def test_a_resumed_dataflow_knows_its_plant_and_repeats_nothing(tmp_path: Path) -> None:
    init_db_dir(tmp_path, 1)
    recovery = RecoveryConfig(str(tmp_path), backup_interval=timedelta(0))
    before = keyed(made_slice(1, 0, 10), plant(2), made_slice(3, 10, 10, alarms=[event(12)]))
    after = keyed(made_slice(4, 20, 10, alarms=[event(22)]))
    items = [*before, TestingSource.ABORT(), *after]
    for _ in range(2):
        sink = OutputLog(tmp_path / "output", devices(), telemetry, map_bytes=1 << 28)
        cluster_main(flow(items, sink), [], 0, epoch_interval=timedelta(0), recovery_config=recovery)
        sink.writer.close()
    reader = OutputReader(tmp_path / "output")
    rows = [decode_telemetry(record.body) for record in reader.read("telemetry", 0)]
    assert [int(seq) >> 16 for t in rows for seq in t.seq] == list(range(30))
    assert rows[-1].metrics[0] == ("pressure", "number")
    alarms = [decode_alarms(record.body)[0]["id"] for record in reader.read("alarms", 0)]
    assert alarms == [event(12).event["id"], event(22).event["id"]]
    assert reader.ledger()["line1", "press-v1"]["frames_in"] == 30
    reader.close()


def test_the_counting_sink_counts() -> None:
    sink = CountingSink()
    run_main(flow(keyed(made_slice(1, 0, 10, alarms=[event(1)]), made_slice(2, 10, 5)), sink))
    assert (sink.slices, sink.frames, sink.rows, sink.alarms, sink.last_entry) == (2, 15, 15, 1, 2)


@pytest.fixture(autouse=True)
def _no_dataflow_api(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BYTEWAX_DATAFLOW_API_ENABLED", raising=False)
