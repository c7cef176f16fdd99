"""tests/*.yaml: what goes in and what must come out, read and checked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

import msgspec

from flows.plant_file import Plant
from operators.convert import Later, convert, parse_duration
from operators.document import Node, Problems, nearest
from operators.rejects import Reason

OFFSET: Final = re.compile(r"\+\s*(.+)\Z")
_LATER: Final = Later()


class CaseReading(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One reading, sent in the format of its device's product."""

    at: str
    device: str = ""  # default: the device of the reading before
    metrics: dict[str, str | int | float | bool | None]
    received: str | None = None  # ingest time; default: at


class CaseFrame(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One frame as it comes from a source."""

    at: str
    topic: str = ""
    source: str | None = None  # default: the plant's first source
    json: Any = None
    text: str | None = None
    hex: str | None = None
    port: int = -1
    headers: dict[str, str] = msgspec.field(default_factory=dict)


class ExpectedAlarm(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What an event must be; keys left out are not compared."""

    ruleId: str | None = None
    device_id: str | None = None
    transition: Literal["raised", "cleared"] | None = None
    at: str | None = None  # event time
    severity: str | None = None
    message: str | None = None


class ExpectedReject(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What a reject must be; keys left out are not compared."""

    reason: str | None = None
    device_id: str | None = None
    message: str | None = None


class Expect(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """alarms: every raised and cleared, in order. rejects: how many, or each in order."""

    alarms: list[ExpectedAlarm] | None = None
    rejects: int | list[ExpectedReject] | None = None
    readings: int | None = None  # accepted ones


class Case(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One document of tests/*.yaml."""

    name: str
    expect: Expect
    readings: list[CaseReading] | None = None
    frames: list[CaseFrame] | None = None
    file: str | None = None
    until: str | None = None  # the clock goes on to here after the last frame


@dataclass(slots=True, eq=False)
class PlantTest:
    """A test that has passed its checks; `node` tells where it stands."""

    path: str
    case: Case
    node: Node


def check_tests(plant: Plant, problems: Problems) -> list[PlantTest]:
    """The tests of a plant; what is wrong with them is in `problems`."""
    found: list[PlantTest] = []
    for path, documents in plant.tests.items():
        for node in documents:
            case = convert(node, Case, problems, _LATER)
            if case is not None:
                _carry_devices(case)
                _check(plant, case, node, problems)
                found.append(PlantTest(path, case, node))
    return found


def _carry_devices(case: Case) -> None:
    """A reading that names no device is of the same one as the reading before it."""
    device = ""
    for reading in case.readings or ():
        device = reading.device = reading.device or device


def start_of(case: Case) -> int | None:
    """Milliseconds since 1970 of the first reading or frame; None where its time is no time."""
    at = [one.at for one in case.readings or ()] or [one.at for one in case.frames or ()]
    return parse_time(at[0], 0) if at else None


def parse_time(text: str, start_ms: int) -> int | None:
    """Milliseconds since 1970 of `2026-03-01T09:00:00Z` or `+10s` (after `start_ms`)."""
    if match := OFFSET.match(text):
        duration = parse_duration(match[1])
        return start_ms + duration // 1_000_000 if isinstance(duration, int) else None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    whole = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (whole.days * 86_400 + whole.seconds) * 1000 + whole.microseconds // 1000


def _check(plant: Plant, case: Case, node: Node, problems: Problems) -> None:
    inputs = [key for key in ("readings", "frames", "file") if getattr(case, key) is not None]
    if len(inputs) != 1:
        problems.add(node, "one of 'readings', 'frames' and 'file' is expected")
        return
    listed = node.get(inputs[0])
    if listed is not None and listed.is_list and not listed.value:
        problems.add(listed, "the list is empty")
        return
    rules = {rule.ruleId for rule in plant.rules}
    for one, below in zip(case.readings or (), listed or (), strict=False):
        _check_reading(plant, one, below, problems)
    for frame, below in zip(case.frames or (), listed or (), strict=False):
        _check_frame(plant, frame, below, problems)
    _times(node, problems)
    first = listed.value[0].get("at") if listed is not None and listed.is_list else None
    if first is not None and OFFSET.match(str(first.value)):
        problems.add(first, "the first time stands for itself, e.g. 2026-03-01T09:00:00Z")
    expect = node.get("expect")
    for alarm, below in zip(case.expect.alarms or (), _list(expect, "alarms"), strict=False):
        if alarm.ruleId is not None and alarm.ruleId not in rules:
            problems.add(
                below.get("ruleId") or below, f"no rule '{alarm.ruleId}'{nearest(alarm.ruleId, rules)}"
            )
    rejects = case.expect.rejects
    reasons = [reason.name for reason in Reason]
    for reject, below in zip(
        rejects if isinstance(rejects, list) else (), _list(expect, "rejects"), strict=False
    ):
        if reject.reason is not None and reject.reason not in reasons:
            told = f"unknown reason '{reject.reason}'{nearest(reject.reason, reasons)}"
            problems.add(below.get("reason") or below, told)


def _check_reading(plant: Plant, reading: CaseReading, node: Node, problems: Problems) -> None:
    if not reading.device:
        problems.add(node, "'device' is missing")
        return
    row = plant.master.devices.get(reading.device)
    if row is None:
        told = f"no device '{reading.device}' in devices.csv{nearest(reading.device, plant.master.devices)}"
        problems.add(node.get("device") or node, told)
        return
    product = plant.products[row["productId"]]
    metrics = node.get("metrics")
    for name in reading.metrics:
        if name not in product.metrics and metrics is not None:
            told = f"no metric '{name}' in {product.productId}{nearest(name, product.metrics)}"
            problems.add(metrics, told, key=name)


def _check_frame(plant: Plant, frame: CaseFrame, node: Node, problems: Problems) -> None:
    bodies = [key for key in ("json", "text", "hex") if node.get(key) is not None]
    if len(bodies) != 1:
        problems.add(node, "one of 'json', 'text' and 'hex' is expected")
    if frame.hex is not None:
        try:
            bytes.fromhex(frame.hex)
        except ValueError:
            problems.add(node.get("hex") or node, "bytes in hex are expected, e.g. 014E")
    if frame.source is not None and frame.source not in plant.sources:
        told = f"no source '{frame.source}'{nearest(frame.source, plant.sources)}"
        problems.add(node.get("source") or node, told)


def _times(node: Node, problems: Problems) -> None:
    """Every time of a test, wherever it stands."""
    for key, child in node.items():
        if key in ("at", "until", "received") and isinstance(child.value, str):
            if parse_time(child.value, 0) is None:
                problems.add(child, f"'{child.value[:60]}' is no time; write 2026-03-01T09:00:00Z or +10s")
        elif key not in ("json", "metrics"):
            _times(child, problems)
    for child in node:
        _times(child, problems)


def _list(node: Node | None, key: str) -> list[Node]:
    below = node.get(key) if node is not None else None
    return list(below) if below is not None else []
