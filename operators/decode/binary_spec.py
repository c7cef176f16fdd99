"""`decode: {format: binary, ...}` -> `BinarySpec`: the fragments of a layout, with every problem
told at its place. The language is described in docs/decode.md."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any, Final

from operators.decode.binary_cases import check_cases, parse_when
from operators.decode.binary_fields import (
    FIELD_KEYS,
    Reader,
    fraction,
    number,
    order_of,
    parse_field,
    parse_length,
    parse_map,
    parse_range,
    parse_type,
    shown,
)
from operators.decode.binary_names import check_names
from operators.decode.binary_tree import (
    BE,
    UINT,
    BinarySpec,
    BitEntry,
    BitRepeat,
    Bits,
    BitSkip,
    Case,
    Check,
    Derive,
    Field,
    Fragment,
    Item,
    KeyPattern,
    Length,
    Record,
    Scale,
    SectionEntry,
    Sections,
    Select,
    Time,
    Tlv,
    Type,
)
from operators.document import Node, Problems, nearest

FRAGMENT_KEYS: Final = (
    *("order", "size", "skip", "check", "time", "fields", "bits", "sections", "tlv", "cases", "record"),
    *("select", "derive", "use", "prefix"),
)
TOP_KEYS: Final = ("format", "pad", "records", "fragments", "tables")
TIME_KEYS: Final = ("epoch", "unit", "wrap", "ago", "relative", "step", "first")
UNITS: Final = {
    "s": 10**9,
    "ms": 10**6,
    "us": 10**3,
    "ns": 1,
    "min": 60 * 10**9,
    "h": 3600 * 10**9,
    "d": 86400 * 10**9,
}
CHECKS: Final = ("crc8", "crc16", "crc32", "sum8", "sum16", "xor8")
DEEPEST: Final = 16
_TOKEN = re.compile(r"[0-9A-Fa-f?]+\Z")


def parse_binary_spec(
    node: Node,
    metrics: Iterable[str] | None,
    params: Iterable[str] | None,
    problems: Problems,
) -> BinarySpec | None:
    """A binary layout; None if it has errors, all of which are in `problems`.

    metrics: declared names in file order, None = any (a bare spec file); params: names that
    `param.x` may take, None = any.
    """
    names = None if metrics is None else tuple(metrics)
    reader = Reader(problems, names, None if params is None else tuple(params))
    before = len(problems.errors)
    if not node.is_map:
        problems.add(node, "a mapping is expected")
        return None
    spec = _Layout(reader, node).whole()
    check_names(reader, spec, expressions=len(problems.errors) == before)
    return spec if len(problems.errors) == before else None


class _Layout:
    """Reads one `decode:` section; `fragments`, `tables` and `records` may be named anywhere."""

    def __init__(self, reader: Reader, node: Node) -> None:
        self.reader = reader
        self.node = node
        self.records: dict[str, Record] = {}
        self.using: list[str] = []

    def whole(self) -> BinarySpec:
        node, reader = self.node, self.reader
        order = order_of(reader, node.get("order"), BE)
        pad = reader.integer(node.get("pad"), 0, 0, 65536)
        records = node.get("records")
        for name, child in records.items() if records is not None else ():
            self.records[name] = self._record(name, child, order)
        top = self.fragment(node, order, limit=None, extra=TOP_KEYS)
        params = sorted(
            {".".join(n.parts) for tree, _ in reader.expressions for n in _names(tree) if n.root == "param"}
        )
        return BinarySpec(top, self.records, pad, reader.metrics, tuple(params), node)

    # fragments

    def fragment(
        self,
        node: Node,
        order: int,
        *,
        prefix: str = "",
        keys: int = 0,
        limit: int | None,
        extra: tuple[str, ...] = (),
        bare: bool = False,
        depth: int = 0,
    ) -> Fragment:
        """A fragment. keys: parts of the tlv key around it; limit: most bytes that its region can
        have, if known; extra: keys the caller reads; bare: other keys are fields."""
        reader = self.reader
        if node.value is None:
            return Fragment(node)
        if not node.is_map:
            reader.error(node, f"a mapping is expected, not {shown(node)}")
            return Fragment(node)
        if depth > DEEPEST:
            reader.error(node, f"fragments are nested deeper than {DEEPEST}")
            return Fragment(node)
        own_prefix = node.get("prefix")
        if own_prefix is not None:
            prefix += own_prefix.raw
        order = order_of(reader, node.get("order"), order)
        found = self._used(node, order, prefix, keys, limit, depth)
        if (size := node.get("size")) is not None:
            found.size = parse_length(reader, size, order)
            if found.size.kind == "number":
                limit = found.size.number if limit is None else min(limit, found.size.number)
        found.skip = reader.integer(node.get("skip"), found.skip, 0)
        if (check := node.get("check")) is not None:
            for entry in check if check.is_list else (check,):
                found.checks.extend(self._checks(entry, order))
        if (time := node.get("time")) is not None:
            found.time = self._time(time, order, keys)
        known = (*FRAGMENT_KEYS, *extra)
        fields = dict(node.get("fields").items()) if node.get("fields") is not None else {}  # type: ignore[union-attr]
        if (listed := node.get("fields")) is not None and not listed.is_map:
            reader.error(listed, "a mapping from names to fields is expected")
        if bare:
            fields.update({key: child for key, child in node.items() if key not in known})
        else:
            self._unknown(node, known)
        for name, child in fields.items():
            field_ = parse_field(reader, name, child, order, keys=keys)
            field_.prefix = prefix
            found.fields = [one for one in found.fields if one.name != name or one.prefix != prefix]
            found.fields.append(field_)
        self._limits(found.fields, limit)
        for entry in _several(node.get("bits")):
            found.bits.append(self._bits(entry, order, prefix))
        for entry in _several(node.get("sections")):
            found.sections.append(self._sections(entry, order, prefix, keys, depth))
        for entry in _several(node.get("tlv")):
            found.tlv.append(self._tlv(entry, order, prefix, depth))
        if (cases := node.get("cases")) is not None:
            found.cases = self._cases(cases, order, prefix, keys, limit, depth)
        if (record := node.get("record")) is not None:
            for entry in record if record.is_list else (record,):
                if entry.value not in self.records and not self._later(entry.value):
                    told = nearest(entry.raw, self._names_of("records"))
                    reader.error(entry, f"no record '{entry.raw}' under 'records'{told}")
                else:
                    found.records.append(str(entry.value))
        self._tail(found, node, prefix)
        return found

    def _names_of(self, key: str) -> list[str]:
        child = self.node.get(key)
        return [name for name, _ in child.items()] if child is not None else []

    def _later(self, name: Any) -> bool:
        return name in self._names_of("records")

    def _unknown(self, node: Node, known: tuple[str, ...]) -> None:
        for key, child in node.items():
            if key in known:
                continue
            told = nearest(key, known)
            if not told and child.is_map and set(child.keys) & set(FIELD_KEYS):
                told = "; a field stands under 'fields'"
            self.reader.error(node, f"unknown key '{key}'{told}", key)

    def _used(
        self, node: Node, order: int, prefix: str, keys: int, limit: int | None, depth: int
    ) -> Fragment:
        """What `use:` puts in; the fragment's own constructs are added to it."""
        found = Fragment(node)
        use = node.get("use")
        if use is None:
            return found
        shared = self.node.get("fragments")
        for entry in use if use.is_list else (use,):
            child = shared.get(str(entry.value)) if shared is not None else None
            if child is None:
                told = nearest(entry.raw, self._names_of("fragments"))
                self.reader.error(entry, f"no fragment '{entry.raw}' under 'fragments'{told}")
                continue
            if str(entry.value) in self.using:
                chain = " -> ".join([*self.using, str(entry.value)])
                self.reader.error(entry, f"fragments use each other in a circle: {chain}")
                continue
            self.using.append(str(entry.value))
            part = self.fragment(
                child, order, prefix=prefix, keys=keys, limit=limit, bare=True, depth=depth + 1
            )
            self.using.pop()
            found.size, found.skip = part.size or found.size, part.skip or found.skip
            found.time = part.time or found.time
            found.cases = found.cases or part.cases
            for name in ("checks", "fields", "bits", "sections", "tlv", "records", "tail"):
                getattr(found, name).extend(getattr(part, name))
        return found

    def _limits(self, fields: list[Field], limit: int | None) -> None:
        """Fields beyond the stated length are errors, doubtful overlaps are warnings."""
        spans: list[tuple[int, int, Field]] = []
        end, start = 0, 0
        for one in fields:
            size = _bytes(one)
            if one.source in ("value", "key", "expr") or size is None:
                end = -1 if one.source == "expr" or size is None else end
                continue
            if one.source == "at":
                start = one.at
            elif one.source == "pieces":
                start = min(byte for byte, _, _ in one.pieces)
                size = max(byte for byte, _, _ in one.pieces) + 1 - start
            elif one.source == "next":
                if end < 0:
                    continue
                start = end
            if one.condition is None and not one.optional and limit is not None:
                beyond = start + size > limit if start >= 0 else -start > limit
                if beyond:
                    self.reader.error(
                        one.node, f"bytes {start}..{start + size - 1} lie beyond the stated length of {limit}"
                    )
            if one.source in ("at", "next") and one.condition is None and not one.optional:
                spans.append((start, start + size, one))
            end = start + size if start >= 0 else -1
        for i, (low, high, one) in enumerate(spans):
            for low2, high2, other in spans[:i]:
                same = (low, high) == (low2, high2) or low >= high2 or low2 >= high or (low < 0) != (low2 < 0)
                if same or one.name.startswith("_") or other.name.startswith("_"):
                    continue
                if one.bit is None and other.bit is None:
                    told = f"shares bytes with '{other.name}'; if that is meant, write at: same"
                    self.reader.problems.warn(one.node, told)

    def _tail(self, found: Fragment, node: Node, prefix: str) -> None:
        for key, child in node.items():
            if key == "derive":
                if not child.is_map:
                    self.reader.error(child, "a mapping from names to expressions is expected")
                for name, text in child.items():
                    tree = self.reader.expression(text)
                    if tree is not None:
                        found.tail.append(Derive(name, tree, text, prefix))
            elif key == "select":
                for name, choice in child.items():
                    found.tail.append(self._select(name, choice, prefix))

    def _select(self, name: str, node: Node, prefix: str) -> Select:
        reader = self.reader
        reader.keys(node, ("by", "scale", "offset", "name"))
        by = node.get("by")
        if by is None or not isinstance(by.value, str):
            reader.error(node, "'by' is missing: the field whose raw value chooses")
        parts = {}
        for key in ("scale", "offset", "name"):
            child = node.get(key)
            parts[key] = None if child is None else parse_map(reader, child, exact=key != "name")
        if all(part is None for part in parts.values()):
            reader.error(node, "one of scale, offset and name is expected")
        chosen = by.raw if by is not None else ""
        reader.used.add(chosen)
        return Select(name, chosen, parts["scale"], parts["offset"], parts["name"], node, prefix)

    # bits

    def _bits(self, node: Node, order: int, prefix: str) -> Bits:
        reader = self.reader
        reader.keys(node, ("from", "order", "list"))
        start = node.get("from")
        lsb = reader.choice(node.get("order"), "msb", ("msb", "lsb")) == "lsb"
        entries = self._bit_list(node, prefix, 0)
        return Bits(None if start is None else reader.integer(start, 0), lsb, entries, node)

    def _bit_list(self, node: Node, prefix: str, depth: int) -> list[BitEntry]:
        reader = self.reader
        listed = node.get("list")
        if listed is None or not listed.is_list or depth > 3:
            reader.error(node, "'list' is missing: entries such as {name: width}")
            return []
        return [self._bit_entry(entry, prefix, depth) for entry in listed]

    def _bit_entry(self, node: Node, prefix: str, depth: int) -> BitEntry:
        reader = self.reader
        options = ("scale", "offset", "signed", "map", "missing", "valid", "clamp", "optional", "if", "round")
        if not node.is_map:
            reader.error(node, f"an entry is {{name: width}}, not {shown(node)}")
            return BitSkip(0, node)
        if set(node.keys) == {"skip"}:
            return BitSkip(reader.integer(node.get("skip"), 0, 0), node)
        if "list" in node.keys:
            reader.keys(node, ("count", "list"))
            count = node.get("count")
            length = Length("rest") if count is None else parse_length(reader, count, BE, fields=False)
            return BitRepeat(length, self._bit_list(node, prefix, depth + 1), node)
        if "width" in node.keys and "name" in node.keys:
            name, width = node.get("name").raw, node.get("width")  # type: ignore[union-attr]
            reader.keys(node, ("name", "width", *options))
        else:
            names = [key for key in node.keys if key not in options]
            if len(names) != 1:
                told = f" ('{names[1]}' is no option{nearest(names[1], options)})" if names[1:] else ""
                reader.error(node, f"an entry is {{name: width, ...}}{told}")
                return BitSkip(0, node)
            name, width = names[0], node.get(names[0])
        plain = {key: child for key, child in node.items() if key in options}
        inner = Node(plain, node.file, node.line, node.column, node.path, keys=node.keys)
        inner.keys = {key: place for key, place in node.keys.items() if key in options}
        field_ = parse_field(reader, name, inner, BE)
        field_.source, field_.prefix = "bits", prefix
        field_.bit = (0, reader.integer(width, 1, 1, 64))
        field_.type = Type(UINT, 8, BE)
        return field_

    # cases, sections, tlv, records

    def _cases(
        self, node: Node, order: int, prefix: str, keys: int, limit: int | None, depth: int
    ) -> list[Case]:
        reader = self.reader
        if not node.is_list:
            reader.error(node, "a list of cases is expected")
            return []
        found: list[Case] = []
        for entry in node:
            if not entry.is_map:
                reader.error(entry, f"a case is a mapping with 'when' or 'else', not {shown(entry)}")
                continue
            otherwise, when = entry.get("else"), entry.get("when")
            if otherwise is not None:
                reader.keys(entry, ("else",))
                if otherwise.value in ("reject", "ignore"):
                    found.append(Case(None, otherwise.value, None, entry))
                elif isinstance(otherwise.value, str):
                    reader.error(otherwise, "'reject', 'ignore' or a fragment is expected")
                else:
                    inside = self.fragment(
                        otherwise, order, prefix=prefix, keys=keys, limit=limit, depth=depth + 1
                    )
                    found.append(Case(None, "run", inside, entry))
                continue
            if when is None:
                reader.error(entry, "a case needs 'when' (or it is the last, 'else')")
                continue
            condition = parse_when(reader, when)
            longest = limit
            if depth == 0 and condition.length is not None and condition.length.ranges:
                highest = [high for _, high in condition.length.ranges]
                if all(high is not None for high in highest):
                    longest = int(max(high for high in highest if high is not None))
            inside = self.fragment(
                entry,
                order,
                prefix=prefix,
                keys=keys,
                limit=longest,
                extra=("when", "ignore"),
                depth=depth + 1,
            )
            ignore = reader.flag(entry.get("ignore"))
            found.append(Case(condition, "ignore" if ignore else "run", inside, entry))
        check_cases(reader, found)
        return found

    def _sections(self, node: Node, order: int, prefix: str, keys: int, depth: int) -> Sections:
        reader = self.reader
        reader.keys(node, ("mask", "from", "to", "list", "order"))
        order = order_of(reader, node.get("order"), order)
        mask = node.get("mask")
        start, stop, listed = node.get("from"), node.get("to"), node.get("list")
        found = Sections(
            None if mask is None else parse_field(reader, "", mask, order, keys=keys),
            None if start is None else reader.integer(start, 0),
            None if stop is None else reader.integer(stop, 0),
            [],
            node,
        )
        if listed is None or not listed.is_list:
            reader.error(node, "'list' is missing: sections such as {bit: 0, temperature: {as: s16}}")
            return found
        for entry in listed:
            if not entry.is_map:
                reader.error(entry, f"a section is a mapping, not {shown(entry)}")
                continue
            bit, when, count = entry.get("bit"), entry.get("when"), entry.get("count")
            if bit is not None and mask is None:
                reader.error(bit, "a section by bit needs 'mask' beside 'list'")
            found.list.append(
                SectionEntry(
                    None if bit is None else reader.integer(bit, 0, 0, 63),
                    None if when is None else parse_when(reader, when),
                    None if count is None else parse_length(reader, count, order),
                    self.fragment(
                        entry,
                        order,
                        prefix=prefix,
                        keys=keys,
                        limit=None,
                        extra=("bit", "when", "count"),
                        bare=True,
                        depth=depth + 1,
                    ),
                    entry,
                )
            )
        return found

    def _tlv(self, node: Node, order: int, prefix: str, depth: int) -> Tlv:
        reader = self.reader
        reader.keys(node, ("from", "to", "key", "length", "unknown", "repeated", "short", "items", "order"))
        order = order_of(reader, node.get("order"), order)
        start, stop, key, length = (node.get(name) for name in ("from", "to", "key", "length"))
        if key is None:
            reader.error(node, "'key' is missing: the types of an item's key, such as [u8, u8]")
        parts = [] if key is None else [parse_type(reader, part, order, False) for part in _several(key)]
        if len(parts) > 4:
            reader.error(node, "a key has at most four parts", "key")
        for part in parts:
            if part.kind != UINT or part.size > 4:
                reader.error(node, "a part of a key is u8, u16, u24 or u32", "key")
        found = Tlv(
            None if start is None else reader.integer(start, 0),
            None if stop is None else reader.integer(stop, 0),
            parts[:4],
            None if length is None else parse_type(reader, length, order, False),
            reader.choice(node.get("unknown"), "stop", ("stop", "reject", "skip", "resync")),  # type: ignore[arg-type]
            reader.choice(node.get("repeated"), "last", ("last", "first", "reject", "list")),  # type: ignore[arg-type]
            reader.choice(node.get("short"), "reject", ("reject", "stop")),  # type: ignore[arg-type]
            [],
            node,
        )
        if found.unknown == "skip" and length is None:
            reader.error(node, "unknown items can be skipped only where 'length' tells how far", "unknown")
        entries: dict[str, tuple[str, Node]] = {}
        self._items(node.get("items"), node, entries, [])
        for name, child in entries.values():
            patterns = self._patterns(name, child, found.key)
            inside = self.fragment(
                child, order, prefix=prefix, keys=max(1, len(parts)), limit=None, bare=True, depth=depth + 1
            )
            found.items.append(Item(name, patterns, inside, child))
        return found

    def _items(
        self, node: Node | None, owner: Node, entries: dict[str, tuple[str, Node]], seen: list[str]
    ) -> None:
        """Items and tables of items, in order; later ones win over equal keys."""
        if node is None:
            self.reader.error(owner, "'items' is missing")
        elif node.is_list:
            for child in node:
                self._items(child, owner, entries, seen)
        elif node.is_map:
            for key, child in node.items():
                normal = " ".join(key.upper().split())
                entries.pop(normal, None)
                entries[normal] = (key, child)
        else:
            tables = self.node.get("tables")
            table = tables.get(node.raw) if tables is not None else None
            if table is None or node.raw in seen:
                told = nearest(node.raw, self._names_of("tables"))
                self.reader.error(node, f"no table '{node.raw}' under 'tables'{told}")
            else:
                self._items(table, owner, entries, [*seen, node.raw])

    def _patterns(self, key: str, node: Node, parts: list[Type]) -> list[KeyPattern]:
        tokens = key.split()
        if len(tokens) != len(parts):
            some = f"{len(tokens)} part{'s' * (len(tokens) != 1)}"
            told = f"the key '{key}' has {some} where {len(parts)} are expected"
            self.reader.error(node, f'{told}; write them in hex with blanks between, in quotes: "03 67"')
            return []
        found = [KeyPattern([], 0)]
        for token, part in zip(tokens, parts, strict=True):
            options = []
            for one in token.split("|"):
                pattern = _pattern(one, part.size * 8)
                if pattern is None:
                    self.reader.error(node, f"'{one}' is no key of {part.size * 2} hex digits")
                else:
                    options.append(pattern)
            found = [
                KeyPattern([*before.parts, option[0]], before.wildcards + option[1])
                for before in found
                for option in options
            ]
        return found[:4096]

    def _record(self, name: str, node: Node, order: int) -> Record:
        reader = self.reader
        if not node.is_map:
            reader.error(node, f"a record is a mapping, not {shown(node)}")
            node = Node({}, node.file, node.line, node.column, node.path)
        at, count, stop, size = (node.get(key) for key in ("at", "count", "to", "size"))
        inner = order_of(reader, node.get("order"), order)
        fragment = self.fragment(node, order, limit=None, extra=("at", "count", "to"), depth=1)
        length = None if size is None else parse_length(reader, size, inner)
        fragment = replace(fragment, size=None)
        return Record(
            name,
            None if at is None else reader.integer(at, 0),
            Length("number", 1) if count is None else parse_length(reader, count, inner),
            length,
            None if stop is None else reader.integer(stop, 0),
            fragment,
            node,
        )

    # time and checks

    def _time(self, node: Node, order: int, keys: int) -> Time | None:
        reader = self.reader
        if not node.is_map:
            reader.error(node, "a time is a mapping such as {at: 0, as: u32, epoch: 1970}")
            return None
        unit = reader.choice(node.get("unit"), "s", tuple(UNITS))
        epoch = self._epoch(node.get("epoch"))
        if (ago := node.get("ago")) is not None:
            reader.keys(node, ("ago", "unit"))
            return Time("ago", parse_field(reader, "", ago, order, keys=keys), UNITS[unit], 0, node=node)
        if (relative := node.get("relative")) is not None:
            reader.keys(node, ("relative", "step", "first", "unit"))
            found = Time("relative", None, UNITS[unit], 0, node=node)
            if relative.is_map:
                found.field = parse_field(reader, "", relative, order, keys=keys, extra=("epoch", "unit"))
                found.epoch_ns = self._epoch(relative.get("epoch"))
                found.unit_ns = UNITS[reader.choice(relative.get("unit"), unit, tuple(UNITS))]
            elif relative.value != "arrival":
                reader.error(relative, "'arrival' or a field such as {at: 0, as: u32} is expected")
            step = node.get("step")
            if step is None:
                found.step = Fraction(0)
            elif step.is_map:
                found.step_field = parse_field(reader, "", step, order, keys=keys)
            else:
                found.step = fraction(reader, step, 0)
            found.first = reader.integer(node.get("first"), 0)
            return found
        field_ = parse_field(reader, "", node, order, keys=keys, extra=TIME_KEYS)
        wrap = node.get("wrap")
        if wrap is None:
            return Time("at", field_, UNITS[unit], epoch, node=node)
        bits = parse_type(reader, wrap, order, False).size * 8
        return Time("wrap", field_, UNITS[unit], epoch, wrap_bits=min(bits, 48), node=node)

    def _epoch(self, node: Node | None) -> int:
        """Nanoseconds from 1970 to the start of a year, or to a day "YYYY-MM-DD", in UTC."""
        if node is None:
            return 0
        try:
            if isinstance(node.value, int) and not isinstance(node.value, bool):
                day = datetime.date(node.value, 1, 1)
            else:
                day = datetime.date.fromisoformat(str(node.value))
        except ValueError:
            self.reader.error(node, f'a year or a day such as "2000-01-01" is expected, not {shown(node)}')
            return 0
        if not 1700 <= day.year <= 2200:
            self.reader.error(node, f"the year {day.year} is not between 1700 and 2200")
            return 0
        return (day - datetime.date(1970, 1, 1)).days * 86400 * 10**9

    def _checks(self, node: Node, order: int) -> list[Check]:
        reader = self.reader
        if not node.is_map:
            reader.error(node, "a check is a mapping such as {crc16: {poly: 0x8005, at: -2}}")
            return []
        reader.keys(node, (*CHECKS, "on_fail"))
        outer_flag = reader.choice(node.get("on_fail"), "reject", ("reject", "flag")) == "flag"
        found = []
        for name, child in node.items():
            if name not in CHECKS:
                continue
            kind, width = name.rstrip("0123456789"), int(name.lstrip("abcdefghijklmnopqrstuvwxyz"))
            known = ("init", "xor", "over", "at", "order", "on_fail")
            reader.keys(child, (*known, "poly", "reflect") if kind == "crc" else known)
            top = (1 << width) - 1
            if kind == "crc" and child.get("poly") is None:
                reader.error(child, "'poly' is missing: the polynomial in normal form, such as 0x8005")
            if child.get("at") is None:
                reader.error(child, "'at' is missing: where the check stands, such as -2")
            over: tuple[int | None, int | None] = (None, None)
            if (span := child.get("over")) is not None:
                ends = parse_range(span.raw) if isinstance(span.value, str) else None
                if ends is None:
                    reader.error(span, f'bytes such as "0..-3" are expected, not {shown(span)}')
                else:
                    over = tuple(None if end is None else int(end) for end in ends)  # type: ignore[assignment]
            flag = outer_flag or reader.choice(child.get("on_fail"), "reject", ("reject", "flag")) == "flag"
            found.append(
                Check(
                    kind,  # type: ignore[arg-type]
                    width,
                    reader.integer(child.get("poly"), 0, 0, top),
                    reader.integer(child.get("init"), 0, 0, top),
                    reader.integer(child.get("xor"), 0, 0, top),
                    reader.flag(child.get("reflect")),
                    over,
                    reader.integer(child.get("at"), -1),
                    order_of(reader, child.get("order"), order),
                    flag,
                    child,
                )
            )
        return found


