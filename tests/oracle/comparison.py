"""The engine and the oracle over one plant and one recording, and what differs between them."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from flows.engine import run_recording
from flows.folder import open_plant
from flows.recorded import recorded_slices
from flows.replay_files import write_outcome
from tests.oracle.plants import write_plant
from tests.oracle.rule_seeds import named, rule_text
from tests.reference.plant_oracle import Oracle
from tests.reference.plant_oracle_rules import UNSAID

ALARM_KEYS = (
    "specversion id type source subject time sequence partitionkey data",
    "alarm_id ruleId rule_version productId device_id hub_id site_id customer_id transition severity "
    "onset_time event_time ingest_time actor comment state evidence message",
)
REJECT_KEYS = "reason message source topic device_id productId position index ingest_time payload_hex"


def run_engine(
    folder: Path, plant: dict[str, Any], lines: list[dict[str, Any]], cut: int, close: bool
) -> Path:
    """Replays the lines through the engine; the folder of the outputs."""
    folder.mkdir(exist_ok=True)
    write_plant(folder / "plant", plant)
    recorded = folder / "in.jsonl"
    recorded.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    loaded = open_plant(folder / "plant")
    write_outcome(
        folder / "out", run_recording(loaded, recorded_slices(loaded, [recorded], cut), close=close)
    )
    return folder / "out"


def differences(
    folder: Path, plant: dict[str, Any], lines: list[dict[str, Any]], cut: int = 10_000
) -> list[str]:
    """One sentence for each thing that the engine and the oracle say differently. cut: frames an entry;
    with 7, time is moved past all that is open at the end."""
    close = cut == 7
    folder.mkdir(exist_ok=True)
    known: dict[str, tuple[str, str]] = {}
    if any(line.get("action", {}).get("kind") == "alarm" for line in lines):
        # an alarm_id is a hash that the oracle does not compute; without actions the same alarms raise
        alone = [line for line in lines if line.get("action", {}).get("kind") != "alarm"]
        before = run_engine(folder / "unacted", plant, alone, cut, close)
        events = [*_lines(before / "alarms.jsonl"), *_lines(before / "shadow-alarms.jsonl")]
        known = {e["data"]["alarm_id"]: (e["subject"], e["data"]["onset_time"]) for e in events}
        lines = named(lines, sorted(events, key=lambda each: each["sequence"]))
    out = run_engine(folder / "acted", plant, lines, cut, close)
    oracle = Oracle(plant, known).run(lines, close)
    found: list[str] = []
    _alarms(found, plant, "alarms.jsonl", oracle.book.events, _lines(out / "alarms.jsonl"))
    _alarms(found, plant, "shadow-alarms.jsonl", oracle.book.shadow, _lines(out / "shadow-alarms.jsonl"))
    _windows(found, oracle, _lines(out / "windows.jsonl"))
    _rejects(found, oracle, _lines(out / "rejects.jsonl"))
    state = json.loads((out / "state.json").read_bytes())
    for device in {*state, *oracle.state}:
        _same(found, f"state.json {device}", oracle.state.get(device), state.get(device))
    _same(found, "summary.json", oracle.summary, json.loads((out / "summary.json").read_bytes()))
    _telemetry(found, plant, oracle, out / "telemetry.parquet")
    return found


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def _pairs(found: list[str], name: str, wanted: list[Any], got: list[Any]) -> list[tuple[int, Any, Any]]:
    if len(wanted) != len(got):
        found.append(f"{name}: {len(wanted)} lines expected, {len(got)} found")
    return [(i, w, g) for i, (w, g) in enumerate(zip(wanted, got, strict=False))]


def _same(found: list[str], place: str, wanted: Any, got: Any) -> None:
    if wanted is UNSAID:
        return
    if isinstance(wanted, dict) and isinstance(got, dict):
        for key in {**wanted, **got}:
            _same(found, f"{place}.{key}", wanted.get(key, "(no such key)"), got.get(key, "(no such key)"))
    elif wanted != got or isinstance(wanted, bool) != isinstance(got, bool):
        found.append(f"{place}: {wanted!r} expected, {got!r} found")


def _alarms(
    found: list[str], plant: dict[str, Any], file: str, wanted_events: list[dict[str, Any]], got: list[Any]
) -> None:
    onsets: dict[str, Any] = {}  # a re-based clock may come by the same onset again
    occurrences: dict[Any, str] = {}
    written = {rule["ruleId"]: canonical_version(rule_text(rule)) for rule in plant["rules"]}
    ids = [event["id"] for event in got]
    if len(set(ids)) != len(ids):
        found.append(f"{file}: an id stands twice")
    order = [_place(event) for event in got]
    if order != sorted(order):
        found.append(f"{file}: not in the order of position, device, rule, sequence")
    events = {(event["subject"], event["sequence"]): event for event in got}
    for wanted in wanted_events:
        subject = wanted["subject"]
        event = events.pop((subject, wanted["sequence"]), None)
        place = f"{file} {subject} {int(wanted['sequence']) >> 16}+{int(wanted['sequence']) & 65535}"
        if event is None:
            found.append(f"{place}: {wanted['transition']} at {wanted['event_time']} expected")
            continue
        data = event["data"]
        if [" ".join(event), " ".join(data)] != list(ALARM_KEYS):
            found.append(f"{place}: keys {list(event)} {list(data)}")
        head = {
            "specversion": "1.0",
            "type": f"org.penstock.alarm.{wanted['transition']}",
            "source": f"/plants/{plant['plant']}",
            "subject": subject,
            "time": wanted["event_time"],
            "sequence": wanted["sequence"],
            "partitionkey": subject,
        }
        _same(found, place, head, {key: event[key] for key in head})
        body = {key: value for key, value in wanted.items() if key in data}
        _same(found, place, body, {key: data[key] for key in body})
        if data["ruleId"] in written:
            _same(found, f"{place}.rule_version", written[data["ruleId"]], data["rule_version"])
        if onsets.setdefault(data["alarm_id"], (subject, wanted["onset_time"])) != (
            subject,
            wanted["onset_time"],
        ):
            found.append(f"{place}: alarm_id of another subject or onset")
        if occurrences.setdefault((subject, wanted["alarm"]), data["alarm_id"]) != data["alarm_id"]:
            found.append(f"{place}: an occurrence with two ids")
    for (subject, sequence), event in events.items():
        place = f"{file} {subject} {int(sequence) >> 16}+{int(sequence) & 65535}"
        found.append(f"{place}: {event['data']['transition']} at {event['time']} not expected")


def _place(event: dict[str, Any]) -> tuple[Any, ...]:
    data = event["data"]
    return int(event["sequence"]) >> 16, event["subject"].partition("/")[0], data["ruleId"]


def _whole(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _whole(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_whole(one) for one in value]
    return int(value) if isinstance(value, float) and value == int(value) else value


def canonical_version(rule: dict[str, Any]) -> str:
    """First 12 hex digits of the SHA-256 of the rule as canonical JSON: 5.0 is 5, keys sorted, no blanks."""
    text = json.dumps(_whole(rule), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:12]


def _windows(found: list[str], oracle: Oracle, got: list[dict[str, Any]]) -> None:
    for number, (_, wanted), line in _pairs(found, "windows.jsonl", oracle.windows, got):
        place = f"windows.jsonl[{number}]"
        if list(wanted) != list(line):
            found.append(f"{place}: keys {list(wanted)} expected, {list(line)} found")
            continue
        for key, value in wanted.items():
            if isinstance(value, tuple):
                near = any(abs(line[key] - v) <= 0.0101 * abs(v) + 1e-12 for v in value)
                if not near and not min(value) <= line[key] <= max(value):
                    found.append(f"{place}.{key}: one of {value} expected, {line[key]} found")
            elif key == "std" and value is not None and line[key] is not None:
                scale = max(abs(line.get("min") or 0.0), abs(line.get("max") or 0.0), value)
                if not math.isclose(value, line[key], rel_tol=1e-9, abs_tol=1e-9 * max(scale, 1e3)):
                    found.append(f"{place}.std: {value} expected, {line[key]} found")
            elif value != line[key]:
                found.append(f"{place}.{key}: {value!r} expected, {line[key]!r} found; {wanted}")


def _rejects(found: list[str], oracle: Oracle, got: list[dict[str, Any]]) -> None:
    for number, wanted, line in _pairs(found, "rejects.jsonl", oracle.rejects, got):
        place = f"rejects.jsonl[{number}]"
        if " ".join(line) != REJECT_KEYS:
            found.append(f"{place}: keys {list(line)}")
        if not line.get("message"):
            found.append(f"{place}: no message")
        _same(found, place, wanted, {key: value for key, value in line.items() if key != "message"})


def _telemetry(found: list[str], plant: dict[str, Any], oracle: Oracle, path: Path) -> None:
    types: dict[str, set[str]] = {}
    for product in plant["products"]:
        for name, metric in product["metrics"].items():
            types.setdefault(name, set()).add(metric.get("type", "number"))
    table = pq.read_table(path)
    got = table.to_pylist()
    for number, wanted, row in _pairs(found, "telemetry.parquet", oracle.telemetry, got):
        place = f"telemetry.parquet[{number}]"
        for key, value in row.items():
            if key in ("_ts", "_ingest_ts"):
                value = table.column(key)[number].value
            if key.endswith("__quality"):
                expected: Any = wanted.get(key, "absent")
            else:
                expected = wanted.get(key)
            if expected != value:
                found.append(f"{place}.{key}: {expected!r} expected, {value!r} found")
