"""Lists of items (tlv) by columns: frames that hold the same keys at the same bytes are one layout of
fixed places.

A shape is learned from a frame that the interpreter has read: its length, and which item begins where.
Frames of a shape are those of its length whose key bytes are equal; they go the way of straight layouts,
with the shape as a case, or are the same reject, where the frame was cut off within an item. All others go
to the interpreter, so what was learned when changes no result.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from operators.batch import Bytes, Int32, Int64
from operators.decode.binary_tree import BE, BitSkip, Field, Fragment, Item, Tlv
from operators.decode.layout import Layout
from operators.decode.straight import NotStraight, StraightBuilder, StraightLayout
from operators.decode.straight_kernels import SLOW
from operators.document import Node
from operators.rejects import Reason

MOST_SHAPES: Final = 16
MOST_TRIES: Final = 256  # frames looked at in a decoder's life: every one costs some Python
TRIES_A_BATCH: Final = 8
LONGEST_SHAPE: Final = 1024  # bytes
NOTHING: Final = Fragment(Node({}, "", 0, 0, ""))


class Part(NamedTuple):
    """An item of a shape: where its key begins, the key's bytes, where its fields begin."""

    at: int
    key: bytes
    base: int
    fragment: Fragment


class Shape(NamedTuple):
    """Frames of one length with the same items. action, place: 0, or the status of them all and its byte."""

    length: int
    parts: tuple[Part, ...]
    action: int = 0
    place: int = -1


