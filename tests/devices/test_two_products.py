"""A device that sends frames of two products: what it shows has both, in replay, by command and over HTTP."""

from __future__ import annotations

import base64
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from litestar.testing import TestClient

from connectors.journal.environment import Environment
from connectors.journal.output_store import DATABASES
from flows.cli import cli
from flows.engine import run_recording
from flows.folder import open_plant
from flows.recorded import recorded_slices
from flows.server import make_app
from flows.views import Views
from tests.devices.test_master_data import with_restarts
from tests.server.looked_at import make_data

BEGIN = 1_772_355_600_000  # 2026-03-01T09:00:00Z
TOPIC = "iotlink/prd/nohub/{}/periodic/pub/telemetry/json"
FILES = {
    "plant.yaml": """plant: line
sources:
  line: {kind: mqtt, host: h, subscribe: ["iotlink/#"]}
  meters: {kind: mqtt, host: h, subscribe: ["meters/#"], topic: "meters/{device_id}", product: meter}
  changes: {kind: mqtt, host: h, subscribe: ["master"], carries: master}
""",
    "products/press.yaml": """productId: press
version: 1
topics: ["iotlink/+/+/+/+/pub/telemetry/json"]
decode: {format: json}
metrics: {tempC: {}, rpm: {}}
""",
    "products/kiln.yaml": """productId: kiln
version: 1
topics: ["iotlink/+/+/+/+/pub/telemetry/json"]
decode: {format: json}
metrics: {tempC: {}, gas: {}}
""",
    "products/meter.yaml": """productId: meter
version: 1
decode: {format: json}
metrics: {tempC: {}, watts: {}}
aas:
  asset: "urn:asset:{device_id}"
  submodels:
    - id: "urn:power:{device_id}"
      idShort: Power
      elements: [{path: Watts, value: watts}, {path: High, value: "alarm.`high`.active"}]
""",
    "rules/high.yaml": """ruleId: high
productId: meter
type: threshold
condition: "watts > 100"
severity: high
""",
    "devices.csv": "device_id,productId\np1,press\np2,press\n",
}


GROUP = """ruleId: many
productId: meter
type: group
over: hub_id
condition: "watts > 100"
when: "count >= 1"
severity: high
"""


def folder_of(path: Path) -> Path:
    for name, text in FILES.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    return path


def frame(second: int, source: str, topic: str, metrics: dict[str, float]) -> dict[str, Any]:
    body = {"device_timestamp": BEGIN + 1000 * second, "data": {"metrics": metrics}}
    at = BEGIN + 1000 * second
    return {"ingest_ts": at, "source": source, "topic": topic, "payload": json.dumps(body)}


def line(second: int, metrics: dict[str, float], device: str = "p1") -> dict[str, Any]:
    return frame(second, "line", TOPIC.format(device), metrics)


def meter(second: int, metrics: dict[str, float], device: str = "p1") -> dict[str, Any]:
    return frame(second, "meters", f"meters/{device}", metrics)


def moved(second: int, product: str) -> dict[str, Any]:
    change = {"op": "upsert", "table": "devices", "data": {"device_id": "p1", "productId": product}}
    at = BEGIN + 1000 * second
    return {"ingest_ts": at, "source": "changes", "topic": "master", "payload": json.dumps(change)}


def values(state: dict[str, Any]) -> dict[str, Any]:
    return {name: cell["value"] for name, cell in state.items()}


BOTH = [
    meter(1, {"tempC": 20, "watts": 90}),
    line(2, {"tempC": 80, "rpm": 1500}),
    line(3, {"tempC": 70}, "p2"),
    meter(4, {"watts": 130}),
]
SHOWN = {"meter.tempC": 20, "rpm": 1500, "tempC": 80, "watts": 130}
STEPS: list[tuple[list[dict[str, Any]], dict[str, Any]]] = [
    (BOTH, SHOWN),
    ([meter(1, {"tempC": 20})], {"tempC": 20}),
    # moved: the former product's values stand until the new one is heard
    ([line(1, {"tempC": 80, "rpm": 9}), moved(2, "kiln")], {"tempC": 80, "rpm": 9}),
    ([line(1, {"tempC": 80, "rpm": 9}), moved(2, "kiln"), line(3, {"gas": 4})], {"gas": 4}),
    (
        [*BOTH, moved(5, "kiln"), line(6, {"tempC": 75})],
        {"meter.tempC": 20, "tempC": 75, "watts": 130},
    ),
    (
        [
            line(1, {"rpm": 9}),
            moved(2, "kiln"),
            line(3, {"gas": 4}),
            moved(4, "press"),
            line(5, {"tempC": 1}),
        ],
        {"rpm": 9, "tempC": 1},
    ),
    (
        [line(1, {"rpm": 9}), moved(2, "meter"), meter(3, {"tempC": 5}), moved(4, "press")],
        {"rpm": 9},
    ),
]


