"""A plant of three shards looked at and acted on as one, by the commands and the server."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from connectors.shards import hash_shard
from flows.cli import cli
from tests.shards.running import Reading, ShardedPlant
from tests.waiting import LIMIT_S, until

DEVICES = [f"press-{number}" for number in range(6)]
PLANT = """
plant: works
shards: {count: 3}
sources:
  ingest: {kind: http, listen: "127.0.0.1:${INGEST_PORT}"}
archive: {path: archive/}
historian: {listen: "127.0.0.1:${HISTORIAN_PORT}"}
server: {listen: "127.0.0.1:${SERVER_PORT}"}
"""
PRODUCT = """
productId: press
version: 1
topics: ["iotlink/+/+/+/+/pub/telemetry/json"]
decode: {format: json, timestamp: device_timestamp, metrics: data.metrics}
metrics:
  tempC: {unit: Cel, range: [-40, 150]}
params: {limit: 80}
aas:
  asset: "https://example.com/{device_id}"
  submodels:
    - {id: "https://example.com/sm/{device_id}", idShort: Data, elements: [{path: T, value: tempC}]}
"""
RULES = """
ruleId: hot
productId: press
type: threshold
condition: "tempC > param.limit"
severity: high
acknowledge: required
"""
FILES = {
    "plant.yaml": PLANT,
    "products/press.yaml": PRODUCT,
    "rules/hot.yaml": RULES,
    "devices.csv": "device_id,productId\n" + "".join(f"{device},press\n" for device in DEVICES),
}


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ShardedPlant]:
    assert {hash_shard(device, 3) for device in DEVICES} == {0, 1, 2}
    with ShardedPlant(tmp_path_factory.mktemp("looked-at"), FILES) as one:
        for device in DEVICES:
            send(one, device, 90)
            send(one, device, 999)  # out of range
            send(one, f"nobody-{device}", 20)
        until(lambda: len(said(one, "alarms", "PLANT")) == len(DEVICES), "the alarms")
        # newest values are written in bulk, behind the alarms
        until(lambda: all(row["last_heard"] for row in said(one, "devices", "PLANT")), "every device")
        until(lambda: len(said(one, "state", "PLANT")) == len(DEVICES), "every device's values")
        yield one


def send(plant: ShardedPlant, device: str, temp: float) -> None:
    at = int(time.time() * 1000)
    one = Reading(device, "nohub", at, {"tempC": temp})
    plant.post(one.topic, one.payload, f"{device}-{temp}-{at}")


def called(plant: ShardedPlant, *words: str) -> Result:
    """A command with PLANT as its folder, in this process: what it reads is on disk."""
    arguments = [str(plant.folder) if word == "PLANT" else word for word in words]
    runner = CliRunner(env=plant.environ)
    return runner.invoke(cli, [*arguments, "--data", str(plant.data)], standalone_mode=False)


def said(plant: ShardedPlant, *words: str) -> Any:
    done = called(plant, *words, "--json")
    assert done.exception is None, done.exception
    return json.loads(done.stdout)


def asked(plant: ShardedPlant, path: str) -> Any:
    with urllib.request.urlopen(
        f"http://127.0.0.1:{plant.environ['SERVER_PORT']}{path}", timeout=LIMIT_S
    ) as answer:
        body = answer.read()
        return json.loads(body) if b"json" in answer.headers["content-type"].encode() else body.decode()


def test_what_there_is(plant: ShardedPlant) -> None:
    assert sorted(row["device_id"] for row in said(plant, "alarms", "PLANT")) == DEVICES
    assert sorted(row["device_id"] for row in asked(plant, "/api/alarms")) == DEVICES
    rows = said(plant, "devices", "PLANT")
    assert [row["device_id"] for row in rows] == DEVICES  # each once, in the order of devices.csv
    assert all(row["alarms"] == ["hot"] and row["last_heard"] for row in rows)
    assert sorted(said(plant, "state", "PLANT")) == DEVICES
    for device in DEVICES:
        assert asked(plant, f"/api/devices/{device}/state")["tempC"]["value"] is not None
    assert len(asked(plant, "/api/v3.1/submodels")["result"]) == len(DEVICES)
    assert [rule["active"] for rule in asked(plant, "/api/rules")] == [len(DEVICES)]
    raised = lambda: asked(plant, "/api/rules")[0]["counts"][0]["raised"]  # noqa: E731
    until(lambda: raised() == len(DEVICES), "the flows' word, once a second")
    history = asked(plant, "/api/alarms?history=true")
    assert sorted(event["data"]["device_id"] for event in history) == DEVICES
    assert said(plant, "alarms", "stats", "PLANT")["alarms"] == len(DEVICES)


def summed(status: Any) -> dict[str, int]:
    """The ledger's terms over all sources and products."""
    terms: dict[str, int] = {}
    for row in status["ledger"]:
        for name, count in row.items():
            if isinstance(count, int):
                terms[name] = terms.get(name, 0) + count
    return terms


