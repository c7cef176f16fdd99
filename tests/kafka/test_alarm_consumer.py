"""examples/alarm-consumer as a process, fed with copies, late events and what a transaction left behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from tests.kafka.reading import config, record, target
from tests.output.made import event
from tests.services.kafka import KafkaBroker
from tests.waiting import LIMIT_S, until

CONSUMER = Path(__file__).resolve().parents[2] / "examples" / "alarm-consumer" / "consumer.py"


def send(producer: Any, topic: str, one: dict[str, Any], *, tombstone: bool = False) -> None:
    headers = [(f"ce_{name}", value.encode()) for name, value in one.items() if name != "data"]
    value = None if tombstone else json.dumps(one["data"]).encode()
    producer.produce(topic, value, one["subject"].encode(), partition=0, headers=headers)


@pytest.mark.kafka
def test_copies_and_late_events_change_nothing(broker: KafkaBroker, tmp_path: Path) -> None:
    chosen = config(broker.address, "consumed", partitions=1)
    sink = target(chosen)
    sink.open()
    sink.send([record(1), record(2, device="press-01"), record(3, device="press-02")])
    sink.send([record(4, "cleared"), record(5, "closed", "press-01")])
    command = [sys.executable, str(CONSUMER), "--bootstrap", broker.address]
    command += ["--events", chosen.events, "--state", chosen.state]
    with (tmp_path / "told").open("wb") as out:
        follower = subprocess.Popen(command, stdout=out, stderr=subprocess.PIPE)
    try:
        producer = Producer({"bootstrap.servers": broker.address})
        for copy in (event(1), event(2, 0, "raised", "press-01"), event(4, 0, "cleared")):
            send(producer, chosen.events, copy.event)
            send(producer, chosen.state, copy.event)
        late = json.loads(json.dumps(event(1).event)) | {"id": "an id of its own"}
        send(producer, chosen.events, late)  # by its sequence alone it is known to be old
        producer.flush(LIMIT_S)
        left = Producer({"bootstrap.servers": broker.address, "transactional.id": "left"})
        left.init_transactions(LIMIT_S)
        left.begin_transaction()
        send(left, chosen.events, event(9, 0, "raised", "press-05").event)
        left.flush(LIMIT_S)
        left.abort_transaction(LIMIT_S)
        sink.send([record(10, "closed", "press-02"), record(11, device="press-03")])
        sink.close()
        until(lambda: len((tmp_path / "told").read_bytes().splitlines()) == 7)
    finally:
        follower.terminate()
        errors = follower.communicate(timeout=LIMIT_S)[1]
    assert follower.returncode == 0
    told = [json.loads(line) for line in (tmp_path / "told").read_bytes().splitlines()]
    assert [(one["subject"], one["transition"]) for one in told] == [
        ("press-00/temp-high", "raised"),
        ("press-01/temp-high", "raised"),
        ("press-02/temp-high", "raised"),
        ("press-00/temp-high", "cleared"),
        ("press-01/temp-high", "closed"),
        ("press-02/temp-high", "closed"),
        ("press-03/temp-high", "raised"),
    ]
    assert b"2 open; 3 copies skipped by id, 1 by sequence;" in errors
    once = subprocess.run([*command, "--once"], check=True, capture_output=True, timeout=LIMIT_S)
    assert [json.loads(line) for line in once.stdout.splitlines()] == [
        event(4, 0, "cleared").event["data"],
        event(11, 0, "raised", "press-03").event["data"],
    ]
