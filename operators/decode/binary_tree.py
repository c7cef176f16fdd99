"""A binary layout that has passed its checks, as a tree: what `binary_spec` reads out of a
`decode:` section and `layout` turns into tables. Terms as in docs/decode.md."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final, Literal

from operators.document import Node
from operators.expression.tree import Expr

Value = int | float | bool | str | None

# kinds of a raw value
UINT: Final = 0
SINT: Final = 1
FLOAT: Final = 2
SIGN_MAGNITUDE: Final = 3
BCD: Final = 4
ASCII_NUMBER: Final = 5
ASCII_HEX: Final = 6
TEXT_HEX: Final = 7
TEXT_ASCII: Final = 8
TEXT_DEC: Final = 9
TEXT_BCD: Final = 10

# byte orders
BE: Final = 0
LE: Final = 1
WS: Final = 2
WSLE: Final = 3


@dataclass(slots=True, eq=False)
class Type:
    """How bytes become a raw value. size: bytes, 0 where `size:` of the field says it."""

    kind: int
    size: int
    order: int
    as_bool: bool = False


@dataclass(slots=True, eq=False)
class Ranges:
    """A test: any of the inclusive ranges (None = open end), or `multiple`: n = k * multiple + plus."""

    ranges: list[tuple[Fraction | None, Fraction | None]]
    texts: list[str] = field(default_factory=list)
    multiple: int = 0
    plus: int = 0


@dataclass(slots=True, eq=False)
class Mapping:
    """`map:` or a choice of `select:`: from codes to values; exact codes stand before ranges."""

    entries: list[tuple[Fraction | None, Fraction | None, Value]]
    texts: list[tuple[str, Value]]
    otherwise: Value = None
    has_else: bool = False


@dataclass(slots=True, eq=False)
class Scale:
    """value = raw * factor + shift, in one rounding."""

    factor: Fraction
    shift: Fraction


@dataclass(slots=True, eq=False)
class Length:
    """How many bytes or times: a number, all that is left, an expression, or a field."""

    kind: Literal["number", "rest", "expr", "field"]
    number: int = 0
    expr: Expr | None = None
    field: Field | None = None


@dataclass(slots=True, eq=False)
class Field:
    """One value of the layout.

    source: `at` (at >= 0 from base, < 0 from the region's end), `next`, `same`, `expr`, `key`,
    `value`, `pieces`, `bits` (an entry of a bit stream).
    bit: (lowest bit, width) within the container; is_bool: the result is a boolean.
    """

    name: str
    node: Node
    type: Type
    source: str = "next"
    at: int = 0
    at_expr: Expr | None = None
    key: int = 0
    value: Value = None
    bit: tuple[int, int] | None = None
    is_bool: bool = False
    signed: bool = False
    pieces: list[tuple[int, int, int]] = field(default_factory=list)  # byte, lowest bit, width
    size: Length | None = None
    missing: Ranges | None = None
    valid: Ranges | None = None
    map: Mapping | None = None
    scale: Scale | None = None
    clamp: tuple[float | None, float | None] | None = None
    round: int | None = None
    optional: bool = False
    condition: Expr | None = None
    prefix: str = ""


@dataclass(slots=True, eq=False)
class BitSkip:
    width: int
    node: Node


@dataclass(slots=True, eq=False)
class BitRepeat:
    count: Length
    list: list[BitEntry]
    node: Node


BitEntry = Field | BitSkip | BitRepeat


@dataclass(slots=True, eq=False)
class Bits:
    """A stream of bits. start: `from`, None = behind what ran before."""

    start: int | None
    lsb: bool
    list: list[BitEntry]
    node: Node


@dataclass(slots=True, eq=False)
class When:
    """Conditions of a case, all required; byte and mask: (at, ...)."""

    port: Ranges | None = None
    length: Ranges | None = None
    byte: list[tuple[int, Ranges]] = field(default_factory=list)
    mask: list[tuple[int, int, tuple[int, ...]]] = field(default_factory=list)
    condition: Expr | None = None


@dataclass(slots=True, eq=False)
class Case:
    """when None: `else`. action: `run` the fragment, `reject`, or `ignore`."""

    when: When | None
    action: Literal["run", "reject", "ignore"]
    fragment: Fragment | None
    node: Node


@dataclass(slots=True, eq=False)
class KeyPattern:
    """One alternative of an item's key: of each part (mask, value, low, high) over its number."""

    parts: list[tuple[int, int, int, int]]
    wildcards: int


@dataclass(slots=True, eq=False)
class Item:
    key: str
    patterns: list[KeyPattern]
    fragment: Fragment
    node: Node


@dataclass(slots=True, eq=False)
class Tlv:
    start: int | None
    stop: int | None
    key: list[Type]
    length: Type | None
    unknown: Literal["stop", "reject", "skip", "resync"]
    repeated: Literal["last", "first", "reject", "list"]
    short: Literal["reject", "stop"]
    items: list[Item]
    node: Node


@dataclass(slots=True, eq=False)
class SectionEntry:
    bit: int | None
    when: When | None
    count: Length | None
    fragment: Fragment
    node: Node


@dataclass(slots=True, eq=False)
class Sections:
    mask: Field | None
    start: int | None
    stop: int | None
    list: list[SectionEntry]
    node: Node


@dataclass(slots=True, eq=False)
class Time:
    """kind: `at` (epoch + field), `wrap` (low `wrap_bits` bits of it), `ago` (arrival - field),
    `relative` (reference + (first + k) * step). unit_ns and epoch_ns in nanoseconds."""

    kind: Literal["at", "wrap", "ago", "relative"]
    field: Field | None
    unit_ns: int
    epoch_ns: int
    wrap_bits: int = 0
    step: Fraction | None = None
    step_field: Field | None = None
    first: int = 0
    node: Node | None = None


@dataclass(slots=True, eq=False)
class Select:
    name: str
    by: str
    scale: Mapping | None
    offset: Mapping | None
    rename: Mapping | None
    node: Node
    prefix: str = ""


@dataclass(slots=True, eq=False)
class Derive:
    name: str
    expr: Expr
    node: Node
    prefix: str = ""


@dataclass(slots=True, eq=False)
class Check:
    """A checksum. kind: crc | sum | xor; width in bits; over: inclusive bytes (None = open)."""

    kind: Literal["crc", "sum", "xor"]
    width: int
    poly: int
    init: int
    xor: int
    reflect: bool
    over: tuple[int | None, int | None]
    at: int
    order: int
    flag: bool
    node: Node


@dataclass(slots=True, eq=False)
class Fragment:
    """A part of a layout; its constructs run in the order of the attributes, from `checks` on."""

    node: Node
    size: Length | None = None
    skip: int = 0
    checks: list[Check] = field(default_factory=list)
    time: Time | None = None
    fields: list[Field] = field(default_factory=list)
    bits: list[Bits] = field(default_factory=list)
    sections: list[Sections] = field(default_factory=list)
    tlv: list[Tlv] = field(default_factory=list)
    cases: list[Case] = field(default_factory=list)
    records: list[str] = field(default_factory=list)
    select: list[Select] = field(default_factory=list)
    derive: list[Derive] = field(default_factory=list)
    tail: list[Select | Derive] = field(default_factory=list)  # select and derive in file order


@dataclass(slots=True, eq=False)
class Record:
    name: str
    at: int | None
    count: Length
    size: Length | None
    stop: int | None
    fragment: Fragment
    node: Node


@dataclass(slots=True, eq=False)
class BinarySpec:
    """A whole layout. metrics: the declared names, None = any name is a metric (a bare spec)."""

    top: Fragment
    records: dict[str, Record]
    pad: int
    metrics: tuple[str, ...] | None
    params: tuple[str, ...]
    node: Node