def test_the_ledger_is_that_of_all_shards(plant: ShardedPlant) -> None:
    until(lambda: summed(asked(plant, "/api/status")).get("frames_in") == 3 * len(DEVICES), "every frame")
    status = asked(plant, "/api/status")
    terms = summed(status)
    assert terms["frames_in"] == 3 * len(DEVICES)
    assert terms["frames_decoded"] + terms["frames_rejected"] == terms["frames_in"]
    assert status["alarms"]["raised"] == len(DEVICES)
    assert sorted(status["waiting"]) == ["alarms-file", "historian"]
    text = asked(plant, "/metrics")
    assert f'penstock_alarm_events_total{{transition="raised"}} {len(DEVICES)}.0' in text
    assert f'penstock_rule_raised_total{{product="press",rule="hot"}} {len(DEVICES)}.0' in text
    for number in range(3):
        assert f'penstock_component_up{{component="flow-{number}"}} 1.0' in text


def test_rejects_are_shown_and_sent_again_in_their_shard(plant: ShardedPlant) -> None:
    rejects = lambda: said(plant, "rejects", "PLANT")  # noqa: E731
    until(lambda: len(rejects()) == len(DEVICES), "the flows' slower half, once a second")
    rows = rejects()
    unknown = [row for row in rows if row["reason"] == "unknown_device"]
    assert sorted(row["device_id"] for row in unknown) == sorted(f"nobody-{device}" for device in DEVICES)
    assert {row["shard"] for row in rows} == {0, 1, 2}
    assert all(row["shard"] == hash_shard(row["device_id"], 3) for row in unknown)
    assert [row["ingest_time"] for row in rows] == sorted((row["ingest_time"] for row in rows), reverse=True)
    before = said(plant, "rejects", "resubmit", "PLANT", "--reason", "unknown_device")
    assert before == {"resubmitted": len(DEVICES), "already": 0, "skipped": 0}
    again = said(plant, "rejects", "resubmit", "PLANT", "--reason", "unknown_device")
    assert again["already"] >= len(DEVICES)


def test_an_action_is_accepted_by_the_shard_that_has_the_alarm(plant: ShardedPlant) -> None:
    for row in said(plant, "alarms", "PLANT")[:4]:
        seen = ("--by", "kim", "--why", "seen")
        (answer,) = said(plant, "alarms", "ack", "PLANT", row["alarm_id"][:12], *seen)
        assert answer["accepted"]
        refused = called(plant, "alarms", "ack", "PLANT", row["alarm_id"], *seen, "--json")
        assert "is acknowledged already" in refused.stdout
    events, last = [], None
    for _ in range(2):
        found = asked(plant, "/api/alarms/events" + (f"?after={last}" if last else "?after=0.0.0"))
        events += found["events"]
        last = found["last"]
    assert sorted(event["data"]["transition"] for event in events) == ["acknowledged"] * 4 + ["raised"] * 6
    assert last.count(".") == 2


def test_parameters_and_explain(plant: ShardedPlant) -> None:
    for device in DEVICES[:3]:
        done = called(plant, "params", "set", "PLANT", device, "limit=95", "--by", "kim", "--why", "bearings")
        assert done.exception is None, done.exception
        send(plant, device, 90)
    until(lambda: sum(row["active"] for row in said(plant, "alarms", "PLANT")) == 3, "the alarms to end")
    rows = {row["device_id"]: row["value"] for row in said(plant, "params", "show", "PLANT")}
    assert rows == {device: 95.0 if device in DEVICES[:3] else 80.0 for device in DEVICES}
    told = said(plant, "explain", "PLANT", "hot")
    assert sorted(one["device_id"] for one in told["devices"]) == DEVICES
    (one,) = said(plant, "explain", "PLANT", "hot", "--device", DEVICES[5])["devices"]
    assert one["device_id"] == DEVICES[5]


def test_a_capture_a_shard_replays_to_what_was_live(plant: ShardedPlant, tmp_path: Path) -> None:
    done = plant.call("capture", "--output", str(tmp_path / "all.jsonl"), "--from-start", "--until-now")
    assert done.returncode == 0, done.stderr
    raised: list[str] = []
    for number in range(3):
        recording = tmp_path / f"all.{number}.jsonl"
        output = tmp_path / str(number)
        words = ["replay", str(plant.folder), "--input", str(recording), "--output", str(output)]
        replayed = CliRunner(env=plant.environ).invoke(cli, words, standalone_mode=False)
        assert replayed.exception is None, replayed.exception
        for line in (output / "alarms.jsonl").read_text().splitlines():
            event = json.loads(line)
            if event["data"]["transition"] == "raised":
                raised.append(event["data"]["alarm_id"])
    live = [event["data"]["alarm_id"] for event in plant.events() if event["data"]["transition"] == "raised"]
    assert sorted(raised) == sorted(live)


def test_a_shards_folder_is_no_plants_data(plant: ShardedPlant) -> None:
    folder = plant.data / "shards" / "1"
    refused = CliRunner(env=plant.environ).invoke(
        cli, ["devices", str(plant.folder), "--data", str(folder)], standalone_mode=False
    )
    told = f"{folder} is shard 1 of a plant's data; name the whole: --data {plant.data}"
    assert str(refused.exception) == told


def test_a_backtest_is_over_all_shards(plant: ShardedPlant) -> None:
    done = called(plant, "backtest", "PLANT", "--rule", "hot", "--json")
    assert done.exception is None, done.exception
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    (rule,) = [line["rule"] for line in lines if "rule" in line]
    assert len([line for line in lines if "alarm" in line]) >= len(DEVICES)
    assert rule["ruleId"] == "hot"
    assert said(plant, "history", "PLANT")
