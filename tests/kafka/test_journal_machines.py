"""Two machines that share a plant over one topic give together what one shard over a local journal
gives, whatever is killed meanwhile."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.services.kafka import KafkaBroker
from tests.shards.running import ShardedPlant, replayed
from tests.shards.scenario import FILES, MINUTE_MS, PLANT, by_subject, readings_from
from tests.waiting import until

ROUNDS = 28
LAG_MS = 40 * MINUTE_MS
ROUNDS = 13
KILLS = {
    40: ("a", "flow-0"),
    80: ("b", "journal-1"),
    100: ("b", "flow-1"),
    115: ("a", "journal-1"),
    130: ("a", "journal-0"),
    145: ("b", "receiver-ingest"),
}


@pytest.mark.kafka
@pytest.mark.kill
def test_two_machines_find_what_one_shard_does_under_kills(broker: KafkaBroker, tmp_path: Path) -> None:
    journal = (
        f'journal: {{kind: kafka, bootstrap: "{broker.address}", topic: shared,'
        ' shards_here: "${SHARDS_HERE:-}"}\n'
    )
    files = {**FILES, "plant.yaml": PLANT + "shards: {count: 2, by: hub_id}\n" + journal}
    lag_ms = (ROUNDS + 10) * MINUTE_MS
    readings = readings_from(int(time.time() * 1000) - lag_ms, ROUNDS)
    machines = {name: ShardedPlant(tmp_path / name, files) for name in ("a", "b")}
    for shard, machine in enumerate(machines.values()):
        machine.environ["SHARDS_HERE"] = str(shard)
    one = replayed(machines["a"], tmp_path, readings, lag_ms)
    expected = [json.loads(line) for line in (one / "alarms.jsonl").read_text("utf-8").splitlines()]
    with machines["a"], machines["b"]:
        for number, reading in enumerate(readings):
            if number in KILLS:
                name, component = KILLS[number]
                machines[name].kill(component)
            machines["ab"[number % 2]].post(reading.topic, reading.payload, f"reading-{number}")
        until(
            lambda: sum(len(machine.events()) for machine in machines.values()) >= len(expected),
            "every event",
        )
        found = [machine.events() for machine in machines.values()]
        for machine in machines.values():
            until(machine.is_ready, "readiness")
        machines["a"].write(
            {"rules/rules.yaml": FILES["rules/rules.yaml"].replace("tempC > 80", "tempC > 81")}
        )
        done = machines["a"].call("apply", "--why", "a little hotter", "--by", "kim")
        assert done.returncode == 0, done.stdout + done.stderr
        until(lambda: len(machines["b"].applied()[1]) == 2, "the other machine")
    assert all(found), "each has events of its own shard"
    assert by_subject([*found[0], *found[1]]) == by_subject(expected)
    assert len({event["id"] for events in found for event in events}) == len(expected)
