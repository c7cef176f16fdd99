"""Nodes of a YAML document -> instances of `msgspec.Struct` types, every problem told at its place.

The types are walked by `msgspec.inspect`, so that a Struct is the one place that says which keys
there are, of which type and with which default; `convert` adds what a person needs: where, what,
and the mend. All problems of a document are found at once.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final, TypeVar

from msgspec import inspect

from operators.document import Node, Problems, nearest, scalar

DURATION_NS: Final = {
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
    "d": 86_400_000_000_000,
}
SIZE_BYTES: Final = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
SECRET_KEYS: Final = frozenset({"password", "token", "secret", "api_key"})
_QUANTITY: Final = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?) ?([A-Za-z]+)\Z")
_LARGEST: Final = 1 << 62

T = TypeVar("T")


class _Wrong:
    """The value of a node that has a problem."""


_WRONG: Final = _Wrong()


@dataclass(frozen=True, slots=True)
class Later:
    """What the file formats name and this version does not do.

    keys: Struct type -> keys; values: (Struct type, key) -> texts; kinds: any Struct type of a
    tagged union -> tags. `hooks`: Struct type -> what makes its value instead (for sections with a
    reader of their own). `hidden`: Struct type -> fields that no file may say (filled in later).
    harmless: (Struct type, key) -> values that say what happens anyway; others are not done yet.
    elsewhere: Struct type -> keys that only its relatives have -> what is told of them.
    """

    keys: Mapping[type, Collection[str]] = field(default_factory=dict)
    values: Mapping[tuple[type, str], Collection[str]] = field(default_factory=dict)
    kinds: Mapping[type, Collection[str]] = field(default_factory=dict)
    hooks: Mapping[type, Callable[[Node, Problems], Any]] = field(default_factory=dict)
    hidden: Mapping[type, Collection[str]] = field(default_factory=dict)
    harmless: Mapping[tuple[type, str], Collection[Any]] = field(default_factory=dict)
    elsewhere: Mapping[type, Mapping[str, str]] = field(default_factory=dict)


NOT_YET: Final = "is not yet in this version"
_NONE_LATER: Final = Later()


def convert(
    node: Node, kind: type[T], problems: Problems, later: Later = _NONE_LATER, *, partial: bool = False
) -> T | None:
    """An instance of a Struct type, or None where the node has problems, all of which are added.

    partial: with problems too there is an instance of what is sound, so that checks can go on: the
    default (of a required key: None) stands for what is wrong, None for an item of a list, and a
    member of a mapping is left out. Whether there were problems is seen by counting them.

    A key that the type does not have is a problem that names the nearest one (a camelCase form
    names its snake_case key); a missing key takes its default, and is a problem where there is
    none. `null` is the same as leaving the key out. A union of Structs is told apart by its tag.
    """
    described: Any = kind
    value = _Walk(problems, later, partial).value(node, _type_info(described), None, "")
    return None if value is _WRONG else value


@functools.cache
def _type_info(kind: Any) -> inspect.Type:
    return inspect.type_info(kind)


def shown(node: Node) -> str:
    """A node's value for an error text; nothing that came from the environment, and no secret."""
    if node.is_map:
        return "a mapping"
    if node.is_list:
        return "a list"
    name = node.path.rpartition(".")[2]
    if name in SECRET_KEYS and not node.masked:
        return "what stands here"
    if node.value is None:
        return "null"
    text = node.raw if len(node.raw) <= 60 else node.raw[:57] + "..."
    if isinstance(node.value, bool):
        return f"the boolean {text}"
    if isinstance(node.value, int | float):
        return f"the number {text}"
    return f"'{text}'"


def parse_duration(text: str) -> int | str:
    """Nanoseconds of `500ms 10s 5m 1h 30d`, or what is wrong with it."""
    return _quantity(text, DURATION_NS, "a duration", "500ms, 10s, 5m, 1h or 30d")


def parse_size(text: str) -> int | str:
    """Bytes of `64KB 4GB`, or what is wrong with it."""
    return _quantity(text, SIZE_BYTES, "a size", "64KB, 20MB or 4GB")


