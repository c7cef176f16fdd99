"""A plant of three shards that runs for real gives what one shard gives, whatever is killed meanwhile."""

from __future__ import annotations

import json
import random
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from connectors.journal.blocking import BlockingJournalClient
from connectors.journal.reader import JournalReader
from connectors.shards import hash_shard
from flows.apply import plant_control
from flows.folder import open_plant
from flows.shards import shard_folders
from flows.status import read_status
from tests.journal.journal_process import RunningJournal
from tests.shards.running import Reading, ShardedPlant, replayed, until

PLANT = """
plant: shard-line
sources:
  ingest: {kind: http, listen: "127.0.0.1:${INGEST_PORT:-8081}"}
historian: {listen: "127.0.0.1:${HISTORIAN_PORT:-8123}"}
server: {listen: "127.0.0.1:${SERVER_PORT:-8080}"}
"""
PRODUCT = """
productId: press
version: 1
topics: ["iotlink/#"]
decode: {format: json, timestamp: device_timestamp, metrics: data.metrics}
live_within: 2h
metrics:
  tempC: {unit: Cel, range: [-40, 150]}
  rpm: {unit: "{rev}/min", range: [0, 6000], on_breach: reject}
"""
RULES = """
ruleId: hot
productId: press
type: threshold
condition: "tempC > 80"
clear_condition: "tempC < 75"
on_delay: 2m
severity: high
---
ruleId: spread
productId: press
type: limit
of: rpm
limits: {HH: 5000, H: 4000}
deadband: 100
severity: {HH: critical, H: high}
---
ruleId: hub-hot
productId: press
type: group
over: hub_id
condition: "tempC > 70"
when: "share > 0.5 and count >= 2"
severity: high
"""
HUBS = {f"press-{number:02}": f"hub-{number % 4}" for number in range(12)}
FILES = {
    "plant.yaml": PLANT + "shards: {count: 3, by: hub_id}\n",
    "products/press.yaml": PRODUCT,
    "rules/rules.yaml": RULES,
    "devices.csv": "device_id,productId,hub_id\n" + "".join(f"{d},press,{h}\n" for d, h in HUBS.items()),
}
MINUTE_MS = 60_000
LAG_MS = 40 * MINUTE_MS
POISON = 90
KILLS = {
    60: "flow-1",
    120: "journal-2",
    150: "flow-2",
    200: "receiver-ingest",
    240: "journal-0",
    280: "flow-0",
}


def readings_from(base_ms: int) -> list[Reading]:
    """Twelve presses that heat and cool, once a minute, so that no standstill of the machine is as long;
    some frames of devices that nobody knows; all quiet at the end, so that nothing is left to a timer."""
    dice, found = random.Random(5), []
    for round_ in range(28):
        for device, hub in HUBS.items():
            quiet = round_ > 25
            metrics = {
                "tempC": 20.0 if quiet else dice.choice((60.0, 72.0, 78.0, 85.0, 95.0)),
                "rpm": 100.0 if quiet else float(dice.choice((1000, 4200, 5200, 7000))),
            }
            found.append(Reading(device, hub, base_ms + round_ * MINUTE_MS + dice.randrange(200), metrics))
        if round_ % 9 == 3:
            found.append(Reading(f"stranger-{round_}", "hub-9", base_ms + round_ * MINUTE_MS, {"tempC": 1.0}))
    return found


