"""What the presses of a plant of three shards tell, and what must come of it, whatever is killed meanwhile.

`python -m tests.shards.scenario --rounds 300 --kills 40 --seed 7 --folder NEW` is a long campaign of kills
at random moments; the test suite runs a short one with its kills at fixed places.
"""

from __future__ import annotations

import json
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click

from connectors.shards import hash_shard
from tests.shards.running import Reading, ShardedPlant, replayed
from tests.waiting import until

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
live_within: 7d
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
POISON = '{"data": {"metrics": {"note": "divide"}}}'  # a frame on which the flow of its shard ends
MINUTE_MS = 60_000
VICTIMS = (
    *(f"{kind}-{shard}" for shard in range(3) for kind in ("flow", "journal", "drainer-alarms-file")),
    *(f"drainer-historian-{shard}" for shard in range(3)),
    *("receiver-ingest", "historian", "server"),
)


def readings_from(base_ms: int, rounds: int) -> list[Reading]:
    """Twelve presses that heat and cool, once a minute, so that no standstill of the machine is as long;
    some frames of devices that nobody knows; all quiet at the end, so that nothing is left to a timer."""
    dice, found = random.Random(5), []
    for round_ in range(rounds):
        for device, hub in HUBS.items():
            quiet = round_ > rounds - 3
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


def three_find_what_one_does(
    folder: Path, rounds: int, poison: int | None, kill: Callable[[ShardedPlant, int], None]
) -> None:
    """Post the readings of so many rounds one after the other, and compare what comes out with a replay.
    kill: asked before each reading, with its number. poison: behind which reading the frame that ends
    a flow comes, where the engine is one with a fault."""
    lag_ms = (rounds + 10) * MINUTE_MS
    readings = readings_from(int(time.time() * 1000) - lag_ms, rounds)
    plant = ShardedPlant(
        folder, FILES, engine="flows.cli" if poison is None else "tests.change.broken_engine"
    )
    one = replayed(plant, folder, readings, lag_ms)
    expected = [json.loads(line) for line in (one / "alarms.jsonl").read_text("utf-8").splitlines()]
    summary = json.loads((one / "summary.json").read_text("utf-8"))
    assert {event["data"]["ruleId"] for event in expected} == {"hot", "spread", "hub-hot"}
    rejected = summary["frames"]["rejected"] + summary["readings"]["rejected"] + (poison is not None)
    counts = {
        "telemetry_press": summary["readings"]["accepted"],
        "rejects": rejected,
        "alarms": len(expected),
    }
    with plant:
        for number, reading in enumerate(readings):
            kill(plant, number)
            plant.post(reading.topic, reading.payload, f"reading-{number}")
            if number == poison:
                plant.post(reading.topic, POISON, "poison")
        if poison is not None:
            until(lambda: "is set aside: reject" in plant.log.read_text("utf-8"), "the frame to be set aside")
        until(lambda: len(plant.events()) >= len(expected), "every event")
        until(plant.is_ready, "readiness")
        for table, count in counts.items():
            until(partial(plant.has_rows, table, count), f"{count} rows of {table}")
        set_aside = plant.query("SELECT _shard FROM rejects FINAL WHERE reason = 'engine_error'")
        shards = plant.query("SELECT DISTINCT _shard FROM alarms ORDER BY _shard")
    found = plant.events()
    assert by_subject(found) == by_subject(expected)
    assert len({event["id"] for event in found}) == len(found)
    assert len(shards) > 1
    assert set_aside == ([] if poison is None else [[hash_shard(readings[poison].hub, 3)]])


@click.command()
@click.option("--rounds", default=300, show_default=True, help="a reading of each of twelve presses")
@click.option("--kills", default=40, show_default=True)
@click.option("--seed", default=7, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), required=True, help="for the plant and its data")
def main(rounds: int, kills: int, seed: int, folder: Path) -> None:
    """Kill processes of three shards at random moments, and compare what they found with one shard's."""
    dice = random.Random(seed)
    places = sorted(dice.sample(range(20, rounds * len(HUBS)), kills))

    def kill(plant: ShardedPlant, number: int) -> None:
        while places and number >= places[0]:
            victim = dice.choice(VICTIMS)
            click.echo(f"before reading {places.pop(0)}: SIGKILL for {victim}")
            plant.kill(victim)

    folder.mkdir(parents=True)
    three_find_what_one_does(folder, rounds, None, kill)
    click.echo(f"{rounds} rounds, {kills} kills: what one shard finds")


if __name__ == "__main__":
    main()
