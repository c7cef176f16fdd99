"""Births that register their devices, where the plant's devices come by stream."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from connectors.files.recording import read_recording
from connectors.mqtt.config import SparkplugConfig
from connectors.mqtt.sparkplug.messages import Sparkplug
from flows.engine import run_recording
from flows.folder import open_plant
from tests.sparkplug.edge import EdgeNode
from tests.sparkplug.test_plant import METRICS, written

AT = 1_780_000_000_000
TOPICS = 'topics: ["spBv1.0/works/+/edge1/+"]\n'  # of devices, and not of their node


def replayed(
    folder: Path, devices: str, rows: str = "device_id,productId\n", topics: str = TOPICS
) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]], dict[str, Any]]:
    """summary, alarms, rejects and state of: data before the births, the births, data after them."""
    plant, node = written(folder / "plant"), EdgeNode("works", "edge1", {"up": ("Int64", 1)}, {"p1": METRICS})
    with (plant / "plant.yaml").open("a") as file:
        file.write(f"devices: {devices}\n")
    product = plant / "products" / "press.yaml"
    product.write_text(product.read_text() + topics)
    (plant / "devices.csv").write_text(rows)
    node.session()
    births = node.births(AT + 1000)
    sparkplug = Sparkplug(SparkplugConfig())
    with (folder / "heard.jsonl").open("w") as lines:
        early = Sparkplug(SparkplugConfig())
        early.take(*births[1])  # somebody who has heard the births before
        seen = early.take(*node.data("p1", {"Motor/Temp": 95.0}, AT))
        for message in births:
            seen += sparkplug.take(*message)
        seen += sparkplug.take(*node.data("p1", {"Motor/Temp": 96.0}, AT + 2000))
        for number, frame in enumerate(seen):
            line = {"ingest_ts": AT + 500 * number, "source": "scada", "topic": frame.topic}
            lines.write(json.dumps(line | {"payload_hex": frame.payload.hex()}) + "\n")
    loaded, heard = open_plant(plant), folder / "heard.jsonl"
    whole, *cut = [run_recording(loaded, read_recording([heard], frames)) for frames in (10_000, 3, 1)]
    for one in cut:
        assert (one.summary, one.alarms, one.rejects, one.state) == (
            *(whole.summary, whole.alarms, whole.rejects, whole.state),
        )
    return whole.summary["frames"], whole.alarms, whole.rejects, whole.state


def test_a_birth_registers_its_device_under_its_edge_node(tmp_path: Path) -> None:
    frames, alarms, rejects, state = replayed(tmp_path, "{source: stream}")
    assert frames == {"in": 4, "decoded": 2, "rejected": 2, "filtered": 0, "held": 0}
    assert [(one["reason"], one["message"]) for one in rejects] == [
        ("unknown_device", "'works.edge1.p1' is not in devices.csv"),  # it was not there yet
        ("no_product", "no product takes 'spBv1.0/works/NBIRTH/edge1'"),  # the node is nobody's device
    ]
    assert state["works.edge1.p1"]["tempC"]["value"] == 96.0
    assert [(one["data"]["ruleId"], one["data"]["hub_id"]) for one in alarms] == [("hot", "works.edge1")]


def test_what_waited_for_its_birth_is_taken_in_by_it(tmp_path: Path) -> None:
    frames, alarms, rejects, _ = replayed(tmp_path, "{source: stream, unknown: hold}")
    assert frames == {"in": 4, "decoded": 3, "rejected": 1, "filtered": 0, "held": 0}
    assert [one["reason"] for one in rejects] == ["no_product"]
    told = [(one["data"]["transition"], one["time"][17:23]) for one in alarms]
    assert told == [("raised", "40.000"), ("cleared", "41.000"), ("closed", "42.000"), ("raised", "42.000")]


def test_a_node_that_a_product_takes_is_registered_too(tmp_path: Path) -> None:
    frames, _, rejects, _ = replayed(tmp_path, "{source: stream}", topics='topics: ["spBv1.0/works/#"]\n')
    assert frames == {"in": 4, "decoded": 3, "rejected": 1, "filtered": 0, "held": 0}
    assert [one["device_id"] for one in rejects] == ["works.edge1.p1"]


@pytest.mark.parametrize("devices", ["{}", "{source: file, unknown: reject}", "{unknown: hold}"])
def test_births_register_nothing_where_devices_come_by_file(tmp_path: Path, devices: str) -> None:
    frames, _, _, state = replayed(tmp_path, devices)
    assert frames["decoded"] == 0
    assert state == {}


def test_a_birth_takes_nothing_back(tmp_path: Path) -> None:
    """Another hub stays; a retired device stays retired."""
    rows = "device_id,productId,hub_id,status\nworks.edge1.p1,press,hall,\n"
    _, alarms, _, _ = replayed(tmp_path / "hub", "{source: stream}", rows)
    assert {one["data"]["hub_id"] for one in alarms} == {"hall"}
    retired = rows.replace("hall,", "hall,retired")
    frames, alarms, _, _ = replayed(tmp_path / "retired", "{source: stream}", retired)
    assert (frames["decoded"], alarms) == (3, [])
