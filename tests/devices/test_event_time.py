"""Readings are joined with master data as of event time, against the plain way, for every cut."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from connectors.files.recording import read_recording
from flows.engine import run_recording
from flows.plant_file import Plant
from flows.plant_reader import bundle_hash, load_bundle, load_plant
from flows.replay_files import Outcome
from flows.shard import Shard
from operators.state.step import StateLogic
from tests.devices.test_master_data import PRODUCT, stamp, timed, with_restarts
from tests.reference.dated_master import ALWAYS, Reference

BEGIN = 1_772_352_000_000
RULE = b"""ruleId: hot
productId: press
type: threshold
condition: "tempC > param.tempHigh"
where: "device.city == 'Ulsan'"
severity: info
message: "{device.tier}|{param.tempHigh}"
"""
PLANT = b"""plant: line
sources:
  line: {kind: mqtt, host: h, subscribe: ["iotlink/#"]}
  changes: {kind: mqtt, host: h, subscribe: ["master"], carries: master}
"""
KEYS = {"devices": "device_id", "sites": "site_id", "customers": "customer_id"}
COLUMNS = {
    "devices": (
        "device_id",
        "productId",
        "hub_id",
        "site_id",
        "customer_id",
        "tempHigh",
        "city",
        "valid_from",
    ),
    "sites": ("site_id", "city", "customer_id", "valid_from"),
    "customers": ("customer_id", "tier", "valid_from"),
}
Versions = dict[str, list[tuple[float, dict[str, str]]]]


def device(name: str, *versions: tuple[float, dict[str, str]]) -> list[tuple[float, dict[str, str]]]:
    return [(day, {"device_id": name, "productId": "press", **cells}) for day, cells in versions]


P1 = device("p1", (ALWAYS, {"site_id": "ulsan", "hub_id": "hub-a"}))
P2 = device(
    "p2",
    (ALWAYS, {"site_id": "seoul"}),
    (-600_000, {"site_id": "ulsan"}),
    (60_000, {"customer_id": "zenith"}),
)
FILES: tuple[Versions, ...] = (
    {"p1": P1, "p2": P2},
    {"p1": device("p1", (-300_000, {"site_id": "seoul", "tempHigh": "90"})), "p2": P2},
    {"p1": device("p1", (120_000, {"site_id": "seoul", "hub_id": "hub-a"})), "p2": P2[:1]},
    {"p1": device("p1", (ALWAYS, {"site_id": "ulsan", "city": "Busan"})), "p2": [P2[0], P2[2]]},
    {"p1": [*P1, *device("p1", (-30_000, {"site_id": "seoul"}), (30_000, {"site_id": "ulsan"}))], "p2": P2},
)
TABLES: dict[str, Versions] = {
    "devices": FILES[0],
    "sites": {
        "ulsan": [(ALWAYS, {"city": "Ulsan", "customer_id": "acme"})],
        "seoul": [(ALWAYS, {"city": "Seoul"}), (-120_000, {"city": "Ulsan", "customer_id": "zenith"})],
    },
    "customers": {"acme": [(ALWAYS, {"tier": "gold"})], "zenith": [(ALWAYS, {})]},
}


def day_text(ms: float) -> str:
    if ms == ALWAYS:
        return ""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=BEGIN + ms)).isoformat()


def csv_of(table: str, rows: Versions) -> bytes:
    lines = [",".join(COLUMNS[table])]
    for key, versions in rows.items():
        for day, cells in versions:
            row = {KEYS[table]: key, **cells, "valid_from": day_text(day)}
            lines.append(",".join(row.get(name, "") for name in COLUMNS[table]))
    return "\n".join(lines).encode()


def bundle(devices: Versions) -> dict[str, bytes]:
    tables = {**TABLES, "devices": devices}
    return {
        "plant.yaml": PLANT,
        "products/press.yaml": PRODUCT,
        "rules/hot.yaml": RULE,
        **{f"{table}.csv": csv_of(table, rows) for table, rows in tables.items()},
    }


def plant() -> Plant:
    loaded, problems = load_plant(bundle(FILES[0]), {})
    assert loaded is not None, problems.render()
    return loaded


def change(table: str, key: str, cells: dict[str, str], since: float | str | None) -> dict[str, Any]:
    dated = {} if since is None else {"valid_from": since if since == "" else BEGIN + since}
    return {"op": "upsert", "table": table, "data": {KEYS[table]: key, **cells, **dated}}


def line(step: tuple[Any, ...]) -> dict[str, Any]:
    kind, ms, *rest = step
    at = BEGIN + ms
    if kind == "tick":
        return {"tick": at}
    if kind == "plant":
        files = bundle(rest[0])
        encoded = {path: base64.b64encode(body).decode() for path, body in files.items()}
        return {"plant": bundle_hash(files), "files": encoded, "at": at}
    if kind == "change":
        payload: Any = [change(*one) for one in rest[0]]
        source, topic = "changes", "master"
    else:
        lag, name, value = rest
        payload = {"device_timestamp": at - lag, "data": {"metrics": {"tempC": value}}}
        source, topic = "line", f"iotlink/prd/nohub/{name}/periodic/pub/telemetry/json"
    return {"ingest_ts": at, "source": source, "topic": topic, "payload": json.dumps(payload)}


def written(folder: Path, steps: Iterable[tuple[Any, ...]]) -> Path:
    path = folder / "in.jsonl"
    path.write_text("".join(json.dumps(line(step)) + "\n" for step in steps))
    return path


def events(outcome: Outcome) -> list[tuple[Any, ...]]:
    found = []
    for event in outcome.alarms:
        data = event["data"]
        asked = (data[name] for name in ("device_id", "transition", "event_time", "hub_id", "site_id"))
        position = data["evidence"]["position"]
        found.append((*asked, data["customer_id"], data["message"], position))
    return found


names = st.sampled_from(["p1", "p2"])
sites = st.sampled_from(["ulsan", "seoul", "busan"])
since = st.one_of(
    st.none(),
    st.none(),
    st.just(""),
    st.sampled_from([-900_000, -200_000, -45_000, 0, 3_500, 62_000, 130_000]),
)
cells = {
    "devices": st.fixed_dictionaries(
        {},
        optional={
            "site_id": st.sampled_from(["ulsan", "seoul", "busan", ""]),
            "hub_id": st.sampled_from(["hub-a", "hub-b", ""]),
            "tempHigh": st.sampled_from(["70", "90", ""]),
            "customer_id": st.sampled_from(["acme", ""]),
        },
    ),
    "sites": st.fixed_dictionaries(
        {},
        optional={
            "city": st.sampled_from(["Ulsan", "Seoul", ""]),
            "customer_id": st.sampled_from(["acme", "zenith", ""]),
        },
    ),
    "customers": st.fixed_dictionaries({}, optional={"tier": st.sampled_from(["gold", "iron", ""])}),
}
changed = st.one_of(
    st.tuples(st.just("devices"), names, cells["devices"], since),
    st.tuples(st.just("sites"), sites, cells["sites"], since),
    st.tuples(st.just("customers"), st.sampled_from(["acme", "zenith"]), cells["customers"], since),
)
lags = st.sampled_from([0, 0, 40, 1_000, 45_000, 299_000, 890_000, 7_200_000])
temperatures = st.sampled_from([60.0, 75.0, 85.0, 95.0])
what = st.one_of(
    st.tuples(st.just("telemetry"), lags, names, temperatures),
    st.tuples(st.just("telemetry"), lags, names, temperatures),
    st.tuples(st.just("change"), st.lists(changed, min_size=1, max_size=3)),
    st.tuples(st.just("plant"), st.sampled_from(FILES)),
)
waits = st.sampled_from([1, 40, 700, 61_003, 301_007])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(waits, what), min_size=1, max_size=30))
def test_events_tell_of_the_row_that_stood_at_their_time(
    tmp_path_factory: pytest.TempPathFactory, moves: list[Any]
) -> None:
    steps = list(timed(moves, now=-1))
    reference = Reference(TABLES)
    reference.run(steps)
    assume(not reference.clock_may_have_stepped)
    expected = [
        (
            device,
            word,
            stamp(sent),
            hub or None,
            site or None,
            customer or None,
            f"{tier or 'unknown'}|{high:g}",
            at,
        )
        for device, word, sent, hub, site, customer, tier, high, at in reference.events
    ]
    path, loaded = written(tmp_path_factory.mktemp("steps"), steps), plant()
    whole = run_recording(loaded, read_recording([path]))
    assert not whole.rejects
    assert events(whole) == expected
    assert run_recording(loaded, read_recording([path], 1)).alarms == whole.alarms
    assert with_restarts(loaded, read_recording([path], 2)).alarms == whole.alarms


HOUR = 3_600_000


def looked_at(loaded: Plant, path: Path, cut: int) -> tuple[list[tuple[Any, ...]], Any]:
    """The intervals of alarms, and what a submodel shows of the only device."""
    shard = Shard(loaded, load=load_bundle)
    stages = [make() for make in (shard.decode, shard.contract, shard.rules, shard.windows, shard.state)]
    found = []
    for item in read_recording([path], cut):
        for stage in stages:
            stage.process(item)
        for part in item.runs:
            found += [(one.row["raised_time"], one.row["cleared_time"]) for one in part.intervals]
    logic = shard.stages["state"].logic
    assert isinstance(logic, StateLogic)
    (device_state,) = logic.devices_state()
    return found, [
        one.value
        for metrics in device_state.windows.values()
        for of in metrics.values()
        for one in of.values()
    ]


def test_a_backlog_is_evaluated_by_what_its_device_was_then(tmp_path: Path) -> None:
    """Intervals of historical readings, and a formula that a submodel shows."""
    files = bundle(FILES[0])
    files["rules/hot.yaml"] = RULE.replace(b"severity: info", b"severity: high")
    files["formulas/margin.yaml"] = b"formulaId: margin\nproductId: press\nformula: param.tempHigh - tempC\n"
    files["products/press.yaml"] += b"""aas:
  asset: "https://example.com/{device_id}"
  submodels:
    - id: "https://example.com/sm/{device_id}"
      idShort: Values
      elements: [{path: Margin, value: "formula.margin"}]
"""
    loaded, problems = load_plant(files, {})
    assert loaded is not None, problems.render()
    moved = ("devices", "p1", {"site_id": "busan", "tempHigh": "90"}, -2 * HOUR)
    back = ("devices", "p1", {"site_id": "ulsan", "tempHigh": ""}, -1 * HOUR)
    lags = (3.0, 1.8, 1.5, 0.8, 0.5, 0.4)  # hours; before, in Busan twice, after
    values = (95.0, 85.0, 95.0, 60.0, 85.0, 60.0)
    readings = [
        ("telemetry", at, at + int(lag * HOUR), "p1", value)
        for at, (lag, value) in enumerate(zip(lags, values, strict=True), 1)
    ]
    times = [stamp(-int(lag * HOUR)) for lag in lags]
    expected = [(times[0], None), (times[0], times[1]), (times[4], None), (times[4], times[5])]
    for cut in (1, 100):
        path = written(tmp_path, [("change", 0, [moved, back]), *readings])
        assert looked_at(loaded, path, cut) == (expected, [20.0])
        path = written(tmp_path, [("change", 0, [moved, back]), *readings[:3]])
        assert looked_at(loaded, path, cut) == (expected[:2], [-5.0])
