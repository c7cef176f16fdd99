"""Plants over one topic, as their users run them: brokers that come later, and two that claim one shard."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from flows.status import read_status
from tests.services.kafka import KafkaBroker
from tests.shards.running import ShardedPlant
from tests.waiting import LIMIT_S, until

FILES = {
    "products/p.yaml": "productId: p\nversion: 1\ndecode: {format: json, metrics: m}\nmetrics: {tempC: {}}\n",
    "devices.csv": "device_id,productId\nd1,p\n",
    "rules/r.yaml": "ruleId: hot\nproductId: p\ntype: threshold\ncondition: tempC > 80\nseverity: high\n",
}
PLANT = """\
plant: two
sources:
  ingest: {{kind: http, listen: "127.0.0.1:${{INGEST_PORT}}", product: p}}
historian: {{listen: "127.0.0.1:${{HISTORIAN_PORT}}"}}
server: {{listen: "127.0.0.1:${{SERVER_PORT}}"}}
journal: {{kind: kafka, bootstrap: "{address}", topic: {topic}}}
"""


def plant(folder: Path, address: str, topic: str) -> ShardedPlant:
    return ShardedPlant(folder, {**FILES, "plant.yaml": PLANT.format(address=address, topic=topic)})


def health(plant: ShardedPlant, component: str) -> dict[str, Any]:
    """What /health/ready says of a component; {} while nobody answers."""
    address = f"http://127.0.0.1:{plant.environ['SERVER_PORT']}/health/ready"
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            body = answer.read()
    except urllib.error.HTTPError as error:
        body = error.read()
    except OSError:
        return {}
    found: dict[str, Any] = json.loads(body)["components"].get(component, {})
    return found


def pid_of(plant: ShardedPlant, component: str) -> int:
    return int(read_status(plant.data)[component]["pid"])


def reading(value: float) -> tuple[str, str]:
    return "iotlink/dev/nohub/d1/periodic/pub/telemetry/json", json.dumps({"m": {"tempC": value}})


def begin(plant: ShardedPlant) -> None:
    """Without waiting for it to be ready."""
    with plant.log.open("ab") as log:
        plant.process = subprocess.Popen(plant._call("run"), stdout=log, stderr=log, env=plant.environ)


@pytest.mark.kafka
def test_a_first_start_waits_for_brokers_that_come_later(broker: KafkaBroker, tmp_path: Path) -> None:
    one = plant(tmp_path, broker.address, "later")
    broker.kill()
    try:
        begin(one)
        until(lambda: "journal: disconnected" in one.log.read_text("utf-8"), "the terminal")
        one.process.terminate()
        assert one.process.wait(LIMIT_S) == 0, "it can be stopped while it waits"
        begin(one)
        until(lambda: health(one, "journal").get("state") == "disconnected", "health")
        told = health(one, "journal")
        assert not told["ready"]
        assert told["detail"].startswith(f"Kafka {broker.address}: Kafka: ")
        assert told["detail"].endswith("; sources wait")
        assert health(one, "flow") == {"ready": False, "state": "waiting", "detail": "not started yet"}
    finally:
        broker.start()
    try:
        until(one.is_ready, "readiness")
        one.post(*reading(90), "first")
        until(one.events, "an alarm")
    finally:
        one.__exit__()


@pytest.mark.kafka
@pytest.mark.kill
def test_one_of_two_plants_over_a_shard_gives_it_up(broker: KafkaBroker, tmp_path: Path) -> None:
    """The second is refused while the first lives. When the first stands still it takes the shard over; the
    first then says so, stays up, and passes on what its sources have."""
    one, two = (
        plant(tmp_path / "one", broker.address, "both"),
        plant(tmp_path / "two", broker.address, "both"),
    )
    with one:
        one.post(*reading(90), "first")
        done = subprocess.run(
            two._call("run"), capture_output=True, text=True, timeout=LIMIT_S, env=two.environ
        )
        journal = pid_of(one, "journal")
        mend = "two must not run one shard; stop the plant on one of them, then start this one again"
        assert done.returncode == 3
        assert f"shard 0 (both/0) is run by process {journal} of this machine now, and {mend}" in done.stderr
        os.kill(journal, signal.SIGSTOP)
        try:
            with two:
                os.kill(journal, signal.SIGCONT)
                until(lambda: health(one, "journal").get("state") == "taken", "health")
                other = pid_of(two, "journal")
                assert health(one, "journal")["detail"] == (
                    f"shard 0 (both/0) is run by process {other} of this machine now, and {mend}"
                )
                until(lambda: not health(one, "flow"), "the flow to be gone")
                until(two.is_ready, "the second")
                one.post(*reading(70), "second")
                until(lambda: len(two.events()) == 2, "raised and cleared")
                until(lambda: health(one, "journal").get("state") == "taken", "the same of its successor")
        finally:
            with suppress(ProcessLookupError):
                os.kill(journal, signal.SIGCONT)
        assert "journal ended" not in one.log.read_text("utf-8"), "it is not started again and again"
        assert "the shard is given up: restarts journal; stops flow" in one.log.read_text("utf-8")
    assert len(one.events()) == 1
