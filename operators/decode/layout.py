"""A binary layout (`BinarySpec`) -> the instructions and tables that `binary_kernels` runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from operators.batch import Int64
from operators.decode.binary_kernels import FIELD_COLUMNS, NO_TIME, OP
from operators.decode.binary_names import (
    LIST_NEXT,
    LIST_SAME,
    Template,
    Written,
    bare,
    final,
    fragments,
    renames,
    template,
    writes,
)
from operators.decode.binary_tree import (
    FLOAT,
    LE,
    TEXT_HEX,
    UINT,
    BinarySpec,
    BitEntry,
    BitSkip,
    Check,
    Derive,
    Field,
    Fragment,
    Length,
    Mapping,
    Ranges,
    Record,
    Sections,
    Select,
    Time,
    Tlv,
    Value,
    When,
)
from operators.decode.evaluate import BOOL, INT, NULL, PORT, TEXT, Programs, Source
from operators.decode.evaluate import FLOAT as KIND_FLOAT
from operators.decode.layout_tables import (
    crc_table,
    float_table,
    int_table,
    least_width,
    name_hash,
    plain_number,
    reflected,
    scale_parts,
    trees_of,
    whole_range,
)
from operators.expression.tree import Expr, Name, walk
from operators.rejects import Reason
from operators.text import text_code

_SOURCES: Final = {"next": 2, "same": 3, "expr": 4, "key": 5, "value": 6, "pieces": 7, "bits": 2}


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
    return LayoutBuilder(spec, columns, found).build()


@dataclass(slots=True, eq=False)
class _Scope:
    """What an expression of a fragment sees: (written name, local) of it and those around it."""

    locals: list[tuple[Written, int]]
    outer: _Scope | None = None


@dataclass(slots=True, eq=False)
class LayoutBuilder:
    spec: BinarySpec
    asked: Sequence[str] | None
    found: Sequence[str]
    code: list[list[int]] = field(default_factory=list)
    fields: list[list[int]] = field(default_factory=list)
    reals: list[list[float]] = field(default_factory=list)
    field_of: list[Field] = field(default_factory=list)
    ranges: list[tuple[int, int]] = field(default_factory=list)
    franges: list[tuple[float, float]] = field(default_factory=list)
    mi: list[tuple[int, int, int]] = field(default_factory=list)
    mf: list[tuple[float, float, float, float]] = field(default_factory=list)
    pieces: list[tuple[int, int, int]] = field(default_factory=list)
    names: list[list[int]] = field(default_factory=list)
    name_ids: dict[tuple[str, str, int, bool], int] = field(default_factory=dict)
    templates: list[Template] = field(default_factory=list)
    template_ids: dict[Template, int] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    tests: list[list[int]] = field(default_factory=list)
    items: list[list[int]] = field(default_factory=list)
    tlvs: list[list[int]] = field(default_factory=list)
    times: list[list[int]] = field(default_factory=list)
    timef: list[float] = field(default_factory=list)
    selects: list[list[int]] = field(default_factory=list)
    own: list[int] = field(default_factory=list)
    checks: list[list[int]] = field(default_factory=list)
    crc: list[list[int]] = field(default_factory=list)
    texts: dict[int, str] = field(default_factory=dict)
    slots: dict[str, int] = field(default_factory=dict)
    raw_slots: dict[str, int] = field(default_factory=dict)
    referenced: set[str] = field(default_factory=set)
    locals: int = 0
    occurrences: int = 0
    programs: Programs = field(default_factory=lambda: Programs(()))

    def build(self) -> Layout:
        spec = self.spec
        self.programs = Programs(spec.params)
        tops = [spec.top, *(record.fragment for record in spec.records.values())]
        everything = [one for top in tops for part in fragments(top) for one in writes(part)]
        self._name_slots(everything, tops)
        self._fragment(spec.top, None, top=True)
        self._record_tail(spec.top)
        self._put("frame_end")
        made = self._made()
        arrays = self._arrays(made)
        count = len(self.columns)
        shape = np.array(
            [count, len(self.slot_names), self.locals, len(self.counters), len(spec.records),
             self.occurrences, len(self.templates)],
            np.int64,
        )  # fmt: skip
        texts = dict(self.texts) | self.programs.texts
        return Layout(
            spec, self.columns, len(self.slot_names), arrays, shape, texts, self.field_of,
            self.templates, self.slot_names, spec.params,
        )  # fmt: skip

    # names

    columns: tuple[str, ...] = ()
    slot_names: list[str] = field(default_factory=list)

    def _name_slots(self, everything: list[Written], tops: list[Fragment]) -> None:
        spec = self.spec
        static = [one.final for one in everything if template(one.final) is None]
        metrics = [name for name in static if not name.startswith("_")]
        if self.asked is not None:
            columns = list(self.asked)
        elif spec.metrics is not None:
            columns = list(spec.metrics)
        else:
            columns = metrics
        columns += list(self.found)
        self.columns = tuple(dict.fromkeys(columns))
        for name in (*self.columns, *static):
            self.slots.setdefault(name, len(self.slots))
        for tree in self._expressions(tops):
            for part in walk(tree):
                if isinstance(part, Name) and part.root in ("", "metrics"):
                    self.referenced.add(".".join(part.parts))
        for top in tops:
            for inside in fragments(top):
                for step in inside.tail:
                    if isinstance(step, Select):
                        self.raw_slots.setdefault(step.by, -1)
        for name in sorted(self.referenced | set(self.raw_slots)):
            if any(
                (made := template(one.final)) is not None and made.match(name) is not None
                for one in everything
            ):
                self.slots.setdefault(name, len(self.slots))
        self.slot_names = list(self.slots)
        for name in self.raw_slots:
            self.raw_slots[name] = len(self.slot_names)
            self.slot_names.append(f"raw {name}")

    def _expressions(self, tops: list[Fragment]) -> list[Expr]:
        found: list[Expr] = []
        for top in tops:
            found.extend(trees_of(top))
        for record in self.spec.records.values():
            found.extend(trees_of((record.count, record.size)))
        return found

    def _name(self, written: str, prefix: str, local: int, same: bool = False) -> int:
        """Row of `names` for a name as written; `same`: `[+]` does not count on (select)."""
        key = (written, prefix, local, same)
        if key in self.name_ids:
            return self.name_ids[key]
        whole = final(written, prefix)
        made = template(whole)
        row = [-1, -1, 0, *([0] * 8), local, 0]
        if made is None:
            row[0] = self.slots[whole]
        else:
            if made not in self.template_ids:
                self.template_ids[made] = len(self.templates)
                self.templates.append(made)
            row[1], row[2] = self.template_ids[made], len(made.holes)
            row[12] = int(written.startswith("_"))
            for n, hole in enumerate(made.holes):
                kind = hole.kind
                if kind in (LIST_NEXT, LIST_SAME):
                    counter = self.counters.setdefault(hole.name, len(self.counters))
                    kind = 100 + 2 * counter + int(same or kind == LIST_SAME)
                row[3 + 2 * n : 5 + 2 * n] = [kind, hole.add]
        self.name_ids[key] = len(self.names)
        self.names.append(row)
        return self.name_ids[key]

    def _target(self, one: Written, scope: _Scope) -> int:
        for known, local in scope.locals:
            if (known.name, known.prefix) == (one.name, one.prefix):
                return self._name(one.name, one.prefix, local)
        return self._name(one.name, one.prefix, -1)

    def _scope(self, fragment: Fragment, outer: _Scope | None, tlv: bool) -> tuple[_Scope, int, int]:
        """The scope of a fragment; locals first..last are reset where it is entered."""
        first = self.locals
        scope = _Scope([], outer)
        for one in {(w.name, w.prefix): w for w in writes(fragment)}.values():
            used = one.name in self.referenced or bare(one.name) in self.referenced
            if used and (tlv or one.final != one.name or template(one.name) is not None):
                scope.locals.append((one, self.locals))
                self.locals += 1
        return scope, first, self.locals

    def _lookup(self, scope: _Scope | None) -> Any:
        def sources(name: Name) -> list[Source]:
            wanted = ".".join(name.parts)
            found: list[Source] = []
            around = scope
            while around is not None:
                exact = [n for one, n in around.locals if one.name == wanted]
                loose = [n for one, n in around.locals if one.name != wanted and bare(one.name) == wanted]
                found += [("local", n) for n in exact + loose]
                around = around.outer
            if wanted in self.slots:
                found.append(("outer", self.slots[wanted]))
            return found

        return sources

    def _made(self) -> list[tuple[int, ...]]:
        """(template, numbers, slot) of every known name that a template or a list can make."""
        found: list[tuple[int, ...]] = []
        for made, number in self.template_ids.items():
            for name, slot in self.slots.items():
                numbers = made.match(name)
                if numbers is not None and all(abs(n) < 1 << 62 for n in numbers):
                    found.append((number, *numbers, *([0] * (4 - len(numbers))), slot))
        lists = any(tlv.repeated == "list" for top in self._tops() for f in fragments(top) for tlv in f.tlv)
        if lists:
            for name, slot in self.slots.items():
                if name.endswith("]") and "[" in name:
                    base, _, n = name[:-1].rpartition("[")
                    if base in self.slots and n.isdigit() and len(n) < 9:
                        found.append((len(self.templates) + self.slots[base], int(n), 0, 0, 0, slot))
        return found

    def _tops(self) -> list[Fragment]:
        return [self.spec.top, *(record.fragment for record in self.spec.records.values())]

    # instructions

    def _put(self, op: str, *operands: int) -> int:
        self.code.append([OP[op], *operands, *([0] * (7 - len(operands)))])
        return len(self.code) - 1

    def _set(self, at: int, operand: int, value: int) -> None:
        self.code[at][operand + 1] = value

    def _expr(self, tree: Expr | None, scope: _Scope | None, register: int = 0) -> None:
        if tree is not None:
            self._put("expr", self.programs.add(tree, self._lookup(scope)), register)

    def _length(self, length: Length, scope: _Scope, register: int) -> None:
        """Leave a length or count in a register; -1 is `rest`."""
        if length.kind == "number":
            self._put("set", register, length.number)
        elif length.kind == "rest":
            self._put("set", register, -1)
        elif length.kind == "expr":
            self._expr(length.expr, scope, register)
        elif length.field is not None:
            self._field(length.field, scope, register=register, behind=True)

    def _fragment(self, fragment: Fragment, outer: _Scope | None, *, top: bool = False, tlv: bool = False,
                  scope: _Scope | None = None, record: Record | None = None) -> _Scope:  # fmt: skip
        """The instructions of a fragment, without entering and leaving it."""
        if scope is None:
            scope = self._scope(fragment, outer, tlv)[0]
        for check in fragment.checks:
            self._put("check", self._check(check))
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
                self._put("write", self._target(Written(step.name, step.prefix, step.node), scope))
            else:
                self._put("select", self._select(step, scope))
        if fragment.size is not None and not top:
            self._length(fragment.size, scope, 1)
        return scope

    def _field(self, one: Field, scope: _Scope, *, register: int | None = None, behind: bool = False) -> None:
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
        number = self._field_row(one, behind)
        if register is None:
            self.fields[number][22] = self._target(Written(one.name, one.prefix, one.node), scope)
            self.fields[number][23] = self._raw_slot(one)
        else:
            self.fields[number][27] = register
        self._put("bit" if one.source == "bits" else "field", number)
        if skip is not None:
            self._set(skip, 1, len(self.code))

    def _raw_slot(self, one: Field) -> int:
        for name in (one.name, final(one.name, one.prefix), bare(one.name)):
            if name in self.raw_slots:
                return self.raw_slots[name]
        return -1

    def _field_row(self, one: Field, behind: bool) -> int:
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
        row[12], row[13] = self._ranges(one.missing, by_float, bias, one.type.kind >= TEXT_HEX)
        row[14], row[15] = self._ranges(one.valid, by_float, bias, False)
        row[17] = row[18] = -1
        if one.map is not None:
            row[16], row[17], row[18] = self._map(one.map, bias, one.type.kind >= TEXT_HEX, by_float)
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
            real[7], row[25] = self._constant(one.value)
        self.fields.append(row)
        self.reals.append(real)
        self.field_of.append(one)
        return len(self.fields) - 1

    def _constant(self, value: Value) -> tuple[float, int]:
        if value is None:
            return math.nan, NULL
        if isinstance(value, bool):
            return float(value), BOOL
        if isinstance(value, str):
            code = text_code(value)
            self.texts[code] = value
            return float(code), TEXT
        return float(value), INT if isinstance(value, int) else KIND_FLOAT

    def _ranges(self, test: Ranges | None, by_float: bool, bias: int, texts: bool) -> tuple[int, int]:
        if test is None:
            return 0, 0
        if by_float:
            first = len(self.franges)
            if texts:
                self.franges.extend((float(text_code(text)),) * 2 for text in test.texts)
                self.franges.extend(
                    (float(text_code(plain_number(low))),) * 2
                    for low, high in test.ranges
                    if low == high and low is not None
                )
            else:
                for low, high in test.ranges:
                    self.franges.append(
                        (-math.inf if low is None else float(low), math.inf if high is None else float(high))
                    )
            return first, len(self.franges) - first
        first = len(self.ranges)
        for low, high in test.ranges:
            self.ranges.append(whole_range(low, high, bias))
        return first, len(self.ranges) - first

    def _map(
        self, mapping: Mapping, bias: int, texts: bool, by_float: bool, exact: bool = False
    ) -> tuple[int, int, int]:
        """(first, count, else) of the rows of a map in `mi` and `mf`."""
        first = len(self.mi)
        if texts:
            for text, value in mapping.texts:
                self._map_row(float(text_code(text)), float(text_code(text)), 0, 0, value, exact)
        else:
            for low, high, value in mapping.entries:
                whole = whole_range(low, high, bias)
                ends = -math.inf if low is None else float(low), math.inf if high is None else float(high)
                self._map_row(*ends, *whole, value, exact)
        count = len(self.mi) - first
        otherwise = -1
        if mapping.has_else:
            otherwise = len(self.mi)
            self._map_row(0.0, 0.0, 0, 0, mapping.otherwise, exact)
        return first, count, otherwise

    def _map_row(self, flow: float, fhigh: float, low: int, high: int, value: Value, exact: bool) -> None:
        per = 1.0
        if exact and value is not None:
            ratio = Fraction(str(value))
            number, kind, per = float(ratio.numerator), KIND_FLOAT, float(ratio.denominator)
        else:
            number, kind = self._constant(value)
        self.mi.append((low, high, kind))
        self.mf.append((flow, fhigh, number, per))

    # constructs

    def _bit(self, entry: BitEntry, scope: _Scope) -> None:
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

    def _when(self, when: When, scope: _Scope, here: bool) -> list[tuple[int, int]]:
        """Conditions; (instruction, operand) of the jumps to what comes next if they do not hold."""
        first = len(self.tests)
        if when.port is not None:
            self._test(0, 0, 0, when.port)
        if when.length is not None:
            if when.length.multiple:
                self.tests.append([4, when.length.multiple, when.length.plus, 0, 0])
            else:
                self._test(1, 0, 0, when.length)
        for at, ranges in when.byte:
            self._test(2, at, 0, ranges)
        for at, mask, values in when.mask:
            self._test(3, at, mask, Ranges([(Fraction(v), Fraction(v)) for v in values]))
        jumps = [(self._put("when", first, len(self.tests) - first, 0, int(here)), 2)]
        if when.condition is not None:
            self._expr(when.condition, scope)
            jumps.append((self._put("unless", 0), 1))
        return jumps

    def _test(self, what: int, at: int, mask: int, ranges: Ranges) -> None:
        first = len(self.ranges)
        for low, high in ranges.ranges:
            self.ranges.append(whole_range(low, high, 0))
        self.tests.append([what, at, mask, first, len(self.ranges) - first])

    def _cases(self, fragment: Fragment, scope: _Scope, tlv: bool) -> None:
        ends = []
        otherwise = False
        for case in fragment.cases:
            jumps = [] if case.when is None else self._when(case.when, scope, False)
            if case.action == "reject":
                self._put("reject", int(Reason.unmatched), -1)
            elif case.action == "ignore":
                self._put("ignore")
            elif case.fragment is not None:
                inner, first, last = self._scope(case.fragment, scope, tlv)
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

    def _sections(self, sections: Sections, scope: _Scope, tlv: bool) -> None:
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
            inner, first, last = self._scope(entry.fragment, scope, tlv)
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

    def _tlv(self, tlv: Tlv, scope: _Scope) -> None:
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
            inner, first, last = self._scope(item.fragment, scope, True)
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

    def _record(self, record: Record, scope: _Scope) -> None:
        time = record.fragment.time
        number = -1
        if time is not None and time.kind == "relative":
            number = self._time_row(time)
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
        inner, first, last = self._scope(record.fragment, None, False)
        again = self._put("record_next", 0, 0, first, last)
        self._fragment(record.fragment, None, scope=inner, record=record)
        self._put("record_leave", 0, again)
        self._set(again, 1, len(self.code))
        self._put("record_end")

    def _time_row(self, time: Time) -> int:
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

    def _time(self, time: Time, scope: _Scope, record: Record | None) -> None:
        if time.kind == "relative":
            mine = record is not None
            if not mine:
                if time.field is not None:
                    self._field(time.field, scope, register=3)
                if time.step_field is not None:
                    self._field(time.step_field, scope, register=4)
            self._put("time", self._time_row(time), int(not mine))
        elif time.field is not None:
            self._field(time.field, scope, register=0)
            self._put("time", self._time_row(time), 0)

    def _check(self, check: Check) -> int:
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

    def _select(self, step: Select, scope: _Scope) -> int:
        row = [self._name(step.name, step.prefix, -1, True), self.raw_slots[step.by]]
        for local, n in scope.locals:
            if local.name == step.name:
                row[0] = self._name(step.name, step.prefix, n, True)
        for mapping in (step.scale, step.offset):
            row += [0, -1, -1] if mapping is None else self._map(mapping, 0, False, False, True)
        if step.rename is None:
            row += [0, -1, -1]
        else:
            known = {name: self._name(name, step.prefix, -1, True) for name in renames(step)}
            first, count, otherwise = self._map(step.rename, 0, False, False)
            last = otherwise + 1 if otherwise >= 0 else first + count
            for i in range(first, last):
                text = self.texts.get(int(self.mf[i][2])) if self.mi[i][2] == TEXT else None
                if text is None and self.mi[i][2] != NULL:
                    text = plain_number(Fraction(self.mf[i][2]))
                if text is not None:
                    self.mf[i] = (*self.mf[i][:3], float(known[text]))
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
            mine = sorted({self.slots[name] for name in names if name in self.slots})
            first = len(self.own)
            self.own.extend(mine)
            test = self._put("own", first, len(mine))
            self._expr(step.expr, None)
            self._put("write", self._name(step.name, step.prefix, -1))
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
            "fields": int_table(self.fields, FIELD_COLUMNS),
            "reals": float_table(self.reals, 8),
            "ranges": int_table(self.ranges, 2),
            "franges": float_table(self.franges, 2),
            "mi": int_table(self.mi, 3),
            "mf": float_table(self.mf, 4),
            "pieces": int_table(self.pieces, 3),
            "names": int_table(self.names, 13),
            "made": table,
            "tests": int_table(self.tests, 5),
            "items": int_table(self.items, 22),
            "tlvs": int_table(self.tlvs, 20),
            "times": int_table(self.times, 8),
            "timef": np.array(self.timef or [0.0], np.float64),
            "selects": int_table(self.selects, 11),
            "own": np.array(self.own or [0], np.int64),
            "checks": int_table(self.checks, 10),
            "crc_tables": int_table(self.crc, 256),
            "program": program,
            "constants": constants,
        }
