"""Names of a binary layout: the slots of its readings, what templates make, what expressions see."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from operators.decode.binary_names import (
    LIST_NEXT,
    LIST_SAME,
    Template,
    Written,
    bare,
    final,
    fragments,
    template,
    writes,
)
from operators.decode.binary_tree import BinarySpec, Field, Fragment, Select
from operators.decode.evaluate import Source
from operators.decode.layout_tables import trees_of
from operators.expression.tree import Expr, Name, walk


@dataclass(slots=True, eq=False)
class Scope:
    """What an expression of a fragment sees: (written name, local) of it and those around it."""

    locals: list[tuple[Written, int]]
    outer: Scope | None = None


@dataclass(slots=True, eq=False)
class Names:
    """asked: the metrics, in the order of the readings' columns (see `build_layout`); found: further names
    that templates made. rows: of the table `names`; locals: how many there are so far."""

    spec: BinarySpec
    asked: Sequence[str] | None
    found: Sequence[str]
    columns: tuple[str, ...] = ()
    slot_names: list[str] = field(default_factory=list)
    rows: list[list[int]] = field(default_factory=list)
    name_ids: dict[tuple[str, str, int, bool], int] = field(default_factory=dict)
    templates: list[Template] = field(default_factory=list)
    template_ids: dict[Template, int] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    slots: dict[str, int] = field(default_factory=dict)
    raw_slots: dict[str, int] = field(default_factory=dict)
    referenced: set[str] = field(default_factory=set)
    locals: int = 0

    def __post_init__(self) -> None:
        spec, tops = self.spec, self._tops()
        everything = [one for top in tops for part in fragments(top) for one in writes(part)]
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

    def name(self, written: str, prefix: str, local: int, same: bool = False) -> int:
        """Row of `rows` for a name as written; `same`: `[+]` does not count on (select)."""
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
        self.name_ids[key] = len(self.rows)
        self.rows.append(row)
        return self.name_ids[key]

    def target(self, one: Written, scope: Scope) -> int:
        """Row of `rows` for what a fragment writes."""
        for known, local in scope.locals:
            if (known.name, known.prefix) == (one.name, one.prefix):
                return self.name(one.name, one.prefix, local)
        return self.name(one.name, one.prefix, -1)

    def scope(self, fragment: Fragment, outer: Scope | None, tlv: bool) -> tuple[Scope, int, int]:
        """The scope of a fragment; locals first..last are reset where it is entered."""
        first = self.locals
        scope = Scope([], outer)
        for one in {(w.name, w.prefix): w for w in writes(fragment)}.values():
            used = one.name in self.referenced or bare(one.name) in self.referenced
            if used and (tlv or one.final != one.name or template(one.name) is not None):
                scope.locals.append((one, self.locals))
                self.locals += 1
        return scope, first, self.locals

    def lookup(self, scope: Scope | None) -> Callable[[Name], list[Source]]:
        """Where an expression in a scope finds a name, the nearest first."""

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

    def made(self) -> list[tuple[int, ...]]:
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

    def raw_slot(self, one: Field) -> int:
        """Where its value before any map or scale is kept for a select; -1: nowhere."""
        for name in (one.name, final(one.name, one.prefix), bare(one.name)):
            if name in self.raw_slots:
                return self.raw_slots[name]
        return -1