def _names(tree: Any) -> list[Any]:
    from operators.expression.tree import Name, walk

    return [part for part in walk(tree) if isinstance(part, Name)]


def _several(node: Node | None) -> list[Node]:
    """A node, or the members of a list of them."""
    if node is None:
        return []
    return list(node) if node.is_list else [node]


def _bytes(one: Field) -> int | None:
    """How many bytes a field takes; None where only a frame tells."""
    if one.source in ("value", "key"):
        return 0
    if one.size is not None:
        return one.size.number if one.size.kind == "number" else None
    return one.type.size


def _pattern(token: str, bits: int) -> tuple[tuple[int, int, int, int], int] | None:
    """(mask, value, low, high) of one token and whether it is a wildcard; None: no key."""
    top = (1 << bits) - 1
    if token == "*":  # noqa: S105  # a part of a key, no password
        return (0, 0, 0, top), 1
    if ".." in token:
        ends = token.split("..")
        try:
            low, high = int(ends[0] or "0", 16), int(ends[1] or f"{top:x}", 16)
        except ValueError:
            return None
        return ((0, 0, low, high), 1) if low <= high <= top else None
    if not _TOKEN.match(token) or len(token) > bits // 4:
        return None
    value = int(token.replace("?", "0"), 16)
    mask = int("".join("0" if digit == "?" else "F" for digit in token), 16)
    mask |= top & ~((1 << (4 * len(token))) - 1)
    return (mask, value, 0, top), int("?" in token)


__all__ = ["Mapping", "Scale", "number", "parse_binary_spec"]
