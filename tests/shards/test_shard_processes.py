"""The processes of a plant of several shards, what they are told, and what cannot change while they run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from connectors.shards import hash_shard
from flows.change import plan_change
from flows.change_processes import folder_of
from flows.components import components
from flows.plant_file import Plant
from flows.plant_reader import load_plant
from flows.shards import settle_shards
from flows.status import StatusThread, component_name, read_status
from tests.shards.scenario import FILES, PLANT

HUBS = [f"hub-{number}" for number in range(40)]


def plant_of(**changed: str) -> Plant:
    files = {**FILES, **{name.replace("__", "/").replace("_", "."): text for name, text in changed.items()}}
    plant, problems = load_plant({name: text.encode() for name, text in files.items()}, {})
    assert plant is not None, problems.render()
    return plant


def test_each_shard_has_its_processes() -> None:
    more = (
        "shards: {count: 2, by: hub_id}\njournal: {max: 1GB}\narchive: {path: 's3://store/line?region=x'}\n"
    )
    found = components(plant_of(plant_yaml=f"{PLANT}{more}sinks: {{alarms: {{bootstrap: 'k:9092'}}}}\n"))
    assert [(name, one.shard) for name, one in found.items()] == [
        ("journal-0", 0),
        ("journal-1", 1),
        ("flow-0", 0),
        ("flow-1", 1),
        ("archiver-0", 0),
        ("archiver-1", 1),
        ("historian", None),
        ("drainer-alarms-file-0", 0),
        ("drainer-historian-0", 0),
        ("drainer-kafka-0", 0),
        ("drainer-alarms-file-1", 1),
        ("drainer-historian-1", 1),
        ("drainer-kafka-1", 1),
        ("server", None),
        ("receiver-ingest", None),
    ]
    journal = found["journal-1"].arguments
    assert journal[journal.index("--max-bytes") + 1] == "500000000"
    assert found["archiver-1"].body["path"] == "s3://store/line/shards/1?region=x"
    kafka = found["drainer-kafka-1"].body
    assert (kafka["shard"], kafka["alarms"]["backlog"]) == (1, 2_000_000_000)
    assert found["receiver-ingest"].body["shards"]["keys"]["press-05"] == "hub-1"
    assert folder_of(Path("data"), found["flow-1"]) == Path("data/shards/1")
    assert folder_of(Path("data"), found["server"]) == Path("data")


def test_one_shard_is_as_it_always_was() -> None:
    found = components(plant_of(plant_yaml=PLANT))
    assert list(found) == [
        *("journal", "flow", "historian", "drainer-alarms-file", "drainer-historian", "server"),
        "receiver-ingest",
    ]
    assert all(one.shard is None for one in found.values())
    assert "shards" not in found["receiver-ingest"].body
    assert "shard" not in found["drainer-historian"].body


def test_a_device_does_not_move_to_another_shard() -> None:
    here = hash_shard("hub-1", 3)
    same = next(hub for hub in HUBS if hash_shard(hub, 3) == here and hub != "hub-1")
    other = next(hub for hub in HUBS if hash_shard(hub, 3) != here)
    row = "press-05,press,hub-1\n"
    before, table = plant_of(), FILES["devices.csv"]
    stays = plant_of(devices_csv=table.replace(row, f"press-05,press,{same}\n"))
    moves = plant_of(devices_csv=table.replace(row, f"press-05,press,{other}\n"))
    assert plan_change(before, stays).refused == []
    assert plan_change(before, moves).refused == [
        f"devices.csv  press-05.hub_id: 'hub-1' is in shard {here}, '{other}' in {hash_shard(other, 3)}, and "
        "a device's state cannot move; keep 'hub-1', or retire press-05 and add the device under another name"
    ]
    alone, moved = (
        plant_of(plant_yaml=PLANT, devices_csv=one) for one in (table, table.replace("hub-1", other))
    )
    assert plan_change(alone, moved).refused == []


def test_a_plan_names_the_processes_of_every_shard() -> None:
    with_kafka = plant_of(plant_yaml=FILES["plant.yaml"] + "sinks: {alarms: {bootstrap: 'k:9092'}}\n")
    plan = plan_change(plant_of(), with_kafka)
    assert plan.starts == ["drainer-kafka-0", "drainer-kafka-1", "drainer-kafka-2"]
    assert [item.effect for item in plan.items if item.kind == "sink"] == [
        "starts drainer-kafka-0, drainer-kafka-1, drainer-kafka-2"
    ]


def test_status_is_told_by_plant_and_by_shard(tmp_path: Path) -> None:
    folders = settle_shards(tmp_path, 2, "device_id")
    (tmp_path / "run").mkdir()
    for folder in folders:
        StatusThread(folder, "flow", lambda folder=folder: {"of": folder.name}).write()  # type: ignore[misc]
    StatusThread(tmp_path, "receiver-line-1", lambda: {}).write()
    assert component_name(folders[1], "flow") == "flow-1"
    assert sorted(read_status(tmp_path)) == ["flow-0", "flow-1", "receiver-line-1"]
    mine = read_status(folders[1])
    assert sorted(mine) == ["flow", "receiver-line-1"]
    assert (mine["flow"]["of"], mine["flow"]["component"]) == ("1", "flow-1")
    assert json.loads((tmp_path / "run" / "flow-1.json").read_text())["of"] == "1"


@pytest.mark.parametrize("name", ["flow", "drainer-kafka"])
def test_an_only_shard_has_no_number(tmp_path: Path, name: str) -> None:
    assert component_name(tmp_path, name) == name