def _quantity(text: str, units: Mapping[str, int], what: str, examples: str) -> int | str:
    match = _QUANTITY.match(text)
    if match is None:
        return f"is no {what[2:]}; write for example {examples}"
    number, unit = match.groups()
    if unit not in units:
        same = next((known for known in units if known.lower() == unit.lower()), None)
        mend = f"; did you mean '{number}{same}'?" if same else f"; {what} ends in one of {', '.join(units)}"
        return f"has the unknown unit '{unit}'{mend}"
    total = Decimal(number) * units[unit]
    if total != int(total) or total > _LARGEST:
        return f"is too fine or too long for {what}"
    return int(total)


class _Walk:
    def __init__(self, problems: Problems, later: Later, partial: bool) -> None:
        self.problems = problems
        self.later = later
        self.partial = partial
        self.root = True

    def wrong(self, node: Node, text: str, key: str | None = None) -> Any:
        self.problems.add(node, text, key=key)
        return _WRONG

    def value(self, node: Node, kind: inspect.Type, owner: type | None, key: str) -> Any:
        """The node as a value of a type; owner and key: the Struct's field that it is for."""
        extra: Mapping[str, Any] = {}
        if isinstance(kind, inspect.Metadata):
            extra, kind = kind.extra or {}, kind.type
        if extra.get("kind") in ("duration", "size"):
            return self.quantity(node, str(extra["kind"]))
        if isinstance(kind, inspect.StructType):
            if kind.cls in self.later.hooks:
                made = self.later.hooks[kind.cls](node, self.problems)
                return _WRONG if made is None else made
            return self.struct(node, kind)
        if isinstance(kind, inspect.UnionType):
            return self.union(node, kind, owner, key)
        if isinstance(kind, inspect.LiteralType):
            return self.literal(node, kind, owner, key)
        if isinstance(kind, inspect.ListType | inspect.VarTupleType):
            return self.listed(node, kind, owner, key)
        if isinstance(kind, inspect.TupleType):
            return self.tuple_of(node, kind, owner, key)
        if isinstance(kind, inspect.DictType):
            return self.mapping(node, kind, owner, key)
        if isinstance(kind, inspect.AnyType):
            return node.plain()
        return self.scalar_of(node, kind, expression=extra.get("kind") == "expression")

    # mappings

    def struct(self, node: Node, kind: inspect.StructType) -> Any:
        if not node.is_map:
            return self.wrong(
                node, f"a mapping with keys such as '{_first_key(kind)}' is expected, not {shown(node)}"
            )
        root, self.root = self.root, False
        hidden = self.later.hidden.get(kind.cls, ())
        known = {one.encode_name: one for one in kind.fields if one.encode_name not in hidden}
        later = self.later.keys.get(kind.cls, ())
        given: dict[str, Any] = {}
        good = whole = True
        for key, child in node.items():
            field_ = known.get(key)
            if key == kind.tag_field:
                continue
            if field_ is None and child.plain() in self.later.harmless.get((kind.cls, key), ()):
                continue
            if field_ is None:
                good = False
                if (kind.cls, key) in self.later.harmless and not child.is_map and not child.is_list:
                    self.wrong(child, f"'{key}: {child.raw}' {NOT_YET}")
                elif key in later or (kind.cls, key) in self.later.harmless:
                    self.wrong(node, f"'{key}' {NOT_YET}", key)
                elif key in self.later.elsewhere.get(kind.cls, ()):
                    self.wrong(node, self.later.elsewhere[kind.cls][key], key)
                else:
                    names = [*([kind.tag_field] if kind.tag_field else []), *known, *later]
                    mend = nearest(key, names) or f"; known: {', '.join(sorted(known))}"
                    self.wrong(node, f"unknown key '{key}'{mend}", key)
                continue
            if child.value is None and not field_.required:
                continue
            value = self.value(child, field_.type, kind.cls, key)
            if value is not _WRONG:
                given[field_.name] = value
                continue
            good = False
            if field_.required:
                whole = False
                given[field_.name] = None
        for key, field_ in known.items():
            child_or_none = node.get(key)
            if field_.required and child_or_none is None:
                good = whole = False
                given[field_.name] = None
                self.wrong(node, f"'{key}' is missing")
        return kind.cls(**given) if good or (self.partial and (whole or root)) else _WRONG

    def mapping(self, node: Node, kind: inspect.DictType, owner: type | None, key: str) -> Any:
        if not node.is_map:
            return self.wrong(node, f"a mapping is expected, not {shown(node)}")
        made = {name: self.value(child, kind.value_type, owner, key) for name, child in node.items()}
        if self.partial:
            return {name: value for name, value in made.items() if value is not _WRONG}
        return _WRONG if any(value is _WRONG for value in made.values()) else made

    def union(self, node: Node, kind: inspect.UnionType, owner: type | None, key: str) -> Any:
        options = [one for one in kind.types if not isinstance(one, inspect.NoneType)]
        if node.value is None and len(options) < len(kind.types):
            return None
        if len(options) == 1:
            return self.value(node, options[0], owner, key)
        structs = [one for one in options if isinstance(_bare(one), inspect.StructType)]
        if structs and (node.is_map or len(structs) == len(options)):
            if len(structs) == 1 and _struct(structs[0]).tag_field is None:
                return self.struct(node, _struct(structs[0]))
            return self.tagged(node, [_struct(one) for one in structs])
        if node.is_list:
            for one in options:
                if isinstance(_bare(one), inspect.ListType | inspect.VarTupleType | inspect.TupleType):
                    return self.value(node, one, owner, key)
        if not node.is_list and not node.is_map:
            for one in options:
                if _takes(_bare(one), node):
                    return self.value(node, one, owner, key)
            for one in options:
                if isinstance(_bare(one), inspect.LiteralType):
                    return self.value(node, one, owner, key)
        words = list(dict.fromkeys(_word(_bare(one)) for one in options))
        return self.wrong(node, f"{' or '.join(words)} is expected, not {shown(node)}")

    def tagged(self, node: Node, kinds: list[inspect.StructType]) -> Any:
        """A union of Structs whose tag says which."""
        tag = str(kinds[0].tag_field)
        known = {str(one.tag): one for one in kinds}
        if not node.is_map:
            return self.wrong(node, f"a mapping with '{tag}' is expected, not {shown(node)}")
        given = node.get(tag)
        later = [name for one in kinds for name in self.later.kinds.get(one.cls, ())]
        words = f"known: {', '.join(sorted(known))}"
        if given is None or given.value is None:
            return self.wrong(node, f"'{tag}' is missing; {words}")
        if str(given.value) in known:
            return self.struct(node, known[str(given.value)])
        if given.value in later:
            return self.wrong(given, f"'{given.value}' {NOT_YET}")
        mend = nearest(given.raw, [*known, *later]) or ";"
        return self.wrong(given, f"unknown {tag} {shown(given).removeprefix('the number ')}{mend} {words}")

    # lists

    def listed(
        self, node: Node, kind: inspect.ListType | inspect.VarTupleType, owner: type | None, key: str
    ) -> Any:
        if not node.is_list:
            return self.wrong(node, f"a list is expected, not {shown(node)}; write [ ... ]")
        made = [self.value(child, kind.item_type, owner, key) for child in node]
        if any(value is _WRONG for value in made):
            if not self.partial:
                return _WRONG
            made = [None if value is _WRONG else value for value in made]
        return tuple(made) if isinstance(kind, inspect.VarTupleType) else made

    def tuple_of(self, node: Node, kind: inspect.TupleType, owner: type | None, key: str) -> Any:
        many = len(kind.item_types)
        if not node.is_list or len(node.value) != many:
            words = ", ".join(_word(_bare(one)) for one in kind.item_types)
            what = f"a list of {len(node.value)}" if node.is_list else shown(node)
            return self.wrong(node, f"a list of {many} ({words}) is expected, not {what}")
        made = [self.value(child, one, owner, key) for child, one in zip(node, kind.item_types, strict=True)]
        return _WRONG if any(value is _WRONG for value in made) else tuple(made)

    # scalars

    def quantity(self, node: Node, kind: str) -> Any:
        if _unresolved(node):
            return 0
        parse, example = (parse_duration, "10s") if kind == "duration" else (parse_size, "20MB")
        if node.is_map or node.is_list or node.value is None or isinstance(node.value, bool):
            return self.wrong(node, f"a {kind} such as {example} is expected, not {shown(node)}")
        text = str(node.value) if isinstance(node.value, str) else node.raw
        if kind == "duration" and text == "0":
            return 0
        found = parse(text)
        if isinstance(found, int):
            return found
        if isinstance(node.value, int | float):
            units = ", ".join(DURATION_NS if kind == "duration" else SIZE_BYTES)
            return self.wrong(node, f"a {kind} needs a unit ({units}); write for example {example}")
        return self.wrong(node, f"{shown(node)} {found}")

    def literal(self, node: Node, kind: inspect.LiteralType, owner: type | None, key: str) -> Any:
        value = scalar(node.value) if node.masked and isinstance(node.value, str) else node.value
        for known in kind.values:
            if value == known and isinstance(value, bool) == isinstance(known, bool):
                return known
            if isinstance(known, str) and isinstance(value, int | float) and node.raw == known:
                return known  # `protocol: 5`
        texts = [str(known) for known in kind.values]
        if _unresolved(node):
            return kind.values[0]
        if owner is not None and value in self.later.values.get((owner, key), ()):
            return self.wrong(node, f"'{value}' {NOT_YET}")
        if node.is_map or node.is_list or value is None:
            return self.wrong(node, f"one of {', '.join(texts)} is expected, not {shown(node)}")
        mend = nearest(str(value), texts) if not node.masked else ""
        mend = mend or f"; one of {', '.join(texts)}"
        what = f"'{node.raw}'" if isinstance(value, bool) else shown(node).removeprefix("the number ")
        return self.wrong(node, f"unknown value {what}{mend}")

    def scalar_of(self, node: Node, kind: inspect.Type, *, expression: bool) -> Any:
        value = node.value
        if node.masked and isinstance(value, str) and not isinstance(kind, inspect.StrType):
            if _unresolved(node):
                return {inspect.IntType: 0, inspect.FloatType: 0.0, inspect.BoolType: False}[type(kind)]
            value = scalar(value)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if isinstance(kind, inspect.StrType):
            if isinstance(value, str):
                return value
            if expression and not node.is_map and not node.is_list and value is not None:
                return node.raw
            if node.is_map or node.is_list or value is None:
                return self.wrong(node, f"a text is expected, not {shown(node)}")
            quotes = "" if node.path.rpartition(".")[2] in SECRET_KEYS else f'; write "{node.raw[:60]}"'
            return self.wrong(node, f"a text is expected, not {shown(node)}{quotes}")
        if isinstance(kind, inspect.BoolType) and isinstance(value, bool):
            return value
        if isinstance(kind, inspect.IntType) and number:
            if abs(value) < 1 << 63 and value == int(value):
                return int(value)
            return self.wrong(node, f"a whole number is expected, not {shown(node)}")
        if isinstance(kind, inspect.FloatType) and number:
            if abs(value) <= 1.7976931348623157e308:
                return float(value)
            return self.wrong(node, "the number is too large")
        mend = "; write true or false" if isinstance(kind, inspect.BoolType) else ""
        if isinstance(value, str) and isinstance(scalar(value), int | float) and node.quoted:
            mend = mend or "; remove the quotes"
        return self.wrong(node, f"{_word(kind)} is expected, not {shown(node)}{mend}")


