"""A binary layout (`BinarySpec`) -> the instructions and tables that `binary_kernels` runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from operators.batch import Int64
from operators.decode.binary_kernels import FIELD_COLUMNS, OP
from operators.decode.binary_names import (
    Template,
    Written,
    renames,
)
from operators.decode.binary_tree import (
    BinarySpec,
    BitEntry,
    BitSkip,
    Derive,
    Field,
    Fragment,
    Length,
    Ranges,
    Record,
    Sections,
    Select,
    Time,
    Tlv,
    When,
)
from operators.decode.evaluate import NULL, PORT, TEXT, Programs
from operators.decode.layout_names import Names, Scope
from operators.decode.layout_rows import Rows
from operators.decode.layout_tables import (
    float_table,
    int_table,
    least_width,
    name_hash,
    plain_number,
)
from operators.expression.tree import Expr, Name, walk
from operators.rejects import Reason


@dataclass(slots=True, eq=False)
class Layout:
    """Tables of one layout. columns: names of the metrics, slots 0.. of the readings;
    field_of: row of `fields` -> the field (for people); templates: id -> template, prefix filled in."""

    spec: BinarySpec
    columns: tuple[str, ...]
    slots: int
    arrays: dict[str, npt.NDArray[Any]]
    shape: Int64
    texts: dict[int, str]
    field_of: list[Field]
    templates: list[Template]
    slot_names: list[str]
    param_names: tuple[str, ...]

    @property
    def uses_port(self) -> bool:
        """Does anything in it look at the frame's port?"""
        return bool((self.arrays["tests"][:, 0] == 0).any() or (self.arrays["program"][:, 0] == PORT).any())

    def missed_name(self, kind: int, numbers: Sequence[int]) -> str:
        """The name that a template made and that has no slot."""
        if kind >= len(self.templates):
            return f"{self.slot_names[kind - len(self.templates)]}[{numbers[0]}]"
        made = self.templates[kind]
        return made.fill(tuple(int(n) for n in numbers[: len(made.holes)]))


def build_layout(spec: BinarySpec, columns: Sequence[str] | None = None, found: Sequence[str] = ()) -> Layout:
    """The tables of a layout. columns: the metrics, in the order of the readings' columns (default:
    the declared ones; of a bare spec, all names); found: further names that templates made."""
    return LayoutBuilder(spec, Names(spec, columns, found)).build()


