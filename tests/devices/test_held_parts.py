"""Readings of unknown devices in frames that name several devices, against the plain way, for every cut."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.files.recording import read_recording
from flows.engine import run_recording
from flows.plant_file import Plant
from flows.plant_reader import load_plant
from tests.devices.test_master_data import BEGIN, timed, with_restarts
from tests.reference.held_parts import Reference

PRODUCT = b"""productId: sensor
version: 1
topics: ["values/#"]
decode: {format: json, rows: "values[*]", device: sn, metric: id, value: v, timestamp: t}
metrics:
  level: {type: number}
"""
DEVICES = ("a", "b", "c", "d")


def plant(cap: int) -> Plant:
    text = f"""plant: line
sources:
  line: {{kind: mqtt, host: h, subscribe: ["values/#"], device: payload:sn}}
devices: {{unknown: hold, hold_for: 2m}}
limits: {{held: {cap}}}
"""
    files = {
        "plant.yaml": text.encode(),
        "products/sensor.yaml": PRODUCT,
        "devices.csv": b"device_id,productId\na,sensor\n",
    }
    loaded, problems = load_plant(files, {})
    assert loaded is not None, problems.render()
    return loaded


def line(number: int, step: tuple[Any, ...]) -> dict[str, Any]:
    kind, at = step[0], BEGIN + step[1]
    if kind == "tick":
        return {"tick": at}
    if kind == "known":
        rows = [{"device_id": name, "productId": "sensor"} for name in step[2]]
        changes = [{"op": "upsert", "table": "devices", "data": row} for row in rows]
        body = {"id": f"a{number}", "kind": "master", "changes": changes, "by": "me", "why": None}
        return {"action": body, "at": at}
    values = [
        {"sn": device, "id": "level", "v": value, "t": at + index}
        for index, (device, value) in enumerate(step[2])
    ]
    return {"ingest_ts": at, "source": "line", "topic": "values/x", "payload": json.dumps({"values": values})}


readings = st.lists(
    st.tuples(st.sampled_from([*DEVICES, *DEVICES, ""]), st.sampled_from([1.0, 2.0, 3.0])),
    min_size=1,
    max_size=5,
)
what = st.one_of(
    st.tuples(st.just("frame"), readings),
    st.tuples(st.just("frame"), readings),
    st.tuples(st.just("known"), st.lists(st.sampled_from(DEVICES), min_size=1, max_size=2, unique=True)),
)
waits = st.sampled_from([10, 10, 700, 61_003, 121_007])


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(waits, what), min_size=1, max_size=20), st.sampled_from([2, 1000]))
def test_each_reading_comes_in_once_and_each_frame_is_counted_once(
    tmp_path_factory: pytest.TempPathFactory, moves: list[Any], cap: int
) -> None:
    steps = list(timed(moves))
    expected = Reference({"a"}, 120_000, cap)
    expected.run(steps)
    path, loaded = tmp_path_factory.mktemp("steps") / "in.jsonl", plant(cap)
    path.write_text("".join(json.dumps(line(at, step)) + "\n" for at, step in enumerate(steps)))
    whole = run_recording(loaded, read_recording([path]))
    assert whole.summary["frames"] == expected.ledger()
    assert whole.summary["readings"] == {
        "decoded": len(expected.accepted) + len(expected.rejects),
        "accepted": len(expected.accepted),
        "late": 0,
        "rejected": len(expected.rejects),
        "filtered": 0,
    }
    found = [(one["position"], one["index"], one["device_id"] or "") for one in whole.rejects]
    assert sorted(found) == sorted(
        [*expected.rejects, *((at, 0, name) for at, name in expected.whole_rejects)]
    )
    newest = {
        name: max((at, index, value) for at, index, device, value in expected.accepted if device == name)
        for name in {device for _, _, device, _ in expected.accepted}
    }
    assert {
        device: (told["level"]["position"], told["level"]["value"]) for device, told in whole.state.items()
    } == {name: (at, value) for name, (at, _, value) in newest.items()}
    for again in (
        run_recording(loaded, read_recording([path], 1)),
        with_restarts(loaded, read_recording([path], 2)),
    ):
        assert (again.summary, again.rejects, again.state) == (whole.summary, whole.rejects, whole.state)
