"""Rows of the tables that the instructions of a binary layout point to: fields, tests, times, checks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from operators.decode.binary_kernels import FIELD_COLUMNS, NO_TIME
from operators.decode.binary_tree import FLOAT, LE, TEXT_HEX, UINT, Check, Field, Ranges, Time
from operators.decode.layout_tables import crc_table, reflected, scale_parts, whole_range
from operators.decode.layout_values import Values

_SOURCES: Final = {"next": 2, "same": 3, "expr": 4, "key": 5, "value": 6, "pieces": 7, "bits": 2}


@dataclass(slots=True, eq=False)
class Rows:
    """Each method adds a row (and what it points to) and returns its number. field_of: row of `fields` ->
    the field (for people)."""

    values: Values = field(default_factory=Values)
    fields: list[list[int]] = field(default_factory=list)
    reals: list[list[float]] = field(default_factory=list)
    field_of: list[Field] = field(default_factory=list)
    pieces: list[tuple[int, int, int]] = field(default_factory=list)
    tests: list[list[int]] = field(default_factory=list)
    times: list[list[int]] = field(default_factory=list)
    timef: list[float] = field(default_factory=list)
    checks: list[list[int]] = field(default_factory=list)
    crc: list[list[int]] = field(default_factory=list)

    def add_field(self, one: Field, behind: bool) -> int:
        """behind: it stands where the cursor is, for a length or count before what it counts."""
        row = [0] * FIELD_COLUMNS
        real = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]
        row[0] = _SOURCES.get(one.source, 0)
        if one.source == "at":
            row[0] = 0 if one.at >= 0 else 1
        elif one.source == "next" and behind:
            row[0] = 8
        row[1] = one.key if one.source == "key" else one.at
        row[2] = one.type.size
        if one.size is not None:
            row[2] = {"number": one.size.number, "rest": -2, "expr": -1}[one.size.kind]
        row[3], row[4] = one.type.kind, one.type.order
        width = one.type.size * 8
        if one.bit is not None:
            row[5], row[6] = one.bit
            width = one.bit[1]
        if one.source == "pieces":
            row[9], row[10] = len(self.pieces), len(one.pieces)
            self.pieces.extend(one.pieces)
            width = row[6] = sum(bits for _, _, bits in one.pieces)
            row[3] = UINT
        row[7], row[8], row[11] = int(one.signed), int(one.is_bool), int(one.optional)
        by_float = one.type.kind in (FLOAT, 5, 6) or one.type.kind >= TEXT_HEX
        biased = row[3] == UINT and width == 64 and not one.signed and one.source != "key"
        row[24], row[26] = int(biased), int(by_float)
        bias = 1 << 63 if biased else 0
        row[12], row[13] = self.values.tested(one.missing, by_float, bias, one.type.kind >= TEXT_HEX)
        row[14], row[15] = self.values.tested(one.valid, by_float, bias, False)
        row[17] = row[18] = -1
        if one.map is not None:
            row[16], row[17], row[18] = self.values.mapped(one.map, bias, one.type.kind >= TEXT_HEX, by_float)
        if one.scale is not None:
            row[19] = 1
            real[:5] = scale_parts(one.scale.factor, one.scale.shift)
        if one.clamp is not None:
            for n, end in enumerate(one.clamp):
                if end is not None:
                    row[20] |= 1 << n
                    real[5 + n] = end
        row[21] = 99 if one.round is None else one.round
        row[22] = row[23] = -1
        if one.source == "value":
            real[7], row[25] = self.values.constant(one.value)
        self.fields.append(row)
        self.reals.append(real)
        self.field_of.append(one)
        return len(self.fields) - 1

    def add_test(self, what: int, at: int, mask: int, ranges: Ranges) -> int:
        first = len(self.values.ranges)
        for low, high in ranges.ranges:
            self.values.ranges.append(whole_range(low, high, 0))
        self.tests.append([what, at, mask, first, len(self.values.ranges) - first])
        return len(self.tests) - 1

    def add_time(self, time: Time) -> int:
        what = {"at": 0, "wrap": 1, "ago": 2, "relative": 3}[time.kind]
        step = 0.0 if time.step is None else float(time.step * 10**9)
        row = [what, time.unit_ns, time.epoch_ns, time.wrap_bits, time.first, 0, 0, 0]
        if what == 3:
            if time.field is not None:
                row[5], row[6] = 1, len(self.times)
                self.times.append([0, time.unit_ns, time.epoch_ns, 0, 0, 0, 0, 0])
                self.timef.append(0.0)
            row[7] = int(time.step_field is not None)
        self.times.append(row)
        self.timef.append(step)
        return len(self.times) - 1

    def add_check(self, check: Check) -> int:
        kind = ("crc", "sum", "xor").index(check.kind)
        low, high = (NO_TIME if end is None else end for end in check.over)
        init = check.init
        if check.kind == "crc" and check.reflect:
            init = reflected(init, check.width)
        self.checks.append(
            [kind, check.width, int(check.reflect), init, check.xor, check.at, low, high,
             int(check.order == LE), int(check.flag)]
        )  # fmt: skip
        self.crc.append(crc_table(check.width, check.poly, check.reflect) if kind == 0 else [0] * 256)
        return len(self.checks) - 1
