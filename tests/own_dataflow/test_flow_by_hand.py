"""`python -m bytewax.run flows.plant`: one shard by itself, with the recovery store that its state is in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

from connectors.journal.blocking import BlockingJournalClient
from connectors.source import Frame
from flows.folder import open_plant
from flows.shards import settle_shards
from flows.views import Views
from tests.journal.journal_process import ROOT, RunningJournal
from tests.waiting import LIMIT_S, until

FILES = {
    "plant.yaml": """
plant: by-hand
sources: {line1: {kind: mqtt, host: broker, subscribe: ["d/#"], topic: "d/{device_id}"}}
""",
    "products/press.yaml": """
productId: press
version: 1
topics: ["d/+"]
decode: {format: json, timestamp: t, metrics: m}
metrics: {tempC: {unit: Cel}}
""",
    "rules/hot.yaml": """
ruleId: hot
productId: press
type: threshold
condition: "tempC > 80"
severity: high
acknowledge: none
""",
    "devices.csv": "device_id,productId\np1,press\n",
}


def command(data: Path, *options: str) -> tuple[list[str], dict[str, str]]:
    return [sys.executable, "-m", "bytewax.run", "flows.plant", *options], {
        **os.environ,
        "PENSTOCK_DATA": str(data),
    }


def refused(data: Path, *options: str) -> str:
    asked, environment = command(data, *options)
    done = subprocess.run(
        asked, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert done.returncode == 1
    return done.stderr.strip()


def nothing_open(views: Views) -> bool:
    return not views.open_alarms()


def is_durable(client: BlockingJournalClient, entry: int) -> bool:
    return int(client.status()["metrics"]["journal_durable_entry"]) >= entry


def test_one_shard_by_hand_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    data = tmp_path / "data"
    (data / "run").mkdir(parents=True)
    plant = open_plant(tmp_path)
    options = ("-r", str(data / "recovery"), "-s", "1", "-b", "0")
    asked, environment = command(data, *options)
    with RunningJournal(data) as journal:
        client = journal.client("line1")
        client.control("plant", {"sha256": plant.sha256, "files": dict(plant.files)})

        def send(value: float) -> None:
            body = json.dumps({"t": int(time.time() * 1000), "m": {"tempC": value}}).encode()
            client.append([Frame("d/p1", body)])

        send(90)
        for kept in range(2):
            flow = subprocess.Popen(asked, env=environment, cwd=ROOT)
            views = Views(data)
            try:
                if kept:  # the alarm is known from before: it clears, and is not raised anew
                    send(70)
                    until(partial(nothing_open, views))
                    assert views.alarms_by_transition() == {"raised": 1, "cleared": 1, "closed": 1}
                else:
                    until(views.open_alarms)
                    last = client.status()["metrics"]["journal_last_entry"]
                    until(partial(is_durable, client, last), "an epoch with the alarm")
                    assert "runs already; stop its plant first" in refused(data, *options)
            finally:
                flow.kill()
                flow.wait()
                views.close()


def test_what_would_spoil_a_shard_is_refused_with_the_mend(tmp_path: Path) -> None:
    store = tmp_path / "recovery"
    mend = f"start it with: python -m bytewax.run flows.plant -r {store} -s 10 -b 0"
    told = f"penstock: the state of this shard is in {store}; {mend}"
    assert refused(tmp_path) == told
    assert refused(tmp_path, "-r", str(tmp_path / "other"), "-s", "1", "-b", "0") == told
    assert refused(tmp_path, "-r", str(store), "-s", "1", "-b", "0", "-w", "2") == (
        "penstock: a shard is one worker; leave out -w, and divide the plant by shards.count"
    )
    settle_shards(tmp_path, 2, "device_id")
    assert refused(tmp_path) == (
        f"penstock: {tmp_path} has 2 shards; PENSTOCK_DATA={tmp_path / 'shards' / '0'} names one"
    )
