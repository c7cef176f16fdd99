"""How what came out of a test differs from what its author expected, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any, Final

from flows.plant_tests import ExpectedAlarm, parse_time

KEYS: Final = ("transition", "ruleId", "device_id", "at", "severity", "message")
ALWAYS: Final = ("transition", "ruleId", "device_id", "at")  # shown of what came, asked for or not
SHOWN: Final = 40  # lines of a diff; of longer ones those that differ, and one around each
_COST: Final = {"transition": 4, "ruleId": 3, "device_id": 2, "at": 1, "severity": 1, "message": 1}
_ALONE: Final = 3  # of an alarm on one side only
_MOST: Final = 250_000  # pairs that are looked at; of more, alarms are paired by their places

Pair = tuple[ExpectedAlarm | None, Mapping[str, Any] | None]


def alarm_differences(
    expected: Sequence[ExpectedAlarm], found: Sequence[Mapping[str, Any]], start: int
) -> list[str]:
    """The lines of a diff; [] where every alarm is as expected. found: `data` of events; start:
    milliseconds since 1970 from which `+5s` counts, 0: times are absolute."""
    pairs = _paired(expected, found, start)
    notes = [_note(one, data, start) for one, data in pairs]
    if not any(notes):
        return []
    asked = [key for key in KEYS if key in ALWAYS or any(getattr(one, key) is not None for one in expected)]
    left = [_cells(one, asked, start) for one, _ in pairs]
    right = [_found(data, asked, start) for _, data in pairs]
    widths = [max(len(row[at]) for row in (*left, *right)) for at in range(len(asked))]
    width = max(len("expected"), sum(widths) + 2 * (len(widths) - 1))
    good = sum(not note for note in notes)
    lines = [f"alarms: {good} of {len(expected)} as expected, {len(found)} came"]
    lines.append(f"  {'expected':<{width}} | {'got':<{width}} |".rstrip(" |"))
    for number in _near(notes):
        if number < 0:
            lines.append("  ...")
            continue
        sides = (_line(side[number], widths, width) for side in (left, right))
        note = f"<- {notes[number]}" if notes[number] else ""
        lines.append(f"{'!' if note else ' '} {' | '.join(sides)} | {note}".rstrip(" |"))
    return lines


def _near(notes: Sequence[str]) -> list[int]:
    """The lines that are shown; -1 for what is left out."""
    if len(notes) <= SHOWN:
        return list(range(len(notes)))
    around = {near for at, note in enumerate(notes) if note for near in (at - 1, at, at + 1)}
    wanted = sorted(around & set(range(len(notes))))
    found: list[int] = []
    for at in wanted[:SHOWN]:
        if at != (found[-1] + 1 if found else 0):
            found.append(-1)
        found.append(at)
    return found if found[-1] == len(notes) - 1 else [*found, -1]


def _line(cells: Sequence[str], widths: Sequence[int], width: int) -> str:
    return f"{'  '.join(f'{cell:<{size}}' for cell, size in zip(cells, widths, strict=True)):<{width}}"


def _paired(expected: Sequence[ExpectedAlarm], found: Sequence[Mapping[str, Any]], start: int) -> list[Pair]:
    """Both sides in their order, paired so that together they differ least: one that is missing
    does not make all behind it differ."""
    same = 0
    while same < min(len(expected), len(found)) and not differing(expected[same], found[same], start):
        same += 1
    alike: list[Pair] = list(zip(expected[:same], found[:same], strict=True))
    expected, found = expected[same:], found[same:]
    rows, columns = len(expected), len(found)
    if rows * columns > _MOST:
        return [*alike, *zip_longest(expected, found)]
    best = [[0] * (columns + 1) for _ in range(rows + 1)]
    for row in range(rows, -1, -1):
        for column in range(columns, -1, -1):
            if row == rows or column == columns:
                best[row][column] = _ALONE * (rows - row + columns - column)
                continue
            apart = sum(_COST[key] for key in differing(expected[row], found[column], start))
            best[row][column] = min(
                apart + best[row + 1][column + 1],
                _ALONE + best[row + 1][column],
                _ALONE + best[row][column + 1],
            )
    pairs = alike
    row = column = 0
    while row < rows or column < columns:
        if row < rows and column < columns:
            apart = sum(_COST[key] for key in differing(expected[row], found[column], start))
            if best[row][column] == apart + best[row + 1][column + 1]:
                pairs.append((expected[row], found[column]))
                row, column = row + 1, column + 1
                continue
        if row < rows and (column == columns or best[row][column] == _ALONE + best[row + 1][column]):
            pairs.append((expected[row], None))
            row += 1
        else:
            pairs.append((None, found[column]))
            column += 1
    return pairs


def differing(expected: ExpectedAlarm, data: Mapping[str, Any], start: int) -> list[str]:
    """The keys that the author asked for and that are something else."""
    keys = [
        key
        for key in KEYS
        if key != "at" and getattr(expected, key) is not None and getattr(expected, key) != data[key]
    ]
    if expected.at is not None and parse_time(expected.at, start) != parse_time(data["event_time"], 0):
        keys.append("at")
    return keys


def _note(expected: ExpectedAlarm | None, data: Mapping[str, Any] | None, start: int) -> str:
    """What differs, in words; "" where nothing does."""
    if expected is None:
        return "too many"
    if data is None:
        return "missing"
    keys = differing(expected, data, start)
    if keys == ["at"]:
        return f"{data['transition']} at {_at(data, start)} instead of {expected.at}"
    told = (
        f"at {_at(data, start)} instead of {expected.at}"
        if key == "at"
        else f"{key} {data[key]!r} instead of {getattr(expected, key)!r}"
        for key in keys
    )
    return ", ".join(told)


def _cells(expected: ExpectedAlarm | None, keys: Sequence[str], start: int) -> list[str]:
    """What was asked for; a key that was not is `*`."""
    if expected is None:
        return ["" for _ in keys]
    return ["*" if getattr(expected, key) is None else str(getattr(expected, key)) for key in keys]


def _found(data: Mapping[str, Any] | None, keys: Sequence[str], start: int) -> list[str]:
    if data is None:
        return ["" for _ in keys]
    return [_at(data, start) if key == "at" else str(data[key]) for key in keys]


def _at(data: Mapping[str, Any], start: int) -> str:
    at = parse_time(data["event_time"], 0) or 0
    return f"+{(at - start) / 1000:g}s" if start else str(data["event_time"])