@dataclass(slots=True, eq=False)
class LayoutBuilder:
    """Instructions and tables so far."""

    spec: BinarySpec
    names: Names
    rows: Rows = field(default_factory=Rows)
    code: list[list[int]] = field(default_factory=list)
    items: list[list[int]] = field(default_factory=list)
    tlvs: list[list[int]] = field(default_factory=list)
    selects: list[list[int]] = field(default_factory=list)
    own: list[int] = field(default_factory=list)
    occurrences: int = 0
    programs: Programs = field(default_factory=lambda: Programs(()))

    def build(self) -> Layout:
        spec = self.spec
        self.programs = Programs(spec.params)
        self._fragment(spec.top, None, top=True)
        self._record_tail(spec.top)
        self._put("frame_end")
        made = self.names.made()
        arrays = self._arrays(made)
        names = self.names
        shape = np.array(
            [len(names.columns), len(names.slot_names), names.locals, len(names.counters), len(spec.records),
             self.occurrences, len(names.templates)],
            np.int64,
        )  # fmt: skip
        return Layout(
            spec, names.columns, len(names.slot_names), arrays, shape,
            dict(self.rows.values.texts) | self.programs.texts, self.rows.field_of, names.templates,
            names.slot_names, spec.params,
        )  # fmt: skip

    # instructions

    def _put(self, op: str, *operands: int) -> int:
        self.code.append([OP[op], *operands, *([0] * (7 - len(operands)))])
        return len(self.code) - 1

    def _set(self, at: int, operand: int, value: int) -> None:
        self.code[at][operand + 1] = value

    def _expr(self, tree: Expr | None, scope: Scope | None, register: int = 0) -> None:
        if tree is not None:
            self._put("expr", self.programs.add(tree, self.names.lookup(scope)), register)

    def _length(self, length: Length, scope: Scope, register: int) -> None:
        """Leave a length or count in a register; -1 is `rest`."""
        if length.kind == "number":
            self._put("set", register, length.number)
        elif length.kind == "rest":
            self._put("set", register, -1)
        elif length.kind == "expr":
            self._expr(length.expr, scope, register)
        elif length.field is not None:
            self._field(length.field, scope, register=register, behind=True)

    def _fragment(self, fragment: Fragment, outer: Scope | None, *, top: bool = False, tlv: bool = False,
                  scope: Scope | None = None, record: Record | None = None) -> Scope:  # fmt: skip
        """The instructions of a fragment, without entering and leaving it."""
        if scope is None:
            scope = self.names.scope(fragment, outer, tlv)[0]
        for check in fragment.checks:
            self._put("check", self.rows.add_check(check))
        if fragment.time is not None:
            self._time(fragment.time, scope, record)
        self._put("cursor")
        for one in fragment.fields:
            self._field(one, scope)
        for bits in fragment.bits:
            self._put("bits", int(bits.start is not None), bits.start or 0, int(bits.lsb))
            for entry in bits.list:
                self._bit(entry, scope)
            self._put("bits_end")
        for sections in fragment.sections:
            self._sections(sections, scope, tlv)
        for one_tlv in fragment.tlv:
            self._tlv(one_tlv, scope)
        if fragment.cases:
            self._cases(fragment, scope, tlv)
        for name in fragment.records:
            self._record(self.spec.records[name], scope)
        if fragment.skip:
            self._put("skip", fragment.skip)
        for step in fragment.tail:
            if isinstance(step, Derive):
                self._expr(step.expr, scope)
                self._put("write", self.names.target(Written(step.name, step.prefix, step.node), scope))
            else:
                self._put("select", self._select(step, scope))
        if fragment.size is not None and not top:
            self._length(fragment.size, scope, 1)
        return scope

    def _field(self, one: Field, scope: Scope, *, register: int | None = None, behind: bool = False) -> None:
        skip = None
        if one.condition is not None:
            if register is not None:
                self._put("set", register, 0, 1)
            self._expr(one.condition, scope)
            skip = self._put("unless", 0)
        if one.size is not None and one.size.kind == "expr":
            self._expr(one.size.expr, scope, 1)
        if one.source == "expr":
            self._expr(one.at_expr, scope, 0)
        number = self.rows.add_field(one, behind)
        if register is None:
            self.rows.fields[number][22] = self.names.target(Written(one.name, one.prefix, one.node), scope)
            self.rows.fields[number][23] = self.names.raw_slot(one)
        else:
            self.rows.fields[number][27] = register
        self._put("bit" if one.source == "bits" else "field", number)
        if skip is not None:
            self._set(skip, 1, len(self.code))

    # constructs

    def _bit(self, entry: BitEntry, scope: Scope) -> None:
        if isinstance(entry, BitSkip):
            self._put("bit_skip", entry.width)
        elif isinstance(entry, Field):
            self._field(entry, scope)
        else:
            self._length(entry.count, scope, 2)
            least = least_width(entry.list)
            self._put("bit_repeat", least)
            again = self._put("bit_next", least)
            for one_entry in entry.list:
                self._bit(one_entry, scope)
            self._put("jump", again)
            self._set(again, 1, len(self.code))

    def _when(self, when: When, scope: Scope, here: bool) -> list[tuple[int, int]]:
        """Conditions; (instruction, operand) of the jumps to what comes next if they do not hold."""
        first = len(self.rows.tests)
        if when.port is not None:
            self.rows.add_test(0, 0, 0, when.port)
        if when.length is not None:
            if when.length.multiple:
                self.rows.tests.append([4, when.length.multiple, when.length.plus, 0, 0])
            else:
                self.rows.add_test(1, 0, 0, when.length)
        for at, ranges in when.byte:
            self.rows.add_test(2, at, 0, ranges)
        for at, mask, values in when.mask:
            self.rows.add_test(3, at, mask, Ranges([(Fraction(v), Fraction(v)) for v in values]))
        jumps = [(self._put("when", first, len(self.rows.tests) - first, 0, int(here)), 2)]
        if when.condition is not None:
            self._expr(when.condition, scope)
            jumps.append((self._put("unless", 0), 1))
        return jumps

    def _cases(self, fragment: Fragment, scope: Scope, tlv: bool) -> None:
        ends = []
        otherwise = False
        for case in fragment.cases:
            jumps = [] if case.when is None else self._when(case.when, scope, False)
            if case.action == "reject":
                self._put("reject", int(Reason.unmatched), -1)
            elif case.action == "ignore":
                self._put("ignore")
            elif case.fragment is not None:
                inner, first, last = self.names.scope(case.fragment, scope, tlv)
                self._put("enter", first, last)
                self._fragment(case.fragment, scope, tlv=tlv, scope=inner)
                self._put("leave", int(case.fragment.size is not None))
                ends.append(self._put("jump"))
            for at, operand in jumps:
                self._set(at, operand, len(self.code))
            otherwise = otherwise or case.when is None
        if not otherwise:
            self._put("reject", int(Reason.unmatched), -1)
        for end in ends:
            self._set(end, 0, len(self.code))

    def _sections(self, sections: Sections, scope: Scope, tlv: bool) -> None:
        if sections.mask is not None:
            self._field(sections.mask, scope, register=0)
        start, stop = sections.start, sections.stop
        self._put(
            "sections", int(start is not None), start or 0, int(stop is not None), stop or 0,
            int(sections.mask is not None),
        )  # fmt: skip
        for entry in sections.list:
            jumps: list[tuple[int, int]] = []
            if entry.bit is not None:
                jumps.append((self._put("section_bit", entry.bit), 1))
            if entry.when is not None:
                jumps += self._when(entry.when, scope, True)
            inner, first, last = self.names.scope(entry.fragment, scope, tlv)
            size = entry.fragment.size
            if entry.count is not None:
                if entry.bit is None:
                    self._put("behind")
                self._length(entry.count, scope, 2)
            least = size.number if size is not None and size.kind == "number" else 0
            enter = self._put("section_enter", int(entry.count is not None), 0, first, last, least)
            jumps.append((enter, 1))
            if entry.count is not None:
                over = self._put("jump")
                again = self._put("section_enter", 2, 0, first, last, least)
                jumps.append((again, 1))
                self._set(over, 0, len(self.code))
            self._fragment(entry.fragment, scope, tlv=tlv, scope=inner)
            leave = self._put("section_leave", int(size is not None))
            self._set(leave, 1, again if entry.count is not None else len(self.code))
            for at, operand in jumps:
                self._set(at, operand, len(self.code))
        self._put("sections_end")

    def _tlv(self, tlv: Tlv, scope: Scope) -> None:
        number = len(self.tlvs)
        row = [0] * 20
        row[0], row[1] = int(tlv.start is not None), tlv.start or 0
        row[2], row[3] = int(tlv.stop is not None), tlv.stop or 0
        row[4] = len(tlv.key)
        if tlv.length is not None:
            row[5], row[6] = tlv.length.size, tlv.length.order
        row[7] = ("stop", "reject", "skip", "resync").index(tlv.unknown)
        row[8] = ("last", "first", "reject", "list").index(tlv.repeated)
        row[9] = int(tlv.short == "stop")
        for n, part in enumerate(tlv.key):
            row[12 + 2 * n : 14 + 2 * n] = [part.size, part.order]
        self.tlvs.append(row)
        begin = self._put("tlv", number)
        again = self._put("tlv_next", number)
        rows: list[tuple[int, int, list[int]]] = []
        for place, item in enumerate(tlv.items):
            inner, first, last = self.names.scope(item.fragment, scope, True)
            at = len(self.code)
            self._fragment(item.fragment, scope, tlv=True, scope=inner)
            self._put("tlv_item_end", int(item.fragment.size is not None), again)
            size = item.fragment.size
            const = size.number if size is not None and size.kind == "number" else -1
            for pattern in item.patterns:
                parts: list[int] = []
                for mask, value, low, high in pattern.parts:
                    parts += [mask, value, low, high]
                parts += [0, 0, 0, 0] * (4 - len(pattern.parts))
                line = [at, self.occurrences, *parts, const, first, last]
                rows.append((pattern.wildcards, place, line))
            self.occurrences += 1
        row[10], row[11] = len(self.items), len(rows)
        met: set[tuple[int, ...]] = set()
        for wildcards, _, line in sorted(rows, key=lambda r: r[:2]):
            exact = wildcards == 0 and tuple(line[2:18]) not in met
            met.add(tuple(line[2:18]))
            self.items.append([*line, int(exact)])
        end = self._put("tlv_end")
        self._set(begin, 1, end)
        self._set(again, 1, end)

    def _record(self, record: Record, scope: Scope) -> None:
        time = record.fragment.time
        number = -1
        if time is not None and time.kind == "relative":
            number = self.rows.add_time(time)
            if time.field is not None:
                self._field(time.field, scope, register=3)
            if time.step_field is not None:
                self._field(time.step_field, scope, register=4)
        self._length(record.count, scope, 2)
        if record.size is not None:
            if record.size.kind == "field":
                self._put("move", 2, 5)
                self._length(record.size, scope, 1)
                self._put("move", 5, 2)
            else:
                self._length(record.size, scope, 1)
        self._put(
            "record", int(record.at is not None), record.at or 0, int(record.stop is not None),
            record.stop or 0, int(record.size is not None), number,
        )  # fmt: skip
        inner, first, last = self.names.scope(record.fragment, None, False)
        again = self._put("record_next", 0, 0, first, last)
        self._fragment(record.fragment, None, scope=inner, record=record)
        self._put("record_leave", 0, again)
        self._set(again, 1, len(self.code))
        self._put("record_end")

    def _time(self, time: Time, scope: Scope, record: Record | None) -> None:
        if time.kind == "relative":
            mine = record is not None
            if not mine:
                if time.field is not None:
                    self._field(time.field, scope, register=3)
                if time.step_field is not None:
                    self._field(time.step_field, scope, register=4)
            self._put("time", self.rows.add_time(time), int(not mine))
        elif time.field is not None:
            self._field(time.field, scope, register=0)
            self._put("time", self.rows.add_time(time), 0)

    def _select(self, step: Select, scope: Scope) -> int:
        row = [self.names.name(step.name, step.prefix, -1, True), self.names.raw_slots[step.by]]
        for local, n in scope.locals:
            if local.name == step.name:
                row[0] = self.names.name(step.name, step.prefix, n, True)
        for mapping in (step.scale, step.offset):
            row += [0, -1, -1] if mapping is None else self.rows.values.mapped(mapping, 0, False, False, True)
        if step.rename is None:
            row += [0, -1, -1]
        else:
            known = {name: self.names.name(name, step.prefix, -1, True) for name in renames(step)}
            first, count, otherwise = self.rows.values.mapped(step.rename, 0, False, False)
            last = otherwise + 1 if otherwise >= 0 else first + count
            values = self.rows.values
            for i in range(first, last):
                text = values.texts.get(int(values.mf[i][2])) if values.mi[i][2] == TEXT else None
                if text is None and values.mi[i][2] != NULL:
                    text = plain_number(Fraction(values.mf[i][2]))
                if text is not None:
                    values.mf[i] = (*values.mf[i][:3], float(known[text]))
            row += [first, count, otherwise]
        self.selects.append(row)
        return len(self.selects) - 1

    def _record_tail(self, top: Fragment) -> None:
        """Top-level derive over every record's reading that has a name of the expression itself."""
        steps = [step for step in top.tail if isinstance(step, Derive)]
        if not self.spec.records or not steps:
            return
        again = self._put("tail_row")
        for step in steps:
            names = [".".join(p.parts) for p in walk(step.expr) if isinstance(p, Name)]
            mine = sorted({self.names.slots[name] for name in names if name in self.names.slots})
            first = len(self.own)
            self.own.extend(mine)
            test = self._put("own", first, len(mine))
            self._expr(step.expr, None)
            self._put("write", self.names.name(step.name, step.prefix, -1))
            self._set(test, 2, len(self.code))
        self._put("jump", again)
        self._set(again, 1, len(self.code))

    def _arrays(self, made: list[tuple[int, ...]]) -> dict[str, npt.NDArray[Any]]:
        program, constants = self.programs.tables()
        size = 16
        while size < 2 * len(made) + 2:
            size *= 2
        table = np.full((size, 6), -1, np.int64)
        for row in made:
            at = name_hash(row[0], *row[1:5]) & (size - 1)
            while table[at, 0] >= 0:
                at = (at + 1) & (size - 1)
            table[at] = row
        return {
            "code": int_table(self.code, 8),
            "fields": int_table(self.rows.fields, FIELD_COLUMNS),
            "reals": float_table(self.rows.reals, 8),
            "ranges": int_table(self.rows.values.ranges, 2),
            "franges": float_table(self.rows.values.franges, 2),
            "mi": int_table(self.rows.values.mi, 3),
            "mf": float_table(self.rows.values.mf, 4),
            "pieces": int_table(self.rows.pieces, 3),
            "names": int_table(self.names.rows, 13),
            "made": table,
            "tests": int_table(self.rows.tests, 5),
            "items": int_table(self.items, 22),
            "tlvs": int_table(self.tlvs, 20),
            "times": int_table(self.rows.times, 8),
            "timef": np.array(self.rows.timef or [0.0], np.float64),
            "selects": int_table(self.selects, 11),
            "own": np.array(self.own or [0], np.int64),
            "checks": int_table(self.rows.checks, 10),
            "crc_tables": int_table(self.rows.crc, 256),
            "program": program,
            "constants": constants,
        }