def by_subject(events: Iterable[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Each subject's events in their order, without what is of a journal's own counting and clock."""
    found = defaultdict(list)
    for event in sorted(events, key=lambda one: one["sequence"]):
        kept = {key: value for key, value in event.items() if key not in ("id", "sequence")}
        data = {key: value for key, value in event["data"].items() if key != "ingest_time"}
        data["evidence"] = {key: value for key, value in data["evidence"].items() if key != "position"}
        found[event["subject"]].append({**kept, "data": data})
    return dict(found)


def test_three_shards_find_what_one_does_under_kills(tmp_path: Path) -> None:
    base = int(time.time() * 1000) - LAG_MS
    readings = readings_from(base)
    plant = ShardedPlant(tmp_path, FILES, engine="tests.change.broken_engine")
    one = replayed(plant, tmp_path, readings, LAG_MS)
    expected = [json.loads(line) for line in (one / "alarms.jsonl").read_text("utf-8").splitlines()]
    summary = json.loads((one / "summary.json").read_text("utf-8"))
    assert {event["data"]["ruleId"] for event in expected} == {"hot", "spread", "hub-hot"}
    with plant:
        for number, reading in enumerate(readings):
            if number in KILLS:
                plant.kill(KILLS[number])
            plant.post(reading.topic, reading.payload, f"reading-{number}")
            if number == POISON:  # a frame on which the flow of its shard ends
                plant.post(reading.topic, '{"data": {"metrics": {"note": "divide"}}}', "poison")
        until("the frame to be set aside", lambda: "is set aside: reject" in plant.log.read_text("utf-8"))
        until("every event", lambda: len(plant.events()) >= len(expected), 60)
        until("readiness", plant.is_ready)
        accepted = summary["readings"]["accepted"]
        until("telemetry", lambda: plant.query("SELECT count() FROM telemetry_press FINAL") == [[accepted]])
        rejected = summary["frames"]["rejected"] + summary["readings"]["rejected"] + 1
        until("rejects", lambda: plant.query("SELECT count() FROM rejects FINAL") == [[rejected]])
        alarms = len(expected)
        until("alarms", lambda: plant.query("SELECT count() FROM alarms FINAL") == [[alarms]])
        engine = plant.query("SELECT _shard FROM rejects FINAL WHERE reason = 'engine_error'")
        shards = plant.query("SELECT DISTINCT _shard FROM alarms ORDER BY _shard")
    found = plant.events()
    assert by_subject(found) == by_subject(expected)
    assert len({event["id"] for event in found}) == len(found)
    assert len(shards) > 1
    assert engine == [[hash_shard(readings[POISON].hub, 3)]]


def test_a_plant_applied_to_one_shard_reaches_all(tmp_path: Path) -> None:
    two = {**FILES, "plant.yaml": PLANT + "shards: {count: 2, by: hub_id}\n"}
    plant = ShardedPlant(tmp_path, two)
    with plant:
        first = plant.applied()
        assert first[0] == first[1]
        assert len(first[0]) == 1
        plant.write({"rules/rules.yaml": RULES.replace("tempC > 80", "tempC > 81")})
        done = plant.call("apply", "--why", "a little hotter", "--by", "kim")
        assert done.returncode == 0, done.stderr
        both = plant.applied()
        assert both[0] == both[1]
        assert len(both[0]) == 2
        plant.write({"plant.yaml": PLANT + "shards: {count: 3, by: hub_id}\n"})
        refused = plant.call("apply", "--why", "more", "--by", "kim")
        assert refused.returncode == 1
        assert "devices cannot move between shards while they are heard" in refused.stdout + refused.stderr
        plant.write({"plant.yaml": two["plant.yaml"]})
    # whoever applied it was killed between the first shard and the others
    plant.write({"rules/rules.yaml": RULES.replace("tempC > 80", "tempC > 82")})
    changed = open_plant(plant.folder)
    folders = shard_folders(plant.data)
    with RunningJournal(folders[0]), BlockingJournalClient(folders[0], "apply") as journal:
        journal.control("plant", plant_control(changed, "kim", "hotter still"))
    with plant:
        until("the others", lambda: all(len(ids) == 3 for ids in plant.applied()))
        mended = plant.applied()
        assert mended[0] == mended[1]
        taken = lambda: {read_status(f)["flow"].get("sha256") for f in folders} == {changed.sha256}  # noqa: E731
        until("the flows", taken)
    with JournalReader(folders[1] / "journal") as reader:
        newest = reader.newest_applied()
    assert newest is not None
    assert (newest.by, newest.why) == ("kim", "hotter still")
    plant.write({"plant.yaml": PLANT})
    other = plant.call("run", "--apply")
    assert other.returncode == 1
    assert "devices cannot move between shards while they are heard" in other.stdout + other.stderr
