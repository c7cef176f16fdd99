"""Devices that are held, provisioned, changed and retired, against the plain way, for every cut."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.files.recording import read_recording
from flows.engine import run_recording
from flows.plant_file import Plant
from flows.plant_reader import bundle_hash, load_bundle, load_plant
from flows.replay_files import Outcome, OutcomeCollector
from flows.shard import Shard
from operators.batch import Slice
from rules.step import RulesLogic
from tests.reference.master_data import Reference

BEGIN = 1_772_352_000_000
DEVICES = ("p1", "p2", "p3", "hub-a")
KNOWN = {"p1": {"device_id": "p1", "productId": "press", "hub_id": "hub-a", "site_id": "ulsan"}}

PRODUCT = b"""productId: press
version: 1
topics: ["iotlink/+/+/+/+/pub/telemetry/json"]
decode: {format: json}
params: {tempHigh: 80}
metrics:
  tempC: {type: number}
"""
RULE = b"""ruleId: hot
productId: press
type: threshold
condition: "tempC > param.tempHigh"
severity: info
message: "{device.site_id}"
"""


WIDER = b"""ruleId: delayed
productId: press
type: threshold
condition: "tempC > param.tempHigh"
on_delay: 500ms
where: "device.site_id == 'ulsan'"
severity: high
suppressed_by: [many]
message: "{device_id} {hub_id} {site_id}"
---
ruleId: many
productId: press
type: group
over: hub_id
condition: "tempC > 80"
when: "count >= 2"
severity: high
---
ruleId: quiet
productId: press
type: absence
for: 1m
severity: low
message: "{device.hub_id}"
---
ruleId: cold-then-hot
productId: press
type: sequence
steps: ["tempC < 70", "tempC > param.tempHigh"]
severity: medium
"""


FILES: tuple[dict[str, dict[str, str]], ...] = (
    KNOWN,
    {},
    {"p1": {"device_id": "p1", "productId": "press", "site_id": "seoul"}},
    {**KNOWN, "p2": {"device_id": "p2", "productId": "press", "tempHigh": "70", "site_id": "ulsan"}},
)


def bundle(
    unknown: str,
    cap: int = 1000,
    source: str = "file",
    rows: dict[str, dict[str, str]] = KNOWN,
    rules: bytes = RULE,
) -> dict[str, bytes]:
    text = f"""plant: line
sources:
  line: {{kind: mqtt, host: h, subscribe: ["iotlink/#"]}}
  changes: {{kind: mqtt, host: h, subscribe: ["master"], carries: master}}
