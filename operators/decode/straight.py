"""Layouts whose every field stands at a fixed place, decoded a column at a time.

`straight_of` looks whether a layout is one; `StraightLayout.decode` gives for each frame either
its place among the readings, a status, or SLOW: what is odd about a frame (it is too short) is
left to the interpreter, so that both ways give the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from operators.batch import Bytes, Float64, Int64
from operators.decode.binary_names import template
from operators.decode.binary_tree import (
    BE,
    FLOAT,
    LE,
    SINT,
    UINT,
    Bits,
    BitSkip,
    Check,
    Field,
    Fragment,
    Time,
    When,
)
from operators.decode.binary_tree import BinarySpec as Spec
from operators.decode.exact import EXACT
from operators.decode.layout import Layout, LayoutBuilder
from operators.decode.layout_names import Names
from operators.decode.layout_tables import crc_table, scale_parts
from operators.decode.straight_kernels import COLUMNS, SLOW, classify, fill_columns, fill_times

_TABLE_BYTES: Final = 64


@dataclass(slots=True, eq=False)
class StraightLayout:
    """Tables of a straight layout. tests: rows of all cases; cases: (first test, tests, action,
    least length, first field, fields) of each; action 0 readings, else a status."""

    layout: Layout
    tests: Int64
    cases: Int64
    fields: Int64
    scales: Float64
    ranges: Int64
    mi: Int64
    mf: Float64
    checks: Int64
    crc: npt.NDArray[np.uint32]
    least: int
    times: Int64
    covered: tuple[int, ...]


class NotStraight(Exception):
    """A layout that only the interpreter can run."""


def straight_of(layout: Layout) -> StraightLayout | None:
    """The column form of a layout; None where only the interpreter can run it."""
    try:
        return StraightBuilder(layout).build()
    except NotStraight:
        return None


@dataclass(slots=True, eq=False)
class StraightBuilder:
    layout: Layout
    builder: LayoutBuilder = field(init=False)
    rows: list[list[int]] = field(default_factory=list)
    scales: list[list[float]] = field(default_factory=list)
    times: list[list[int]] = field(default_factory=list)
    checks: list[list[int]] = field(default_factory=list)
    tables: list[Any] = field(default_factory=list)
    cases: list[list[int]] = field(default_factory=list)
    all_rows: list[list[int]] = field(default_factory=list)
    all_scales: list[list[float]] = field(default_factory=list)
    all_times: list[list[int]] = field(default_factory=list)
    covered: set[int] | None = None
    common: tuple[list[list[int]], list[list[float]], list[list[int]]] = ([], [], [])
    start: int = 0
    first: int = 0

    def build(self) -> StraightLayout:
        """A layout whose top fragment and cases are straight."""
        spec: Spec = self.layout.spec
        top = spec.top
        if spec.pad or spec.records or top.tlv or not self._plain(top):
            raise NotStraight
        self.begin()
        for case in top.cases if top.cases else [None]:
            self.begin_case()
            action, least = 0, 0
            if case is not None:
                if case.when is not None:
                    self._when(case.when)
                if case.action == "reject":
                    action = 10
                elif case.action == "ignore":
                    action = -1
                elif case.fragment is not None:
                    inside = case.fragment
                    if inside.tlv or not self._plain(inside) or inside.cases or inside.checks:
                        raise NotStraight
                    least = self._fragment(inside, 0)
            self.end_case(action, least)
        if top.cases and top.cases[-1].when is not None:
            self.begin_case()
            self.rows, self.scales, self.times = [], [], []
            self.end_case(10, 0)
        return self.finish()

    def begin(self) -> None:
        """What every frame has: the checks, fields and time of the top fragment."""
        top = self.layout.spec.top
        if not self._plain(top):
            raise NotStraight
        self.builder = LayoutBuilder(self.layout.spec, Names(self.layout.spec, self.layout.columns, ()))
        for check in top.checks:
            row, table = self._check(check)
            self.checks.append(row)
            self.tables.append(table)
        self.start = self._fragment(top, 0)
        self.common = (list(self.rows), list(self.scales), list(self.times))

    def begin_case(self) -> None:
        """A case: tests, then fields behind the common ones."""
        rows, scales, times = self.common
        self.rows, self.scales, self.times = list(rows), list(scales), list(times)
        self.first = len(self.builder.rows.tests)

    def test(self, what: int, at: int, value: int) -> None:
        """The length of the frame (1) or its byte at a place (2) is this value."""
        self.builder.rows.tests.append([what, at, 0, len(self.builder.rows.values.ranges), 1])
        self.builder.rows.values.ranges.append((value, value))

    def moved(self, fragment: Fragment, base: int) -> None:
        """The fields of a fragment that begins at byte `base`."""
        first = len(self.rows)
        self._fragment(fragment, 0)
        for row in self.rows[first:]:
            if row[2] < 0:
                raise NotStraight
            row[2] += base * 8 if row[1] >= 2 else base

    def end_case(self, action: int, least: int, place: int = -1) -> None:
        """action: 0 = a reading, else a status, at this place. least: bytes that its own fields need."""
        if action == 0 and not self.rows:
            action = SLOW  # a frame without a metric is no reading
        self.cases.append(
            [
                *(self.first, len(self.builder.rows.tests) - self.first, action, max(least, self.start)),
                *(len(self.all_rows), len(self.rows), len(self.all_times), len(self.times), place),
            ]
        )
        if action == 0:
            slots = {row[0] for row in self.rows}
            self.covered = slots if self.covered is None else self.covered & slots
        self.all_rows += self.rows
        self.all_scales += self.scales
        self.all_times += self.times

    def finish(self) -> StraightLayout:
        """The tables."""
        builder = self.builder
        return StraightLayout(
            self.layout,
            _table(builder.rows.tests, 5),
            _table(self.cases, 9),
            _table(self.all_rows, COLUMNS),
            np.ascontiguousarray(np.array(self.all_scales or [[0.0] * 6], np.float64)),
            _table(builder.rows.values.ranges, 2),
            _table(builder.rows.values.mi, 3),
            np.ascontiguousarray(np.array(builder.rows.values.mf or [(0.0,) * 4], np.float64)),
            _table(self.checks, 11) if self.checks else np.empty((0, 11), np.int64),
            np.array(self.tables or [np.zeros((_TABLE_BYTES + 2, 256))]).astype(np.uint32).reshape(-1),
            max((row[5] for row in self.checks), default=0),
            _table(self.all_times, 8),
            tuple(sorted(self.covered or ())),
        )

    @staticmethod
    def _plain(fragment: Fragment) -> bool:
        return not (fragment.sections or fragment.records or fragment.tail or fragment.size or fragment.skip)

    def _when(self, when: When) -> None:
        if when.condition is not None:
            raise NotStraight
        builder = self.builder
        at = len(builder.code)
        builder._when(when, None, False)  # type: ignore[arg-type]  # no expression, so no scope
        del builder.code[at:]

    def _fragment(self, fragment: Fragment, base: int) -> int:
        """Fields of a fragment as rows; the least length of a frame that holds them all."""
        least = 0
        if fragment.time is not None:
            least = self._time(fragment.time)
        end, start, behind = base, base, base
        if fragment.time is not None and fragment.time.field is not None and fragment.time.field.at >= 0:
            behind = max(behind, fragment.time.field.at + fragment.time.field.type.size)
        for one in fragment.fields:
            row = self._common(one)
            size = one.type.size
            if one.source == "at":
                start = one.at
            elif one.source == "next":
                start = end
            elif one.source != "same":
                raise NotStraight
            if start < 0 and one.source != "at":
                raise NotStraight
            row[2] = start
            end = start + size
            if start >= 0:
                behind = max(behind, end)
                least = max(least, end)
            else:
                least = max(least, -start)
                if end > 0:
                    raise NotStraight
                end = -1 if end < 0 else -(1 << 40)
            self._add(one, row, size * 8)
        for bits in fragment.bits:
            behind = self._bits(bits, behind)
            least = max(least, behind)
        return least

    def _bits(self, bits: Bits, behind: int) -> int:
        start = behind if bits.start is None else bits.start
        if start < 0:
            raise NotStraight
        at = start * 8
        far = behind
        for entry in bits.list:
            if isinstance(entry, BitSkip):
                at += entry.width
            elif isinstance(entry, Field) and entry.bit is not None:
                row = self._common(entry)
                row[1], row[2], row[3], row[4] = 2 + int(bits.lsb), at, entry.bit[1], 0
                at += entry.bit[1]
                self._add(entry, row, entry.bit[1])
            else:
                raise NotStraight
            far = max(far, (at + 7) // 8)
        return far

    def _common(self, one: Field) -> list[int]:
        if (
            one.condition is not None
            or one.optional
            or one.at_expr is not None
            or one.size is not None
            or one.round is not None
            or one.type.order not in (BE, LE)
            or one.type.kind not in (UINT, SINT, FLOAT)
            or template(one.name) is not None
            or (one.type.kind == FLOAT and one.type.size == 2)
        ):
            raise NotStraight
        row = [0] * COLUMNS
        row[0] = self.builder_slot(one)
        row[1] = 1 if one.type.kind == FLOAT else 0
        row[3], row[4] = one.type.size, one.type.order
        row[5], row[6] = one.bit if one.bit is not None and one.source != "bits" else (0, 0)
        row[7] = int(one.signed or one.type.kind == SINT)
        return row

    def builder_slot(self, one: Field) -> int:
        name = one.name if one.name.startswith("_") else one.prefix + one.name
        if name.startswith("_"):
            return -1
        if name not in self.layout.columns:
            raise NotStraight
        return self.layout.slot_names.index(name)

    def _add(self, one: Field, row: list[int], width: int) -> None:
        """Meaning of the raw value: tests, map, scale, clamp."""
        if row[6]:
            width = row[6]
        if row[0] < 0:
            return
        by_float = one.type.kind == FLOAT
        if width == 64 and not row[7] and not by_float:
            raise NotStraight
        if by_float and (one.missing or one.valid or one.map):
            raise NotStraight
        builder = self.builder
        row[8], row[9] = builder.rows.values.tested(one.missing, False, 0, False)
        row[10], row[11] = builder.rows.values.tested(one.valid, False, 0, False)
        row[12], row[13], row[14] = 0, -1, -1
        if one.map is not None:
            row[12], row[13], row[14] = builder.rows.values.mapped(one.map, 0, False, False)
        row[15] = int(one.is_bool)
        scale = [1.0, 0.0, 1.0, -math.inf, math.inf, 0.0]
        if one.scale is not None:
            a, a_low, b, b_low, d = scale_parts(one.scale.factor, one.scale.shift)
            bound = math.ldexp(abs(a), width) + abs(b)
            if by_float or a_low or b_low or bound >= EXACT or width > 53:
                raise NotStraight
            row[16] = 1
            scale[:3] = [a, b, d]
        if one.clamp is not None:
            row[17] = 1
            low, high = one.clamp
            scale[3:5] = [-math.inf if low is None else low, math.inf if high is None else high]
        self.rows.append(row)
        self.scales.append(scale)

    def _time(self, time: Time) -> int:
        one = time.field
        if (
            time.kind != "at"
            or one is None
            or one.source not in ("at", "next")
            or one.type.kind not in (UINT, SINT)
        ):
            raise NotStraight
        if one.scale or one.map or one.valid or one.clamp or one.bit or self._common_time(one):
            raise NotStraight
        at = one.at if one.source == "at" else 0
        first, count = self.builder.rows.values.tested(one.missing, False, 0, False)
        if one.missing is not None and one.type.kind == UINT and one.type.size == 8:
            raise NotStraight
        self.times = [
            [
                at,
                one.type.size,
                one.type.order,
                int(one.type.kind == SINT),
                time.unit_ns,
                time.epoch_ns,
                first,
                count,
            ]
        ]
        return at + one.type.size if at >= 0 else -at

    @staticmethod
    def _common_time(one: Field) -> bool:
        return (
            one.condition is not None or one.optional or one.size is not None or one.round is not None
            or one.type.order not in (BE, LE)
        )  # fmt: skip

    def _check(self, check: Check) -> tuple[list[int], Any]:
        """A row and, of a CRC, the table by distance from the end of what it covers."""
        low, high = check.over
        if (low is not None and low < 0) or (high is not None):
            raise NotStraight
        size = check.width // 8
        kind = ("crc", "sum", "xor").index(check.kind)
        table = np.zeros((_TABLE_BYTES + 2, 256), np.int64)
        if kind == 0:
            table[:] = crc_by_distance(check)
        least = check.at + size if check.at >= 0 else -check.at
        row = [kind, check.width, low or 0, check.at, int(check.order == LE), least, check.init, check.xor,
               int(check.flag), _TABLE_BYTES, int(check.reflect)]  # fmt: skip
        return row, table


def crc_by_distance(check: Check) -> Any:
    """What a byte adds to a CRC by how many bytes stand behind it (a CRC is linear: the register
    after a message is the XOR of what each byte, and the start value, does alone).

    Rows 0..n-1: distance; the row behind: what the start value gives after 0..n bytes.
    """
    base = np.array(crc_table(check.width, check.poly, check.reflect), np.int64)
    mask, width = (1 << check.width) - 1, check.width
    out = np.zeros((_TABLE_BYTES + 2, 256), np.int64)

    def step(register: Any) -> Any:
        if check.reflect:
            return (register >> 8) ^ base[register & 0xFF]
        return ((register << 8) & mask) ^ base[(register >> (width - 8)) & 0xFF]

    out[0] = base
    for distance in range(1, _TABLE_BYTES):
        out[distance] = step(out[distance - 1])
    init = check.init
    if check.reflect:
        init = int(f"{init:0{width}b}"[::-1], 2)
    for length in range(_TABLE_BYTES + 1):
        out[_TABLE_BYTES, length] = init
        init = int(step(np.int64(init)))
    return out


def _table(rows: Sequence[Sequence[int]], width: int) -> Int64:
    return np.ascontiguousarray(np.array(rows or [[0] * width], np.int64).reshape(-1, width))


def decode_straight(
    straight: StraightLayout,
    quality_of: Bytes,
    payload: Bytes,
    offset: Int64,
    length: Int64,
    ports: Int64,
    ingest: Int64,
) -> tuple[Int64, Int64, Int64, Bytes, Float64, Bytes]:
    """(outcome, place, ts, time source, value, quality) of R frames.

    outcome: int64[R] 0 = a reading, a status, or SLOW; the last four have a row for each reading.
    quality_of: uint8[M, 6] quality of each metric by the kind of its value.
    """
    count = len(offset)
    outcome = np.empty(count, np.int64)
    place = np.full(count, -1, np.int64)
    case = np.empty(count, np.int64)
    flag = np.zeros(count, np.uint8)
    good = classify(
        payload, offset, length, ports, straight.tests, straight.cases, straight.ranges, straight.checks,
        straight.crc, straight.least, outcome, place, case, flag,
    )  # fmt: skip
    metrics = len(straight.layout.columns)
    value = np.empty((metrics, good), np.float64)
    quality = np.empty((metrics, good), np.uint8)
    rest = [slot for slot in range(metrics) if slot not in straight.covered]
    if rest:
        value[rest] = np.nan
        quality[rest] = 3
    ts, source = np.empty(good, np.int64), np.empty(good, np.uint8)
    if good == count:
        kept, starts, sizes, cases, arrivals = None, offset, length, case, ingest
    else:
        kept = np.flatnonzero(outcome == 0)
        starts, sizes, cases, arrivals = offset[kept], length[kept], case[kept], ingest[kept]
    fill_times(
        payload, starts, sizes, cases, straight.cases, straight.times, straight.ranges, arrivals, ts, source
    )
    numbers = np.flatnonzero(np.bincount(cases, minlength=len(straight.cases)))
    for number in numbers.tolist():
        first, fields = straight.cases[number, 4:6].tolist()
        if not fields or not good:
            continue
        rows = None if len(numbers) == 1 else np.flatnonzero(cases == number)
        fill_columns(
            payload,
            starts if rows is None else starts[rows],
            sizes if rows is None else sizes[rows],
            np.empty(0, np.int64) if rows is None else rows,
            straight.fields[first : first + fields],
            straight.scales[first : first + fields],
            straight.ranges, straight.mi, straight.mf, quality_of, value, quality,
        )  # fmt: skip
    if flag.any():
        doubtful = (flag if kept is None else flag[kept]).astype(bool)
        quality[:, doubtful] = np.where(quality[:, doubtful] == 0, 1, quality[:, doubtful])
    return outcome, place, ts, source, value, quality


__all__ = ["SLOW", "StraightLayout", "decode_straight", "straight_of"]
