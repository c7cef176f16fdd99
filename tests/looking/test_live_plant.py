"""Operators' actions and `explain` on a journal and a flow that run: real processes, one of them killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from litestar.testing import TestClient

from connectors.journal.reader import JournalReader
from connectors.source import Frame
from flows.alarms_command import alarms
from flows.explain_command import explain
from flows.folder import open_plant
from flows.server import make_app
from flows.status import write_atomically
from flows.views import Views
from tests.journal.journal_process import ROOT, RunningJournal
from tests.looking.test_explain import FILES, nodes
from tests.waiting import LIMIT_S, until

RULES = """
ruleId: hot
productId: press
type: threshold
condition: "tempC > param.high and avg(tempC, 1h) > 50"
severity: high
"""


class Running:
    """A journal, and a flow that can be killed and started again."""

    def __init__(self, folder: Path, journal: RunningJournal) -> None:
        self.folder, self.journal, self.data = folder, journal, journal.data
        self.client = journal.client("line1")
        self.views = Views(self.data)
        self.now_ms = int(time.time() * 1000)
        plant = open_plant(folder)
        self.client.control("plant", {"sha256": plant.sha256, "files": dict(plant.files)})
        self.start()

    def start(self) -> None:
        with (self.folder / "flow.log").open("ab") as log:
            self.flow = subprocess.Popen(
                [sys.executable, "-m", "flows.flow", str(self.data)], cwd=ROOT, stderr=log
            )
        until(self.runs, "the flow to run")  # whose answer an operator's command waits for

    def runs(self) -> bool:
        told = self.views.flow_status()
        return (told.get("pid"), told.get("state")) == (self.flow.pid, "running")

    def send(self, device: str, **metrics: Any) -> None:
        self.now_ms = max(self.now_ms + 1, int(time.time() * 1000))
        body = json.dumps({"t": self.now_ms, "m": metrics}).encode()
        self.client.append([Frame(f"d/{device}", body)])

    def stop(self) -> None:
        self.flow.terminate()
        assert self.flow.wait(LIMIT_S) == 0
        self.views.close()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    for name, text in {**FILES, "rules/hot.yaml": RULES}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    data = tmp_path / ".penstock"
    (data / "run").mkdir(parents=True)
    told = {"component": "supervisor", "pid": os.getpid(), "components": {}}
    write_atomically(data / "run" / "supervisor.json", json.dumps(told).encode())
    with RunningJournal(data) as journal:
        found = Running(tmp_path, journal)
        try:
            yield found
        finally:
            found.flow.kill()


def act(running: Running, action: str, alarm_id: str, *options: str) -> tuple[int, dict[str, Any]]:
    asked = [action, str(running.folder), alarm_id, "--by", "kim", "--why", "seen", "--json", *options]
    result = CliRunner().invoke(alarms, asked, standalone_mode=False, catch_exceptions=False)
    (answer,) = json.loads(result.stdout)
    assert isinstance(result.return_value, int)
    return result.return_value, dict(answer)


def test_actions_survive_and_a_snapshot_explains(running: Running) -> None:
    running.send("p1", tempC=90, flow=1, mode="run")
    running.send("p1", tempC=96)
    running.send("p2", tempC=70)
    (row,) = until(running.views.open_alarms, "an open alarm")
    alarm_id = row["alarm_id"]

    code, answer = act(running, "ack", alarm_id[:6])
    assert (code, answer["accepted"], answer["alarm_id"]) == (0, True, alarm_id)
    assert answer["state"]["acknowledged"]
    code, answer = act(running, "ack", alarm_id)
    assert (code, answer["accepted"]) == (1, False)
    assert answer["state"]["acknowledged"]
    assert "is acknowledged already" in answer["message"]

    with TestClient(make_app(running.data, "127.0.0.1:8080"), base_url="http://127.0.0.1:8080") as client:
        path = f"/api/alarms/{alarm_id}"
        shelved = client.post(f"{path}/shelve", json={"by": "lee", "why": "repair", "for": "1h"})
        assert shelved.status_code == 200
        assert shelved.json()["state"]["shelved_until"] is not None
        refused = client.post(f"{path}/reset", json={"by": "lee"})
        assert refused.status_code == 409
        assert refused.json()["state"]["shelved_until"] is not None
        assert [one["alarm_id"] for one in client.get("/api/alarms?state=shelved").json()] == [alarm_id]

    running.flow.kill()
    running.flow.wait()
    running.start()
    code, answer = act(running, "unshelve", alarm_id)
    assert code == 0
    assert answer["state"]["acknowledged"]
    events = [
        (one["data"]["transition"], one["data"]["actor"], one["data"]["comment"])
        for one in running.views.alarm_events(None, 100)[1]
    ]
    assert events == [
        ("raised", None, None),
        ("acknowledged", "kim", "seen"),
        ("shelved", "lee", "repair"),
        ("unshelved", "kim", "seen"),
    ]
    running.send("p1", tempC=20)
    until(lambda: not running.views.open_alarms(), "it to be over")
    code, answer = act(running, "ack", alarm_id)
    assert (code, answer["accepted"]) == (1, False)
    assert "closed" in answer["message"]

    # the journal is trimmed up to the newest snapshot; what came before is known from there
    with JournalReader(running.data / "journal") as reader:
        until(lambda: reader.oldest() > 20, "the journal to be trimmed")
    running.stop()
    running.send("p2", tempC=80)  # behind the snapshot, in the journal alone
    running.client.close()
    asked = [str(running.folder), "hot", "--json"]
    told = json.loads(CliRunner().invoke(explain, asked, catch_exceptions=False).stdout)
    assert (told["source"], told["complete"]) == ("snapshot", True)
    first, second = (nodes(one) for one in told["devices"])
    assert told["devices"][0]["evaluated"]["recalled"]
    assert first["tempC"]["value"] == 20.0
    assert first["avg(tempC, 1h)"]["value"] == (90 + 96 + 20) / 3
    assert first["tempC > param.high and avg(tempC, 1h) > 50"]["value"] is False
    assert not told["devices"][1]["evaluated"]["recalled"]
    assert second["avg(tempC, 1h)"]["value"] == (70 + 80) / 2
    assert second["param.high"]["value"] == 85.0
    assert told["devices"][1]["outcome"] == "not raised: the condition is false"
