"""A shard that runs on another machine has no flow here: its copy of the journal is no lag."""

from __future__ import annotations

import json
from pathlib import Path

from connectors.source import Frame
from flows.shards import settle_shards
from flows.status import write_atomically
from flows.views import Views
from tests.journal.journal_process import RunningJournal


def test_a_journal_without_a_flow_here_is_no_lag(tmp_path: Path) -> None:
    folder = settle_shards(tmp_path, 2, "device_id")[1]
    (tmp_path / "run").mkdir(exist_ok=True)
    with RunningJournal(folder) as journal:
        journal.client("line1").append([Frame("d/p1", b"{}")])
        views = Views(tmp_path)
        try:
            for flows, lags in (["flow-0", "flow-1"], True), (["flow-0"], False), (["flow-1"], True):
                told = {"component": "supervisor", "pid": 1, "components": {key: {} for key in flows}}
                write_atomically(tmp_path / "run" / "supervisor.json", json.dumps(told).encode())
                assert (views.lag()["entries"] > 0) == lags, flows
        finally:
            views.close()
