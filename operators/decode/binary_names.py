"""Names of a layout: templates, where each name is written, and that every name is known."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from operators.decode.binary_fields import Reader
from operators.decode.binary_tree import (
    BinarySpec,
    BitEntry,
    BitRepeat,
    Derive,
    Field,
    Fragment,
    Select,
)
from operators.document import Node, nearest
from operators.expression.tree import Name, walk

_HOLE: Final = re.compile(r"\{(i{1,4}|[0-3])\s*([+-]\s*\d+)?\}|\[(\+?)\]")
LIST_NEXT: Final = 100
LIST_SAME: Final = 101
INDEX: Final = 10
MOST_HOLES: Final = 4


@dataclass(frozen=True, slots=True)
class Hole:
    """A number in a name. kind: 0..3 part of the tlv key, INDEX + depth of a repetition,
    LIST_NEXT and LIST_SAME of the list `name`."""

    kind: int
    add: int = 0
    name: str = ""


@dataclass(frozen=True, slots=True)
class Template:
    """A name with numbers in it: texts[0], hole 0, texts[1], hole 1, ..."""

    texts: tuple[str, ...]
    holes: tuple[Hole, ...]

    def match(self, name: str) -> tuple[int, ...] | None:
        """The numbers with which the template gives this name."""
        pattern = "(-?[0-9]+)".join(re.escape(text) for text in self.texts)
        found = re.fullmatch(pattern, name)
        return None if found is None else tuple(int(group) for group in found.groups())

    def fill(self, numbers: tuple[int, ...]) -> str:
        """The name with these numbers."""
        parts = [self.texts[0]]
        for n, text in zip(numbers, self.texts[1:], strict=True):
            parts += (str(n), text)
        return "".join(parts)


def template(written: str) -> Template | None:
    """The template of a name as written; None if there is nothing to fill in."""
    texts, holes, at = [""], [], 0
    for match in _HOLE.finditer(written):
        texts[-1] += written[at : match.start()]
        at = match.end()
        if match.group(1) is not None:
            index = match.group(1)
            kind = INDEX + len(index) - 1 if index[0] == "i" else int(index)
            holes.append(Hole(kind, int((match.group(2) or "0").replace(" ", ""))))
            texts.append("")
        else:
            texts[-1] += "["
            holes.append(Hole(LIST_NEXT if match.group(3) else LIST_SAME, 0, written[: match.start()]))
            texts.append("]")
    texts[-1] += written[at:]
    return Template(tuple(texts), tuple(holes)) if holes else None


def bare(written: str) -> str:
    """A name without its templates, as an expression of its own fragment may say it."""
    return _HOLE.sub("", written)


def final(written: str, prefix: str) -> str:
    """The name in the reading: internal names take no prefix."""
    return written if written.startswith("_") else prefix + written


@dataclass(frozen=True, slots=True)
class Written:
    """One place that writes a name."""

    name: str
    prefix: str
    node: Node

    @property
    def final(self) -> str:
        return final(self.name, self.prefix)


def fragments(top: Fragment) -> Iterator[Fragment]:
    """A fragment and all inside it (records are fragments of their own)."""
    yield top
    for case in top.cases:
        if case.fragment is not None:
            yield from fragments(case.fragment)
    for tlv in top.tlv:
        for item in tlv.items:
            yield from fragments(item.fragment)
    for sections in top.sections:
        for entry in sections.list:
            yield from fragments(entry.fragment)


def bit_fields(entries: list[BitEntry]) -> Iterator[Field]:
    """The fields of a bit list, those of repeated lists included."""
    for entry in entries:
        if isinstance(entry, Field):
            yield entry
        elif isinstance(entry, BitRepeat):
            yield from bit_fields(entry.list)


def writes(fragment: Fragment) -> Iterator[Written]:
    """What one fragment itself writes, in the order in which it runs."""
    for one in fragment.fields:
        yield Written(one.name, one.prefix, one.node)
    for bits in fragment.bits:
        for entry in bit_fields(bits.list):
            yield Written(entry.name, entry.prefix, entry.node)
    for step in fragment.tail:
        if isinstance(step, Derive):
            yield Written(step.name, step.prefix, step.node)
        else:
            for renamed in renames(step):
                yield Written(renamed, step.prefix, step.node)


def renames(step: Select) -> list[str]:
    """The names that a select can give."""
    if step.rename is None:
        return []
    values = [value for _, _, value in step.rename.entries]
    values += [value for _, value in step.rename.texts]
    if step.rename.has_else:
        values.append(step.rename.otherwise)
    return list(dict.fromkeys(str(value) for value in values if value is not None))


def check_names(reader: Reader, spec: BinarySpec, *, expressions: bool) -> None:
    """Metrics that are not declared and, with `expressions`, names in expressions and selects that
    nothing writes are errors."""
    every: list[Written] = []
    tops = [spec.top, *(record.fragment for record in spec.records.values())]
    for top in tops:
        for fragment in fragments(top):
            for one in writes(fragment):
                every.append(one)
                _check_declared(reader, one)
    if not expressions:
        return
    known = {one.final for one in every} | {one.name for one in every} | {bare(one.name) for one in every}
    templates = [made for one in every if (made := template(one.final)) is not None]
    for tree, node in reader.expressions:
        for part in walk(tree):
            if isinstance(part, Name) and part.root in ("", "metrics"):
                wanted = ".".join(part.parts)
                if wanted not in known and all(made.match(wanted) is None for made in templates):
                    told = f"nothing in this layout gives '{wanted}'{nearest(wanted, known)}"
                    reader.problems.add_caret(node, told, part.start, part.stop)
    for top in tops:
        for fragment in fragments(top):
            for step in fragment.tail:
                if isinstance(step, Select):
                    for wanted in (step.by, step.name):
                        if wanted not in known and all(made.match(wanted) is None for made in templates):
                            told = f"nothing in this layout gives '{wanted}'{nearest(wanted, known)}"
                            reader.error(step.node, told)


def _check_declared(reader: Reader, one: Written) -> None:
    made = template(one.final)
    if made is not None and len(made.holes) > MOST_HOLES:
        reader.error(one.node, f"'{one.name}' has more than {MOST_HOLES} numbers to fill in")
    if reader.metrics is None or one.name.startswith("_"):
        return
    if made is None:
        if one.final not in reader.metrics:
            told = f"no metric '{one.final}' under 'metrics'{nearest(one.final, reader.metrics)}"
            reader.error(one.node, f"{told}; declare it, or begin its name with '_' if it is internal")
    elif all(made.match(metric) is None for metric in reader.metrics):
        reader.error(one.node, f"no metric under 'metrics' has a name like '{one.final}'")
