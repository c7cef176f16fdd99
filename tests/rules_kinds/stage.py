"""Slices for the rules stage, as decode and contract would hand them on: frames, readings, ticks,
connections and reports in the order of the journal, cut where one likes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from operators.batch import (
    HISTORICAL,
    IN_ORDER,
    QUALITY_NAMES,
    REBASED,
    AlarmEvent,
    Control,
    FrameBatch,
    ReadingBatch,
    Report,
    Slice,
    Ticks,
)
from operators.devices import Devices
from rules.spec import Rule, RuleProduct, RulesSpec
from rules.step import RulesLogic

SECOND = 1_000_000_000
START = 1_772_355_600 * SECOND
METRICS = {"a": "number", "b": "number"}


@dataclass
class Frame:
    """One frame with one reading; values: metric -> value and quality. report: it is no reading."""

    device: str
    time: int
    ingest: int
    values: dict[str, tuple[float, str]] = field(default_factory=dict)
    product: str = "p"
    source: str = "line1"
    historical: bool = False
    rebased: bool = False
    in_order: bool = True
    report: Any = None


@dataclass
class Tick:
    now: int


Item = Frame | Tick | Control


def logic(
    rules: Sequence[Rule],
    attributes: dict[str, dict[str, str]],
    products: Sequence[str] = ("p",),
    *,
    slots: Sequence[str] | None = None,
) -> RulesLogic:
    """A rules stage whose devices have slots in the order given (by default of `attributes`)."""
    devices = Devices()
    for name in attributes if slots is None else slots:
        row = attributes.get(name, {})
        devices.add(name, row.get("productId", products[0]), row.get("hub_id", ""))
    return RulesLogic(spec_of(rules, attributes, products), devices)


def spec_of(
    rules: Sequence[Rule], attributes: dict[str, dict[str, str]], products: Sequence[str] = ("p",)
) -> RulesSpec:
    known = {name: RuleProduct(name, METRICS) for name in products}  # type: ignore[arg-type]
    return RulesSpec("plant", known, list(rules), attributes)


def slices(
    items: Sequence[Item], cuts: Sequence[int], devices: Devices, products: Sequence[str] = ("p",)
) -> list[Slice]:
    """Items as slices: controls alone, what stands between them cut at every index in `cuts`."""
    made: list[Slice] = []
    run: list[Item] = []
    position = 0

    def close() -> None:
        nonlocal position, run
        if run:
            made.append(_slice(run, position, devices, products, len(made) + 1))
            position += sum(isinstance(one, Frame) for one in run)
            run = []

    for at, item in enumerate(items):
        if at in cuts or isinstance(item, Control):
            close()
        if isinstance(item, Control):
            made.append(Slice(len(made) + 1, position, _frames([], [], position), control=item))
        else:
            run.append(item)
    close()
    return made


def _frames(frames: list[Frame], ticks: list[tuple[int, int]], position: int) -> FrameBatch:
    none = np.zeros(len(frames), np.int64)
    return FrameBatch(
        np.empty(0, np.uint8),
        none,
        none,
        none.astype(np.int32),
        (),
        np.array([frame.ingest for frame in frames], np.int64),
        np.arange(position, position + len(frames), dtype=np.int64),
        none.astype(np.uint8),
        _ticks(ticks),
    )


def _ticks(ticks: list[tuple[int, int]]) -> Ticks:
    return Ticks(np.array([row for row, _ in ticks], np.int64), np.array([ns for _, ns in ticks], np.int64))


def _slice(items: list[Item], position: int, devices: Devices, products: Sequence[str], entry: int) -> Slice:
    frames = [item for item in items if isinstance(item, Frame)]
    sources = tuple(dict.fromkeys(frame.source for frame in frames))
    row, ticks = 0, list[tuple[int, int]]()
    for item in items:
        if isinstance(item, Tick):
            if ticks and ticks[-1][0] == row:
                ticks.pop()  # of ticks with no frame between them the journal keeps the last
            ticks.append((row, item.now))
        else:
            row += 1
    made = Slice(entry, position + len(frames), _frames(frames, ticks, position), sources=sources)
    for product in products:
        at = [n for n, frame in enumerate(frames) if frame.product == product and frame.report is None]
        placed = [(sum(one < tick for one in at), ns) for tick, ns in ticks]
        made.readings.append(
            _batch(product, [frames[n] for n in at], [position + n for n in at], placed, devices, sources)
        )
    for n, frame in enumerate(frames):
        if frame.report is not None:
            flags = HISTORICAL if frame.historical else 0
            made.reports.append(
                Report(
                    position + n, frame.device, frame.product, "", "alert_report", frame.time, frame.ingest,
                    flags, frame.report,
                )
            )  # fmt: skip
    return made


def _batch(
    product: str,
    frames: list[Frame],
    positions: list[int],
    ticks: list[tuple[int, int]],
    devices: Devices,
    sources: tuple[str, ...],
) -> ReadingBatch:
    count = len(frames)
    value, quality = np.full((len(METRICS), count), np.nan), np.full((len(METRICS), count), 3, np.uint8)
    for row, frame in enumerate(frames):
        for metric, (what, how) in frame.values.items():
            value[list(METRICS).index(metric), row] = np.nan if how == "bad" else what
            quality[list(METRICS).index(metric), row] = QUALITY_NAMES.index(how)
    flags = [
        (IN_ORDER if one.in_order else 0)
        | (HISTORICAL if one.historical else 0)
        | (REBASED if one.rebased else 0)
        for one in frames
    ]
    return ReadingBatch(
        product,
        np.array([devices.slots[one.device] for one in frames], np.int32),
        np.array([one.time for one in frames], np.int64),
        value,
        quality,
        np.array([position << 16 for position in positions], np.uint64),
        np.array([one.ingest for one in frames], np.int64),
        np.array(flags, np.uint8),
        np.array([sources.index(one.source) for one in frames], np.int32),
        {},
        _ticks(ticks),
    )


def run(
    stage: RulesLogic, items: Sequence[Item], cuts: Sequence[int], products: Sequence[str] = ("p",)
) -> list[AlarmEvent]:
    """What comes of the items, cut so."""
    events: list[AlarmEvent] = []
    for one in slices(items, cuts, stage.devices, products):
        stage.process(one)
        events += one.alarms
    return events


def ticked(items: Sequence[Item], *, beyond: int = 0) -> list[Item]:
    """The items with a tick at every whole second of the journal's clock, `beyond` more at the end."""
    made: list[Item] = []
    second = 0
    for item in items:
        at = item.ingest if isinstance(item, Frame) else item.at_ns if isinstance(item, Control) else item.now
        second = second or at // SECOND
        while second < at // SECOND:
            second += 1
            made.append(Tick(second * SECOND))
        made.append(item)
    return [*made, *(Tick((second + one) * SECOND) for one in range(1, beyond + 1))]


def told(events: Sequence[AlarmEvent]) -> list[tuple[str, str, str, str]]:
    """Subject, transition, event and onset time of what was raised and cleared, subject by subject."""
    found = [
        (data["transition"], event.event["subject"], data["event_time"], data["onset_time"])
        for event in events
        if (data := event.event["data"])["transition"] in ("raised", "cleared")
    ]
    return sorted(((subject, kind, at, onset) for kind, subject, at, onset in found), key=lambda one: one[0])
