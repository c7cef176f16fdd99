"""Frames to readings for people and for `--json`: typed values, and which bits became which value."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import numpy as np

from operators.decode.binary_decoder import Rows, reject_message, run_layout, single_batch
from operators.decode.binary_tree import BinarySpec, Field
from operators.decode.evaluate import BOOL, INT, NULL, TEXT
from operators.decode.layout import Layout, build_layout
from operators.rejects import Reason

_GUESS_NS: Final = 1_800_000_000_000_000_000
_OTHER_NS: Final = 1_812_345_678_901_000_000
_MOST_ROUNDS: Final = 20
TRACED: Final = 4096


class Frame(NamedTuple):
    """A frame by hand. port: -1 = none; ingest_ns: None = not known; params: by name."""

    payload: bytes
    port: int = -1
    ingest_ns: int | None = None
    params: Mapping[str, float] = {}  # never changed


class Pointed(NamedTuple):
    """A value and the bits of the frame that it came from (first == end: none)."""

    name: str
    value: Any
    first_bit: int
    end_bit: int
    reading: int


@dataclass(slots=True)
class Answer:
    """What a frame gives: readings (time in ns, or None = arrival; metrics) or a reject."""

    readings: list[tuple[int | None, dict[str, Any]]] = field(default_factory=list)
    reject: tuple[str, int | None, str] | None = None
    ignored: bool = False
    uncertain: bool = False
    pointed: list[Pointed] = field(default_factory=list)

    def as_object(self) -> dict[str, Any]:
        """As `penstock decode --json` prints it."""
        if self.reject is not None:
            reason, offset, message = self.reject
            return {"reject": {"reason": reason, "offset": offset, "message": message}}
        return {"readings": [{"time": iso_time(ts), "metrics": metrics} for ts, metrics in self.readings]}


def iso_time(ns: int | None) -> str | None:
    """`2026-03-01T09:00:00.000Z`, cut down to milliseconds; None where a year has not four digits."""
    if ns is None:
        return None
    try:
        at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ns // 1_000_000)
    except OverflowError:
        return None
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z"


def explain(spec: BinarySpec, frames: Sequence[Frame], *, point: bool = False) -> list[Answer]:
    """Decode frames by a layout; with `point`, each frame's values with their bits.

    Names that templates make and nobody declared are shown too.
    """
    layout = build_layout(spec)
    batch = single_batch(
        [frame.payload for frame in frames],
        [frame.port for frame in frames],
        [_GUESS_NS if frame.ingest_ns is None else frame.ingest_ns for frame in frames],
    )
    ports = np.array([frame.port for frame in frames], np.int64)
    params = np.array(
        [[frame.params.get(name, math.nan) for frame in frames] for name in layout.param_names], np.float64
    ).reshape(len(layout.param_names), len(frames))
    inputs = batch.payload, batch.offset, batch.length, ports
    found: list[str] = []
    for _ in range(_MOST_ROUNDS):
        rows = run_layout(layout, *inputs, batch.ingest_ns, params)
        new = [name for name in rows.missed if name not in layout.columns]
        if not new:
            break
        found += new
        layout = build_layout(spec, None, found)
    shifted = None
    if any(frame.ingest_ns is None for frame in frames):
        shifted = run_layout(layout, *inputs, batch.ingest_ns + (_OTHER_NS - _GUESS_NS), params).ts
    answers = [_status(frame, rows, n) for n, frame in enumerate(frames)]
    texts = layout.texts | rows.texts
    for row in range(len(rows.frame)):
        number = int(rows.frame[row])
        metrics = {
            name: typed(float(rows.value[row, slot]), int(rows.kind[row, slot]), texts)
            for slot, name in enumerate(layout.columns)
            if rows.kind[row, slot]
        }
        ts: int | None = int(rows.ts[row])
        if frames[number].ingest_ns is None and (
            rows.source[row] or (shifted is not None and shifted[row] != rows.ts[row])
        ):
            ts = None
        answers[number].readings.append((ts, metrics))
        answers[number].uncertain = answers[number].uncertain or bool(rows.flag[row])
    if point:
        for number, answer in enumerate(answers):
            answer.pointed = _pointed(layout, frames[number], params[:, number : number + 1])
    return answers


def _status(frame: Frame, rows: Rows, number: int) -> Answer:
    status, place = int(rows.status[number]), int(rows.place[number])
    if status > 0:
        return Answer(
            reject=(Reason(status).name, None if place < 0 else place, reject_message(status, place))
        )
    return Answer(ignored=status < 0)


def _pointed(layout: Layout, frame: Frame, params: Any) -> list[Pointed]:
    batch = single_batch([frame.payload], [frame.port], [frame.ingest_ns or _GUESS_NS])
    rows = run_layout(
        layout, batch.payload, batch.offset, batch.length, np.array([frame.port], np.int64),
        batch.ingest_ns, params, trace=TRACED,
    )  # fmt: skip
    texts = layout.texts | rows.texts
    found = []
    for one in rows.traced:
        source: Field = layout.field_of[one.field]
        name = layout.slot_names[one.slot] if one.slot >= 0 else source.name
        value = typed(one.value, one.kind, texts)
        found.append(Pointed(name, value, one.first_bit, one.end_bit, one.row))
    return found


def typed(value: float, kind: int, texts: Mapping[int, str]) -> Any:
    """A value as Python has it: int, float, bool, str or None."""
    if kind == NULL or (kind != TEXT and not math.isfinite(value)):
        return None
    if kind == INT:
        return int(value)
    if kind == BOOL:
        return value != 0.0
    if kind == TEXT:
        return texts.get(int(value))
    return value