devices: {{source: {source}, unknown: {unknown}, hold_for: 10m}}
limits: {{held: {cap}}}
"""
    columns = ("device_id", "productId", "hub_id", "site_id", "tempHigh")
    lines = [",".join(columns), *(",".join(row.get(name, "") for name in columns) for row in rows.values())]
    return {
        "plant.yaml": text.encode(),
        "products/press.yaml": PRODUCT,
        "rules/hot.yaml": rules,
        "devices.csv": "\n".join(lines).encode(),
    }


def plant(unknown: str, cap: int = 1000, source: str = "file", rules: bytes = RULE) -> Plant:
    loaded, problems = load_plant(bundle(unknown, cap, source, rules=rules), {})
    assert loaded is not None, problems.render()
    return loaded


def changes_of(changes: list[tuple[str, dict[str, str]]]) -> list[dict[str, Any]]:
    return [
        {"op": op, "table": "devices", "data" if op == "upsert" else "keys": data} for op, data in changes
    ]


def line(number: int, step: tuple[Any, ...], files: Mapping[str, bytes]) -> dict[str, Any]:
    """A step as recorded input; files: of the plant."""
    kind, at = step[0], BEGIN + step[1]
    if kind == "plant":
        encoded = {path: base64.b64encode(body).decode() for path, body in files.items()}
        return {"plant": bundle_hash(files), "files": encoded, "at": at}
    if kind == "tick":
        return {"tick": at}
    if kind == "action":
        body = {"id": f"a{number}", "kind": "master", "changes": changes_of(step[2]), "by": "me", "why": None}
        return {"action": body, "at": at}
    if kind == "master":
        return {
            "ingest_ts": at,
            "source": "changes",
            "topic": "master",
            "payload": json.dumps(changes_of(step[2])),
        }
    device, hub = step[2], step[3] or "nohub"
    if kind == "provision":
        body = {"data": {} if step[4] is None else {"productId": step[4]}}
        topic = f"iotlink/prd/{hub}/{device}/event/pub/provisioning_complete/json"
    else:
        body = {"device_timestamp": at, "data": {"metrics": {"tempC": step[4]}}}
        if step[5] is not None:
            body["nodes"] = [{"device_id": n, "role": r, "parent": p or None} for n, r, p in step[5]]
        topic = f"iotlink/prd/{hub}/{device}/periodic/pub/telemetry/json"
    return {"ingest_ts": at, "source": "line", "topic": topic, "payload": json.dumps(body)}


Steps = list[tuple[Any, ...]]


def recording(folder: Path, steps: Steps, unknown: str, cap: int, source: str, rules: bytes = RULE) -> Path:
    path = folder / "in.jsonl"
    lines = [
        line(at, step, bundle(unknown, cap, source, step[2], rules) if step[0] == "plant" else {})
        for at, step in enumerate(steps)
    ]
    path.write_text("".join(json.dumps(one) + "\n" for one in lines))
    return path


def with_restarts(loaded: Plant, items: Iterable[Slice]) -> Outcome:
    """The stages without Bytewax, all of them made anew from their snapshots after each slice."""
    bundles = {loaded.sha256: loaded.files}
    shard = Shard(loaded, load=load_bundle, bundle=bundles.__getitem__)
    stages = [make() for make in (shard.decode, shard.contract, shard.rules, shard.windows, shard.state)]
    collector = OutcomeCollector(loaded)
    for item in items:
        if item.control is not None and item.control.kind == "plant":
            bundles[item.control.data["sha256"]] = item.control.data["files"]
        for stage in stages:
            stage.process(item)
        for part in item.runs:
            collector.take(part)
        kept = [stage.snapshot() for stage in stages]
        shard = Shard(loaded, load=load_bundle, bundle=bundles.__getitem__)
        stages = [make() for make in (shard.decode, shard.contract, shard.rules, shard.windows, shard.state)]
        for stage, data in zip(stages, kept, strict=True):
            stage.restore(data)
    return collector.outcome(shard)


def events(outcome: Outcome) -> list[tuple[Any, ...]]:
    return [
        (
            data["device_id"],
            data["transition"],
            event["time"],
            data["hub_id"],
            data["site_id"],
            data["evidence"]["position"],
        )
        for event in outcome.alarms
        for data in [event["data"]]
    ]


def stamp(ms: int) -> str:
    from operators.contract.messages import time_text

    return time_text((BEGIN + ms) * 1_000_000)


names = st.sampled_from(DEVICES)
hubs = st.sampled_from(["", "hub-a", "hub-b"])
cells = st.fixed_dictionaries(
    {},
    optional={
        "productId": st.sampled_from(["press", "press", "pres"]),
        "hub_id": hubs,
        "site_id": st.sampled_from(["ulsan", "seoul", ""]),
        "tempHigh": st.sampled_from(["70", "90", "", "warm"]),
        "status": st.sampled_from(["retired", ""]),
    },
)
change = st.one_of(
    st.builds(lambda name, row: ("upsert", {"device_id": name, **row}), names, cells),
    st.builds(lambda name: ("delete", {"device_id": name}), names),
)
changes = st.lists(change, min_size=1, max_size=3)
nodes = st.one_of(
    st.none(), st.none(), st.lists(st.tuples(names, st.sampled_from(["hub", "child"]), hubs), max_size=2)
)
temperatures = st.sampled_from([60.0, 75.0, 85.0, 95.0])
what = st.one_of(
    st.tuples(st.just("telemetry"), names, hubs, temperatures, nodes),
    st.tuples(st.just("telemetry"), names, hubs, temperatures, st.none()),
    st.tuples(st.just("provision"), names, hubs, st.sampled_from([None, "press", "pres"])),
    st.tuples(st.just("master"), changes),
    st.tuples(st.just("action"), changes),
    st.tuples(st.just("plant"), st.sampled_from(FILES)),
)
waits = st.sampled_from([1, 1, 40, 700, 61_003, 301_007])


def timed(moves: list[tuple[int, tuple[Any, ...]]], now: int = 0) -> Iterator[tuple[Any, ...]]:
    """Steps in time from `now` on, with a tick at the last whole second before each that is behind it."""
    for wait, (kind, *rest) in moves:
        second = (now + wait) // 1000 * 1000
        if second > now:
            yield "tick", second
        now += wait
        yield kind, now, *rest


def check(folder: Path, moves: list[Any], unknown: str, cap: int, source: str) -> None:
    steps = list(timed(moves))
    expected = Reference(KNOWN, unknown, 600_000, cap, source == "stream")
    expected.run(steps)
    loaded, path = plant(unknown, cap, source), recording(folder, steps, unknown, cap, source)
    whole = run_recording(loaded, read_recording([path]))
    assert whole.summary["frames"] == {**expected.frames, "filtered": 0}
    assert whole.summary["readings"]["filtered"] == expected.filtered
    assert [
        (one["position"], one["reason"] if one["reason"] == "unknown_device" else "refused")
        for one in whole.rejects
    ] == sorted(expected.rejects)
    told = [(d, t, stamp(ms), h, s, p) for d, t, ms, h, s, p in expected.events]
    assert events(whole) == sorted(told, key=lambda one: (one[5], one[0]))
    for cut in (1, 3):
        again = with_restarts(loaded, read_recording([path], cut))
        assert again.alarms == whole.alarms
        assert again.rejects == whole.rejects
        assert again.summary == whole.summary
        assert again.state == whole.state


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(waits, what), min_size=1, max_size=25),
    st.sampled_from(["hold", "hold", "reject", "accept"]),
    st.sampled_from([2, 1000]),
    st.sampled_from(["file", "stream"]),
)
def test_what_becomes_of_frames_is_what_the_plain_way_says(
    tmp_path_factory: pytest.TempPathFactory, moves: list[Any], unknown: str, cap: int, source: str
) -> None:
    """In one cut and in others, and with the stages made anew after every slice."""
    check(tmp_path_factory.mktemp("steps"), moves, unknown, cap, source)


def check_wider(folder: Path, moves: list[Any], unknown: str, source: str) -> None:
    steps = list(timed(moves))
    loaded = plant(unknown, 1000, source, WIDER)
    path = recording(folder, steps, unknown, 1000, source, WIDER)
    with pytest.MonkeyPatch.context() as patch:  # all is made anew at every change
        patch.setattr(RulesLogic, "refresh", lambda logic, *_: False)
        whole = run_recording(loaded, read_recording([path]))
    for again in (
        run_recording(loaded, read_recording([path])),
        run_recording(loaded, read_recording([path], 1)),
        with_restarts(loaded, read_recording([path], 2)),
    ):
        assert again.alarms == whole.alarms
        assert again.summary == whole.summary


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(waits, what), min_size=1, max_size=30),
    st.sampled_from(["hold", "accept"]),
    st.sampled_from(["file", "stream"]),
)
def test_rules_of_every_kind_follow_changes_at_their_place(
    tmp_path_factory: pytest.TempPathFactory, moves: list[Any], unknown: str, source: str
) -> None:
    """For every cut, over restarts, and as if another plant was applied at each change."""
    check_wider(tmp_path_factory.mktemp("steps"), moves, unknown, source)