def _unresolved(node: Node) -> bool:
    """A reference that was left as it is: a journaled plant is read where its environment is not,
    and nobody uses the value."""
    return node.masked and isinstance(node.value, str) and "${" in node.value


def _first_key(kind: inspect.StructType) -> str:
    required = [one.encode_name for one in kind.fields if one.required]
    return (required or [one.encode_name for one in kind.fields])[0]


def _bare(kind: inspect.Type) -> inspect.Type:
    return kind.type if isinstance(kind, inspect.Metadata) else kind


def _struct(kind: inspect.Type) -> inspect.StructType:
    bare = _bare(kind)
    assert isinstance(bare, inspect.StructType)
    return bare


def _takes(kind: inspect.Type, node: Node) -> bool:
    """Whether a scalar is of this type as it stands."""
    value = node.value
    if isinstance(kind, inspect.BoolType):
        return isinstance(value, bool)
    if isinstance(kind, inspect.StrType):
        return isinstance(value, str)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(kind, inspect.FloatType) or (
        isinstance(kind, inspect.IntType) and abs(value) < 1 << 63 and value == int(value)
    )


def _word(kind: inspect.Type) -> str:
    if isinstance(kind, inspect.UnionType):
        return " or ".join(_word(_bare(one)) for one in kind.types)
    words = {
        inspect.IntType: "a whole number",
        inspect.FloatType: "a number",
        inspect.BoolType: "a boolean",
        inspect.StrType: "a text",
        inspect.NoneType: "null",
        inspect.ListType: "a list",
        inspect.DictType: "a mapping",
        inspect.StructType: "a mapping",
        inspect.LiteralType: "one of a few words",
    }
    return words.get(type(kind), "a value")
