"""Rows of a JSON frame the plain way: Python's parser and dictionaries. Only for frames that are valid."""

from __future__ import annotations

import json
from typing import Any, NamedTuple


class Reading(NamedTuple):
    """time: milliseconds, None = arrival; cells: metric -> (value, quality word)."""

    device: str | None
    time: int | None
    cells: dict[str, tuple[Any, str]]


def at(value: Any, path: list[Any]) -> tuple[bool, Any]:
    """Whether something stands at a path, and what."""
    for part in path:
        if isinstance(part, str):
            if not isinstance(value, dict) or part not in value:
                return False, None
        elif not isinstance(value, list) or part >= len(value):
            return False, None
        value = value[part]
    return True, value


def elements(value: Any, path: list[Any]) -> list[Any]:
    """What stands at a path in which "*" is every element."""
    found = [value]
    for part in path:
        if part == "*":
            found = [below for one in found if isinstance(one, list) for below in one]
        else:
            found = [below for one in found for there, below in [at(one, [part])] if there]
    return found


def told_quality(element: Any, path: list[Any] | None) -> str:
    there, said = at(element, path) if path is not None else (False, None)
    if not there or said is None:
        return "good"
    if isinstance(said, bool):
        return "good" if said else "bad"
    if isinstance(said, int):
        return ("good", "uncertain", "bad", "bad")[(said % 2**32) >> 30]
    if isinstance(said, str):
        for word in ("good", "bad"):
            if said.strip().lower().startswith(word):
                return word
    return "uncertain"


def cell(value: Any, kind: str, told: str) -> tuple[Any, str]:
    if value is None:
        return None, "bad"
    fits = {
        "number": isinstance(value, int | float) and not isinstance(value, bool),
        "boolean": isinstance(value, bool),
        "string": isinstance(value, str),
    }[kind]
    return (value, told) if fits else (None, "type")


def rows(text: bytes, spec: dict[str, Any], kinds: dict[str, str]) -> list[Reading]:
    """spec: rows, device, metric, value, quality, timestamp as lists of parts, or None; without
    metric, the element's own members are the metrics."""
    frame = json.loads(text)
    readings: list[Reading] = []
    newest: dict[tuple[str | None, int | None], Reading] = {}
    for element in elements(frame, spec["rows"]):
        device = None
        if spec.get("device") is not None:
            _, name = at(element, spec["device"])
            device = str(name) if isinstance(name, int | str) and not isinstance(name, bool) else ""
        time = at(element, spec["timestamp"])[1] if spec.get("timestamp") else None
        told = told_quality(element, spec.get("quality"))
        if spec.get("metric") is None:
            cells = {
                name: cell(value, kinds[name], told)
                for name, value in (element.items() if isinstance(element, dict) else ())
                if name in kinds
            }
            readings.append(Reading(device, time, cells))
            continue
        name = str(at(element, spec["metric"])[1])
        if name not in kinds:
            continue
        there, value = at(element, spec["value"])
        reading = newest.get((device, time))
        if reading is None or name in reading.cells:
            reading = newest[device, time] = Reading(device, time, {})
            readings.append(reading)
        reading.cells[name] = cell(value, kinds[name], told) if there else (None, "absent")
    return readings
