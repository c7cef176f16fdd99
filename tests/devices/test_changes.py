"""What changes of master data say when they are wrong, when they count, and who registers what."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from connectors.files.recording import read_recording
from flows.engine import run_recording
from flows.plant_reader import bundle_hash
from flows.replay_files import Outcome
from tests.devices.test_master_data import BEGIN, KNOWN, bundle, plant


def change(at: int, body: Any) -> dict[str, Any]:
    payload = body if isinstance(body, str) else json.dumps(body)
    return {"ingest_ts": BEGIN + at, "source": "changes", "topic": "master", "payload": payload}


def upsert(device: str, **cells: Any) -> dict[str, Any]:
    return {"op": "upsert", "table": "devices", "data": {"device_id": device, **cells}}


def sent(at: int, device: str, value: float, hub: str = "nohub", role: str = "telemetry", **more: Any) -> Any:
    payload = json.dumps({"device_timestamp": BEGIN + at, "data": {"metrics": {"tempC": value}}, **more})
    topic = f"iotlink/prd/{hub}/{device}/periodic/pub/{role}/json"
    return {"ingest_ts": BEGIN + at, "source": "line", "topic": topic, "payload": payload}


def run(folder: Path, *lines: dict[str, Any], unknown: str = "reject", source: str = "file") -> Outcome:
    """The outcome, which no cut into entries changes."""
    path = folder / "in.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    loaded = plant(unknown, source=source)
    found = [run_recording(loaded, read_recording([path], cut)) for cut in (1, 1000)]
    assert (found[0].alarms, found[0].rejects, found[0].summary) == (
        found[1].alarms,
        found[1].rejects,
        found[1].summary,
    )
    return found[0]


WRONG = [
    ("x", "malformed", "no JSON: JSON is malformed: invalid character (byte 0)"),
    ("[" * 100, "malformed", "no JSON: Input data was truncated"),
    ([3], "malformed", '[0]: is no object; write {"op", "table", "data"}'),
    ({"op": "upsrt"}, "malformed", "op: 'upsrt' is not known; did you mean 'upsert'?"),
    (
        {"op": "upsert", "table": "machines", "data": {}},
        "malformed",
        "table: 'machines' is not known; one of devices, sites, customers",
    ),
    ({"op": "upsert", "table": "devices"}, "malformed", "data: is missing; an upsert has it"),
    ({"op": "delete", "table": "devices", "data": {}}, "malformed", "data: does not go with delete"),
    ({"op": "upsert", "table": "devices", "dat": {}}, "malformed", "dat: is unknown; did you mean 'data'?"),
    (
        {"op": "upsert", "table": "devices", "data": {"productId": "press"}},
        "malformed",
        "data.device_id: is missing: it names the row",
    ),
    (
        {"op": "delete", "table": "sites", "keys": {"site_id": "a", "city": "b"}},
        "malformed",
        "keys.city: is unknown; site_id alone names the row",
    ),
    (
        {"op": "delete", "table": "sites", "keys": {"site_id": "a"}, "valid_from": "2026-03-01"},
        "malformed",
        "valid_from: is unknown; it stands in data",
    ),
    (
        [upsert("p2"), upsert("p3", name={"x": 1})],
        "malformed",
        "[1].data.name: is no text, number, boolean or null",
    ),
    (
        upsert("p2", status="borken"),
        "values",
        "data.status: unknown status 'borken'; one of in_service, maintenance, retired",
    ),
    (
        upsert("p2", productId="pres"),
        "no_product",
        "data.productId: no product 'pres'; did you mean 'press'?",
    ),
    (
        upsert("p1", tempHigh="warm"),
        "type",
        "data.tempHigh: 'warm' is no number, and parameter 'tempHigh' of press is one",
    ),
    (
        upsert("p2", valid_from="someday"),
        "malformed",
        "data.valid_from: 'someday' is no time; write 2026-03-01",
    ),
]


@pytest.mark.parametrize(("body", "reason", "message"), WRONG)
def test_a_bad_change_is_a_reject_with_its_place(
    tmp_path: Path, body: Any, reason: str, message: str
) -> None:
    found = run(tmp_path, change(0, body), sent(5, "p2", 90))
    assert [(one["reason"], one["message"]) for one in found.rejects] == [
        (reason, message),
        ("unknown_device", "'p2' is not in devices.csv"),
    ]


def test_a_change_of_a_later_day_waits_for_it(tmp_path: Path) -> None:
    lines = [
        change(0, upsert("p1", tempHigh=95, valid_from=BEGIN + 10_500)),
        sent(1_000, "p1", 90),
        sent(2_000, "p1", 60),
        sent(10_900, "p1", 90),  # the first whole second behind it is still to come
        sent(10_950, "p1", 60),
        sent(11_100, "p1", 90),
        sent(12_000, "p1", 96),
    ]
    found = run(tmp_path, *lines)
    raised = [e["time"][17:23] for e in found.alarms if e["data"]["transition"] == "raised"]
    assert raised == ["01.000", "10.900", "12.000"]


def test_nodes_of_a_known_device_register_children_and_their_frames_come_in(tmp_path: Path) -> None:
    nodes = [{"device_id": "p1", "role": "hub"}, {"device_id": "c1", "role": "child", "parent": "p1"}]
    lines = [sent(0, "c1", 90, "p1"), sent(1_000, "p1", 60, nodes=nodes), sent(2_000, "c1", 60, "p1")]
    found = run(tmp_path, *lines, unknown="hold")
    assert found.summary["frames"] == {"in": 3, "decoded": 3, "rejected": 0, "filtered": 0, "held": 0}
    assert [(e["subject"], e["data"]["hub_id"], e["data"]["ingest_time"][17:23]) for e in found.alarms][
        :1
    ] == [("c1/hot", "p1", "01.000")]


def test_nodes_of_a_stranger_count_for_nothing_where_strangers_are_rejected(tmp_path: Path) -> None:
    found = run(tmp_path, sent(0, "c1", 90, nodes=[{"device_id": "c1"}]), sent(1_000, "c1", 90))
    assert found.summary["frames"]["rejected"] == 2


def test_bad_nodes_change_nothing_and_take_nothing_of_the_frame(tmp_path: Path) -> None:
    bad = [{"device_id": "c1"}, {"device_id": "c2", "role": "boss"}]
    found = run(tmp_path, sent(0, "p1", 90, nodes=bad), sent(1_000, "c1", 90))
    assert found.summary["readings"]["accepted"] == 1
    assert [one["message"] for one in found.rejects] == ["'c1' is not in devices.csv"]


@pytest.mark.parametrize(
    ("topic", "told"),
    [
        ("iotlink/test/nohub/p1/periodic/pub/telemetry/json", "its env is one of dev, stg, prd"),
        (
            "iotlink/prd/nohub/p1/periodical/pub/telemetry/json",
            "its type is one of periodic, event, tcp; did you mean 'periodic'?",
        ),
        ("iotlink/prd/nohub/p1/periodic/pub/telemetry/xml", "its format is one of json, bin"),
        (
            "iotlink/prd/nohub/p1/periodic/up/telemetry/json",
            "its direction is one of pub, sub; did you mean 'pub'?",
        ),
    ],
)
def test_an_address_with_an_odd_part_names_no_device(tmp_path: Path, topic: str, told: str) -> None:
    found = run(tmp_path, {**sent(0, "p1", 90), "topic": topic})
    (reject,) = found.rejects
    if "/up/" in topic or topic.endswith("xml"):  # nor does any product take it
        assert reject["reason"] == "no_product"
        return
    template = "iotlink/{env}/{hub_id}/{device_id}/{type}/{direction}/{role}/{format}"
    assert (reject["reason"], reject["message"]) == (
        "unknown_device",
        f"'{topic}' does not fit '{template}': {told}",
    )


def test_devices_are_limited_and_the_retired_make_room(tmp_path: Path) -> None:
    devices = [upsert(f"d{at}", productId="press") for at in range(3)]
    path = tmp_path / "in.jsonl"
    lines = [
        change(0, devices[0]),
        change(1, devices[1]),
        change(2, {"op": "delete", "table": "devices", "keys": {"device_id": "d0"}}),
        change(3, devices[1:]),
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    loaded = plant("reject")
    loaded.limits.devices = 2
    found = run_recording(loaded, read_recording([path]))
    assert [(one["position"], one["reason"], one["message"]) for one in found.rejects] == [
        (1, "device_limit", "'d1' is one device more than limits.devices allows (2)"),
        (3, "device_limit", "'d2' is one device more than limits.devices allows (2)"),
    ]


def test_a_plant_is_not_full_for_ever_of_devices_that_were_replaced(tmp_path: Path) -> None:
    """By changes that retire them, and by folders that have them no more."""
    lines: list[dict[str, Any]] = []
    for at in range(0, 50, 10):
        lines += [change(at, upsert(f"d{at}", productId="press")), sent(at + 1, f"d{at}", 90)]
        if at % 20:
            lines.append(
                change(at + 2, {"op": "delete", "table": "devices", "keys": {"device_id": f"d{at}"}})
            )
            continue
        for rows in (
            {**KNOWN, f"d{at}": {"device_id": f"d{at}", "productId": "press", "site_id": "busan"}},
            KNOWN,
        ):
            files = bundle("reject", rows=rows)
            files["plant.yaml"] += b"\nlimits: {devices: 2}"
            files["plant.yaml"] = files["plant.yaml"].replace(b"\nlimits: {held: 1000}", b"")
            encoded = {path: base64.b64encode(body).decode() for path, body in files.items()}
            lines.append({"plant": bundle_hash(files), "files": encoded, "at": BEGIN + at + 2})
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in [sent(0, "p1", 60), *lines]))
    loaded = plant("reject")
    loaded.limits.devices = 2
    found = run_recording(loaded, read_recording([path]))
    assert not found.rejects
    assert found.summary["readings"]["accepted"] == 6
