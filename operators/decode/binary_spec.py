"""`decode: {format: binary, ...}` -> `BinarySpec`: the fragments of a layout, with every problem
told at its place. The language is described in docs/decode.md."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from operators.decode.binary_cases import check_cases, parse_when
from operators.decode.binary_fields import (
    FIELD_KEYS,
    Reader,
    order_of,
    parse_field,
    parse_length,
    parse_type,
    shown,
)
from operators.decode.binary_names import check_names
from operators.decode.binary_parts import key_pattern, parse_bits, parse_checks, parse_select, parse_time
from operators.decode.binary_tree import (
    BE,
    UINT,
    BinarySpec,
    Case,
    Derive,
    Field,
    Fragment,
    Item,
    KeyPattern,
    Length,
    Record,
    SectionEntry,
    Sections,
    Tlv,
    Type,
)
from operators.document import Node, Problems, nearest

FRAGMENT_KEYS: Final = (
    *("order", "size", "skip", "check", "time", "fields", "bits", "sections", "tlv", "cases", "record"),
    *("select", "derive", "use", "prefix"),
)
TOP_KEYS: Final = ("format", "encoding", "pad", "records", "fragments", "tables")  # encoding: see `spec`
DEEPEST: Final = 16


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
                found.checks.extend(parse_checks(reader, entry, order))
        if (time := node.get("time")) is not None:
            found.time = parse_time(reader, time, order, keys)
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
            found.bits.append(parse_bits(reader, entry, order, prefix))
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
                    found.tail.append(parse_select(self.reader, name, choice, prefix))

    # bits

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
        if not parts:  # 'key' is missing or wrong, which is told
            return []
        if len(tokens) != len(parts):
            some = f"{len(tokens)} part{'s' * (len(tokens) != 1)}"
            told = f"the key '{key}' has {some} where {len(parts)} are expected"
            self.reader.error(node, f'{told}; write them in hex with blanks between, in quotes: "03 67"')
            return []
        found = [KeyPattern([], 0)]
        for token, part in zip(tokens, parts, strict=True):
            options = []
            for one in token.split("|"):
                pattern = key_pattern(one, part.size * 8)
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