@dataclass(slots=True, eq=False)
class Shapes:
    """The shapes of one layout. straight: of all that were learned; None before the first."""

    layout: Layout
    straight: StraightLayout | None = None
    known: list[Shape] = field(default_factory=list)
    tried: int = 0

    @property
    def learning(self) -> bool:
        """Whether another frame is worth a look."""
        return len(self.known) < MOST_SHAPES and self.tried < MOST_TRIES

    def learn(self, payload: Bytes, offset: Int64, length: Int64, status: Int32, place: Int64) -> None:
        """Look at a few of the frames that the interpreter has read, spread over them."""
        seen: set[int] = set()
        step = max(1, len(offset) // TRIES_A_BATCH)
        for row in range(0, len(offset), step):
            size = int(length[row])
            if not self.learning:
                return
            if size in seen or status[row] not in (0, Reason.short) or size > LONGEST_SHAPE:
                continue
            seen.add(size)
            self.tried += 1
            start = int(offset[row])
            cut_at = int(place[row]) if status[row] else None
            shape = shape_of(self.layout, payload[start : start + size].tobytes(), cut_at)
            if shape is None or any(_same(shape, other) for other in self.known):
                continue
            try:
                self.straight = build(self.layout, [*self.known, shape])
            except NotStraight:
                continue
            self.known.append(shape)


def shapes_of(layout: Layout) -> Shapes | None:
    """Where shapes may be learned: one list of items at the top, and what stands before it is fixed."""
    top = layout.spec.top
    if layout.spec.pad or len(top.tlv) != 1:
        return None
    if top.sections or top.records or top.tail or top.size or top.skip or top.cases:
        return None
    tlv = top.tlv[0]
    before = top.fields or top.bits or top.time is not None
    if (before and tlv.start is None) or (tlv.start or 0) < 0 or (tlv.stop or -1) >= 0:
        return None
    try:
        build(layout, [])
    except NotStraight:
        return None
    return Shapes(layout)


def shape_of(layout: Layout, frame: bytes, cut_at: int | None = None) -> Shape | None:
    """The shape of a frame; None where its items do not fill the list exactly, or one has no fixed size.
    cut_at: the place of its reject, of a frame that ends within an item."""
    tlv = layout.spec.top.tlv[0]
    at, stop = tlv.start or 0, len(frame) + (tlv.stop or 0)
    parts: list[Part] = []
    while at < stop:
        keys, p = [], at
        for kind in tlv.key:
            keys.append(int.from_bytes(frame[p : p + kind.size], "big" if kind.order == BE else "little"))
            p += kind.size
        span = -1
        if tlv.length is not None:
            order = "big" if tlv.length.order == BE else "little"
            span = int.from_bytes(frame[p : p + tlv.length.size], order)  # type: ignore[arg-type]  # of two
            p += tlv.length.size
        if p > stop:
            return _cut(frame, [*parts, Part(at, frame[at:stop], p, NOTHING)], cut_at)
        item = _item(tlv, keys)
        size = _extent(item.fragment) if item is not None else None
        if item is None or size is None or (0 <= span < size):
            return None
        parts.append(Part(at, frame[at:p], p, item.fragment))
        at = p + (size if span < 0 else span)
        if at > stop:
            return _cut(frame, parts, cut_at)
        if at == parts[-1].at:
            return None
    return Shape(len(frame), tuple(parts)) if parts and at == stop and cut_at is None else None


def _cut(frame: bytes, parts: list[Part], cut_at: int | None) -> Shape | None:
    return None if cut_at is None else Shape(len(frame), tuple(parts), int(Reason.short), cut_at)


def build(layout: Layout, shapes: list[Shape]) -> StraightLayout:
    """All shapes as cases; a frame of none is SLOW."""
    maker = StraightBuilder(layout)
    maker.begin()
    for shape in shapes:
        maker.begin_case()
        maker.test(1, 0, shape.length)
        names: set[str] = set()
        for part in shape.parts:
            for n, byte in enumerate(part.key):
                maker.test(2, part.at + n, byte)
            if shape.action:
                continue
            mine = {one.prefix + one.name for one in part.fragment.fields}
            for bits in part.fragment.bits:
                mine |= {one.prefix + one.name for one in bits.list if isinstance(one, Field)}
            if names & mine:  # what a name that comes again does is the interpreter's
                raise NotStraight
            names |= mine
            maker.moved(part.fragment, part.base)
        maker.end_case(shape.action, shape.length, shape.place)
    maker.begin_case()
    maker.end_case(SLOW, 0)
    return maker.finish()


def _item(tlv: Tlv, keys: list[int]) -> Item | None:
    """The item that takes a key: fewest wildcards, then the order of the list."""
    found = [
        (pattern.wildcards, place, item)
        for place, item in enumerate(tlv.items)
        for pattern in item.patterns
        if all(
            (key & mask) == value and low <= key <= high
            for key, (mask, value, low, high) in zip(keys, pattern.parts, strict=True)
        )
    ]
    return min(found, key=lambda one: one[:2])[2] if found else None


def _extent(fragment: Fragment) -> int | None:
    """How many bytes an item takes; None where that, or a place in it, depends on the frame."""
    if (
        fragment.sections or fragment.tlv or fragment.records or fragment.tail or fragment.cases
        or fragment.checks or fragment.skip or fragment.time is not None
    ):  # fmt: skip
        return None
    at, furthest = 0, 0
    for one in fragment.fields:
        if one.source not in ("at", "next") or one.at_expr is not None or one.size is not None or one.at < 0:
            return None
        if one.condition is not None or one.optional:
            return None
        at = (one.at if one.source == "at" else at) + one.type.size
        furthest = max(furthest, at)
    for bits in fragment.bits:
        if bits.start is not None:
            return None
        width = 0
        for entry in bits.list:
            if isinstance(entry, BitSkip):
                width += entry.width
            elif isinstance(entry, Field) and entry.bit is not None and entry.condition is None:
                width += entry.bit[1]
            else:
                return None
        furthest += (width + 7) // 8
    if fragment.size is None:
        return furthest
    return max(fragment.size.number, 0) if fragment.size.kind == "number" else None


def _same(one: Shape, other: Shape) -> bool:
    return one.length == other.length and [p[:2] for p in one.parts] == [p[:2] for p in other.parts]