@pytest.mark.parametrize(("frames", "expected"), STEPS)
def test_state_json_has_the_metrics_of_both_products(
    frames: list[dict[str, Any]], expected: dict[str, Any], tmp_path: Path
) -> None:
    folder = folder_of(tmp_path / "plant")
    recording = tmp_path / "in.jsonl"
    recording.write_text("".join(json.dumps(one) + "\n" for one in frames))
    out = tmp_path / "out"
    run = CliRunner().invoke(cli, ["replay", str(folder), "--input", str(recording), "--output", str(out)])
    assert run.exit_code == 0, run.output
    state = json.loads((out / "state.json").read_text())
    assert values(state["p1"]) == expected
    plant = open_plant(folder)
    for rows in (1, 2):
        slices = list(recorded_slices(plant, [recording], rows))
        assert with_restarts(plant, slices).state == state
    data = tmp_path / "data"
    make_data(data, folder, [json.dumps(one) for one in frames])
    with closing(Views(data)) as views:
        assert views.states() == state


@pytest.fixture
def data(tmp_path: Path) -> Path:
    found = tmp_path / "data"
    make_data(found, folder_of(tmp_path / "plant"), [json.dumps(one) for one in BOTH])
    return found


@pytest.mark.parametrize(
    ("frames", "cleared"),
    [
        ([*BOTH, line(6, {"rpm": 1}), meter(7, {"watts": 20})], True),
        ([*BOTH, moved(5, "kiln"), line(6, {"gas": 1}), meter(7, {"watts": 20}, "p2")], False),
    ],
)
def test_alarms_of_the_other_product_for_every_cut_and_restart(
    frames: list[dict[str, Any]], cleared: bool, tmp_path: Path
) -> None:
    folder = folder_of(tmp_path / "plant")
    (folder / "rules" / "group.yaml").write_text(GROUP)
    (folder / "devices.csv").write_text("device_id,productId,hub_id\np1,press,h1\np2,press,h1\n")
    recording = tmp_path / "in.jsonl"
    recording.write_text("".join(json.dumps(one) + "\n" for one in frames))
    plant = open_plant(folder)
    whole = run_recording(plant, recorded_slices(plant, [recording])).alarms
    told = [(event["subject"], event["data"]["transition"]) for event in whole]
    both = {"p1/high", "hub:h1/many"}
    assert {subject for subject, transition in told if transition == "raised"} == both
    assert {subject for subject, transition in told if transition == "cleared"} == (
        both if cleared else set()
    )
    for rows in (1, 2, 10_000):
        assert with_restarts(plant, list(recorded_slices(plant, [recording], rows))).alarms == whole


def test_commands_the_server_and_submodels_show_both(data: Path) -> None:
    plant = str(data.parent / "plant")
    told = CliRunner().invoke(cli, ["state", plant, "--data", str(data), "--device", "p1", "--json"])
    assert values(json.loads(told.output)["p1"]) == SHOWN
    with TestClient(make_app(data, "127.0.0.1:8080"), base_url="http://127.0.0.1:8080") as client:
        assert values(client.get("/api/devices/p1/state").json()) == SHOWN
        first, second = client.get("/api/devices").json()
        assert (first["device_id"], first["productId"], first["metrics"]) == ("p1", "press", 4)
        assert (first["last_heard"], first["alarms"]) == ("2026-03-01T09:00:04.000Z", ["high"])
        assert (second["device_id"], second["metrics"]) == ("p2", 1)
        identifier = base64.urlsafe_b64encode(b"urn:power:p1").decode().rstrip("=")
        value = client.get(f"/api/v3.1/submodels/{identifier}/$value").json()
        assert value == {"Watts": 130.0, "High": True}
        assert [one["id"] for one in client.get("/api/v3.1/submodels").json()["result"]] == ["urn:power:p1"]
    asked = ["explain", plant, "high", "--device", "p1", "--data", str(data), "--json"]
    told = CliRunner().invoke(cli, asked)
    assert told.exit_code == 0, told.output
    assert json.loads(told.output)["devices"][0]["productId"] == "meter"


def test_records_of_versions_that_knew_one_product_a_device_are_read(data: Path) -> None:
    with closing(Views(data)) as views:
        shown, rows = views.states(), views.devices()
    environment = Environment(data / "output", map_bytes=1 << 24, databases=DATABASES)
    with environment.env.begin(write=True) as txn:
        records = environment.databases[b"state"]
        with txn.cursor(db=records) as cursor:
            old = {key[:-9]: (key, value) for key, value in cursor if value[0] == 2}
        for device, (key, value) in old.items():
            txn.delete(key, db=records)
            txn.put(device, value, db=records)
    environment.close()
    with closing(Views(data)) as views:
        assert (views.states(), views.devices()) == (shown, rows)
    environment = Environment(data / "output", map_bytes=1 << 24, databases=DATABASES)
    with environment.env.begin(write=True) as txn:  # written anew beside the former: the newer counts
        key, value = old[b"p1"]
        txn.put(key, b"\4" + value[1:], db=environment.databases[b"state"])
    environment.close()
    with closing(Views(data)) as views:
        assert values(views.states()["p1"]) == {"tempC": 20, "watts": 130}
        assert views.status()["devices"] == 2
