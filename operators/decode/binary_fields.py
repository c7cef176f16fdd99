"""Reading the small parts of a binary layout: types, numbers, tests, maps, and one field."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

from operators.decode.binary_tree import (
    ASCII_HEX,
    ASCII_NUMBER,
    BCD,
    BE,
    FLOAT,
    LE,
    SIGN_MAGNITUDE,
    SINT,
    TEXT_ASCII,
    TEXT_BCD,
    TEXT_DEC,
    TEXT_HEX,
    UINT,
    WS,
    WSLE,
    Field,
    Length,
    Mapping,
    Ranges,
    Scale,
    Type,
    Value,
)
from operators.document import Node, Problems, nearest, scalar
from operators.expression.grammar import parse
from operators.expression.tree import Duration, Expr, ExpressionError, Name, Number, is_temporal, walk

FIELD_KEYS: Final = (
    *("at", "as", "bit", "bits", "pieces", "signed", "order", "size", "text", "missing", "valid", "map"),
    *("scale", "offset", "clamp", "round", "optional", "if", "key", "value"),
)
TYPE_NAMES: Final = (
    *(f"{sign}{bits}" for sign in "us" for bits in (8, 16, 24, 32, 40, 48, 56, 64)),
    *("f16", "f32", "f64", "sm8", "sm16", "sm24", "sm32"),
)
ALL_TYPES: Final = (
    *TYPE_NAMES,
    *(name + order for name in TYPE_NAMES if name[-1] != "8" for order in ("le", "be")),
    *(name + "ws" + order for name in TYPE_NAMES if name[1:] in ("32", "48", "64") for order in ("", "le")),
    *("bcd", "bcdle", "bcdbe", "ascii", "asciihex", "bool", "int"),
)
_TYPE = re.compile(r"(u|s|f|sm)(8|16|24|32|40|48|56|64)(ws)?(le|be)?\Z")
_RANGE = re.compile(
    r"\s*(-?(?:0x[0-9a-fA-F]+|[0-9.]+(?:[eE][-+]?[0-9]+)?))?\s*\.\.\s*"
    r"(-?(?:0x[0-9a-fA-F]+|[0-9.]+(?:[eE][-+]?[0-9]+)?))?\s*\Z"
)
_FRACTION = re.compile(r"\s*(-?[0-9.]+(?:[eE][-+]?[0-9]{1,3})?)\s*/\s*([0-9.]+(?:[eE][-+]?[0-9]{1,3})?)\s*\Z")
_TEXTS: Final = {"hex": TEXT_HEX, "ascii": TEXT_ASCII, "dec": TEXT_DEC, "bcd": TEXT_BCD}
_LONGEST: Final = 1 << 20


@dataclass(slots=True, eq=False)
class Reader:
    """What reading one layout carries along: problems, what may be named, what was named."""

    problems: Problems
    metrics: tuple[str, ...] | None
    params: tuple[str, ...] | None
    expressions: list[tuple[Expr, Node]] = field(default_factory=list)
    used: set[str] = field(default_factory=set)

    def error(self, node: Node, text: str, key: str | None = None) -> None:
        self.problems.add(node, text, key=key)

    def keys(self, node: Node, known: Iterable[str]) -> None:
        """Every key that is not known is a problem."""
        words = list(known)
        for key in node.keys:
            if key not in words:
                self.error(node, f"unknown key '{key}'{nearest(key, words)}", key)

    def integer(self, node: Node | None, default: int, least: int = -_LONGEST, most: int = _LONGEST) -> int:
        """A whole number between least and most."""
        if node is None:
            return default
        value = node.value
        if isinstance(value, bool) or not isinstance(value, int):
            self.error(node, f"a whole number is expected, not {shown(node)}")
            return default
        if not least <= value <= most:
            self.error(node, f"{value} is not between {least} and {most}")
            return default
        return value

    def choice(self, node: Node | None, default: str, known: tuple[str, ...]) -> str:
        if node is None:
            return default
        if node.value not in known:
            self.error(node, f"{shown(node)} is not one of {', '.join(known)}{nearest(node.raw, known)}")
            return default
        return str(node.value)

    def flag(self, node: Node | None) -> bool:
        if node is not None and not isinstance(node.value, bool):
            self.error(node, f"true or false is expected, not {shown(node)}")
        return node is not None and node.value is True

    def expression(self, node: Node) -> Expr | None:
        """The tree of an expression; what is wrong with it is a problem with a caret."""
        text = node.value
        if isinstance(text, bool | int | float):
            text = node.raw
        if not isinstance(text, str):
            self.error(node, "an expression is expected")
            return None
        try:
            tree = parse(text)
        except ExpressionError as error:
            self.problems.add_caret(node, error.message, error.start, error.stop)
            return None
        for part in walk(tree):
            if isinstance(part, Duration) or is_temporal(part):
                self.problems.add_caret(
                    node, "a layout sees one frame at a time; use this in a rule", part.start, part.stop
                )
                return None
            if isinstance(part, Number) and part.unit:
                told = f"a layout converts no units; write the number alone, without '{part.unit}'"
                self.problems.add_caret(node, told, part.start, part.stop)
                return None
            if isinstance(part, Name):
                self._name(part, node)
        self.expressions.append((tree, node))
        return tree

    def _name(self, name: Name, node: Node) -> None:
        if name.root == "param":
            wanted = ".".join(name.parts)
            if self.params is not None and wanted not in self.params:
                told = f"no parameter '{wanted}'{nearest(wanted, self.params)}"
                self.problems.add_caret(node, told, name.start, name.stop)
        elif name.root == "frame":
            if name.parts not in (("port",), ("length",)):
                told = f"no 'frame.{'.'.join(name.parts)}'; a frame has port and length"
                self.problems.add_caret(node, told, name.start, name.stop)
        elif name.root not in ("", "metrics"):
            told = f"'{name.root}.' is not known in a layout; fields, param. and frame. are"
            self.problems.add_caret(node, told, name.start, name.stop)
        else:
            self.used.add(".".join(name.parts))


def shown(node: Node) -> str:
    """A value as a message names it."""
    if node.is_map:
        return "a mapping"
    if node.is_list:
        return "a list"
    return f"'{node.raw}'"


def number(text: str) -> Fraction:
    """The exact number of a decimal or 0x text."""
    sign = -1 if text.startswith("-") else 1
    digits = text.lstrip("+-")
    return sign * Fraction(int(digits, 16)) if digits[:2] in ("0x", "0X") else Fraction(text)


def fraction(reader: Reader, node: Node | None, default: int) -> Fraction:
    """A number as the decimal that is written, or `"165/65536"`."""
    if node is None:
        return Fraction(default)
    if isinstance(node.value, int | float) and not isinstance(node.value, bool):
        return number(node.raw)
    match = _FRACTION.match(node.value) if isinstance(node.value, str) else None
    try:
        if match and Fraction(match.group(2)):
            return Fraction(match.group(1)) / Fraction(match.group(2))
    except ValueError:
        pass
    reader.error(node, f'a number or a fraction such as "165/65536" is expected, not {shown(node)}')
    return Fraction(default)


def parse_range(text: str) -> tuple[Fraction | None, Fraction | None] | None:
    """`a..b`, either end left out; None if it is no range text."""
    match = _RANGE.match(text)
    if match is None:
        return None
    try:
        low, high = (number(end) if end else None for end in match.groups())
    except ValueError:
        return None
    return low, high


def parse_test(reader: Reader, node: Node | None, *, length: bool = False) -> Ranges | None:
    """A scalar, a range text, or a list of them."""
    if node is None:
        return None
    if length and node.is_map:
        reader.keys(node, ("multiple", "plus"))
        multiple = reader.integer(node.get("multiple"), 1, 1, 65536)
        return Ranges([], [], multiple, reader.integer(node.get("plus"), 0, 0, 65536))
    found = Ranges([])
    for member in node if node.is_list else (node,):
        value = member.value
        if isinstance(value, bool):
            found.ranges.append((Fraction(int(value)), Fraction(int(value))))
        elif isinstance(value, int | float):
            exact = number(member.raw)
            found.ranges.append((exact, exact))
        elif isinstance(value, str):
            span = parse_range(value)
            if span is None:
                found.texts.append(value)
            elif span[0] is not None and span[1] is not None and span[0] > span[1]:
                reader.error(member, f"the range '{value}' is empty: its first end is above its second")
            else:
                found.ranges.append(span)
        else:
            reader.error(member, f"a number, a range text or a list of them is expected, not {shown(member)}")
    return found


def parse_map(reader: Reader, node: Node, *, exact: bool = False) -> Mapping | None:
    """`{code: value, else: value}`; with `exact`, values are numbers kept as written (select)."""
    if not node.is_map:
        reader.error(node, f"a mapping from codes to values is expected, not {shown(node)}")
        return None
    found = Mapping([], [])
    spans: list[tuple[Fraction | None, Fraction | None, Value]] = []
    for key, child in node.items():
        if child.is_map or child.is_list:
            reader.error(child, f"a text, a number, true, false or null is expected, not {shown(child)}")
            continue
        value: Value = child.value
        if exact and value is not None:
            value = str(fraction(reader, child, 1))
        if key == "else":
            found.otherwise, found.has_else = value, True
            continue
        code = scalar(key)
        if isinstance(code, bool):
            found.entries.append((Fraction(int(code)), Fraction(int(code)), value))
        elif isinstance(code, int | float):
            found.entries.append((number(key), number(key), value))
        elif (span := parse_range(key)) is not None:
            spans.append((*span, value))
        found.texts.append((key, value))
    found.entries.extend(spans)
    return found


def parse_type(reader: Reader, node: Node | None, order: int, size: bool) -> Type:
    """The type that `as:` names; u8 where there is none."""
    if node is None:
        return Type(UINT, 1, order)
    name = str(node.value)
    if match := _TYPE.match(name):
        sign, bits, words, suffix = match.groups()
        width = int(bits) // 8
        fits = (
            sign in "us" or (sign == "f" and width in (2, 4, 8)) or (sign == "sm" and width <= 4)
        ) and not (words and (width < 4 or width % 2))
        if fits:
            little = suffix == "le" or (suffix is None and order == LE)
            kind = {"u": UINT, "s": SINT, "f": FLOAT, "sm": SIGN_MAGNITUDE}[sign]
            return Type(kind, width, (WSLE if little else WS) if words else (LE if little else BE))
    if name in ("bcd", "bcdle", "bcdbe"):
        return Type(BCD, 0, {"le": LE, "be": BE}.get(name[3:], order))
    if name in ("ascii", "asciihex"):
        return Type(ASCII_NUMBER if name == "ascii" else ASCII_HEX, 0, order)
    if name == "bool":
        return Type(UINT, 1, order, as_bool=True)
    if name == "int":
        return Type(UINT, 1, order)
    reader.error(node, f"unknown type '{name}'{_other_name(str(name)) or nearest(name, ALL_TYPES)}")
    return Type(UINT, 1, order)


def parse_length(reader: Reader, node: Node, order: int, *, rest: bool = True, fields: bool = True) -> Length:
    """`n`, `rest`, an expression, or a field."""
    if node.value == "rest" and rest:
        return Length("rest")
    if fields and node.is_map:
        return Length("field", field=parse_field(reader, "", node, order))
    if isinstance(node.value, str):
        return Length("expr", expr=reader.expression(node))
    return Length("number", reader.integer(node, 1, 0))


def bit_range(reader: Reader, node: Node) -> tuple[int, int]:
    """`"7..4"` (or `"4..7"`, or one number) -> (lowest bit, width)."""
    if isinstance(node.value, int) and not isinstance(node.value, bool) and 0 <= node.value < 64:
        return node.value, 1
    span = parse_range(node.value) if isinstance(node.value, str) else None
    ends = [int(end) for end in span if end is not None] if span else []
    if len(ends) == 2 and min(ends) >= 0 and max(ends) < 64:
        return min(ends), abs(ends[0] - ends[1]) + 1
    reader.error(node, f'bits such as "7..4" are expected, not {shown(node)}')
    return 0, 1


def order_of(reader: Reader, node: Node | None, default: int) -> int:
    """`order: be | le`."""
    chosen = reader.choice(node, "le" if default == LE else "be", ("be", "le"))
    return LE if chosen == "le" else BE


def parse_field(
    reader: Reader, name: str, node: Node, order: int, *, keys: int = 0, extra: tuple[str, ...] = ()
) -> Field:
    """One field. keys: parts of the tlv key around it, 0 outside; extra: further keys that the
    caller reads (those of a time, of a bit stream)."""
    if node.value is None:
        node = Node({}, node.file, node.line, node.column, node.path)
    if not node.is_map:
        reader.error(node, f"a field is a mapping such as {{at: 2, as: s16, scale: 0.1}}, not {shown(node)}")
        node = Node({}, node.file, node.line, node.column, node.path)
    reader.keys(node, (*FIELD_KEYS, *extra))
    order = order_of(reader, node.get("order"), order)
    field_ = Field(name, node, parse_type(reader, node.get("as"), order, node.get("size") is not None))
    _parse_source(reader, field_, node, keys)
    _parse_container(reader, field_, node, order)
    _parse_values(reader, field_, node)
    field_.optional = reader.flag(node.get("optional"))
    if (condition := node.get("if")) is not None:
        field_.condition = reader.expression(condition)
    return field_


def _parse_source(reader: Reader, field_: Field, node: Node, keys: int) -> None:
    sources = [
        key
        for key in ("at", "key", "value", "pieces")
        if node.get(key) is not None or (key == "value" and "value" in node.keys)
    ]
    for clash in sources[1:]:
        reader.error(node, f"'{clash}' beside '{sources[0]}': a field comes from one place", clash)
    at = node.get("at")
    if (value := node.get("value")) is not None:
        field_.source = "value"
        if value.is_map or value.is_list:
            reader.error(value, "a constant is a number, a text, true, false or null")
        else:
            field_.value = value.value
    elif (key := node.get("key")) is not None:
        field_.source, field_.key = "key", reader.integer(key, 0, 0, 3)
        if not keys:
            reader.error(node, "only a field of a tlv item has a key", "key")
        elif field_.key >= keys:
            reader.error(key, f"the key has {keys} part{'s' * (keys > 1)}, counted from 0")
    elif (pieces := node.get("pieces")) is not None:
        field_.source = "pieces"
        for piece in pieces:
            parts = list(piece)
            if len(parts) != 2:
                reader.error(piece, 'a piece is [byte, "hi..lo"]')
                continue
            lowest, width = bit_range(reader, parts[1])
            if lowest + width > 8:
                reader.error(parts[1], "a piece lies in one byte: bits 7..0")
                lowest, width = 0, 8
            field_.pieces.append((reader.integer(parts[0], 0), lowest, width))
        if not field_.pieces or sum(width for _, _, width in field_.pieces) > 64:
            reader.error(pieces, 'one to 64 bits in pieces such as [[1, "7..0"], [2, "3..0"]] are expected')
            field_.pieces = field_.pieces[:1] or [(0, 0, 8)]
    elif at is not None:
        if at.value == "same":
            field_.source = "same"
        elif isinstance(at.value, str):
            field_.source, field_.at_expr = "expr", reader.expression(at)
        else:
            field_.source, field_.at = "at", reader.integer(at, 0)


def _parse_container(reader: Reader, field_: Field, node: Node, order: int) -> None:
    kind = node.get("as")
    if (text := node.get("text")) is not None:
        chosen = reader.choice(text, "hex", tuple(_TEXTS))
        field_.type = Type(_TEXTS[chosen], field_.type.size if kind is not None else 0, field_.type.order)
        if kind is None:
            field_.type.order = order
    if (size := node.get("size")) is not None:
        field_.size = parse_length(reader, size, order, fields=False)
        if field_.type.size and field_.type.kind < TEXT_HEX:
            reader.error(node, "only text, bcd, ascii and asciihex have a size; the type says it", "size")
            field_.size = None
        elif field_.type.size:
            field_.type.size = 0
    elif not field_.type.size:
        if field_.type.kind in (TEXT_HEX, TEXT_ASCII, TEXT_BCD, ASCII_NUMBER, ASCII_HEX):
            field_.size = Length("rest")
        else:
            field_.size = Length("number", 1)
    width = field_.type.size * 8
    field_.signed = reader.flag(node.get("signed"))
    if (bit := node.get("bit")) is not None:
        lowest = reader.integer(bit, 0, 0, 63)
        field_.bit = (lowest, 1)
        field_.is_bool = kind is None or kind.value != "int"
        if lowest >= width:
            reader.error(bit, f"a container of {field_.type.size} bytes has bits {width - 1}..0")
    elif (bits := node.get("bits")) is not None:
        field_.bit = bit_range(reader, bits)
        if sum(field_.bit) > width:
            reader.error(bits, f"a container of {field_.type.size} bytes has bits {width - 1}..0")
    elif field_.type.as_bool:
        field_.is_bool = True
    if field_.bit is not None and field_.type.kind not in (UINT, SINT):
        reader.error(node, "bits are taken out of an integer type such as u16", "as")
    if field_.bit is not None:
        field_.type = Type(UINT, field_.type.size, field_.type.order)


def _parse_values(reader: Reader, field_: Field, node: Node) -> None:
    field_.missing = parse_test(reader, node.get("missing"))
    if (valid := node.get("valid")) is not None:
        ends = list(valid)
        if len(ends) != 2:
            reader.error(valid, "[lowest, highest] is expected")
        else:
            low, high = (None if end.value is None else fraction(reader, end, 0) for end in ends)
            field_.valid = Ranges([(low, high)])
            if low is not None and high is not None and low > high:
                reader.error(valid, "the lowest is above the highest")
    scaled = node.get("scale") is not None or node.get("offset") is not None
    if (mapped := node.get("map")) is not None:
        field_.map = parse_map(reader, mapped)
        if scaled:
            reader.error(node, "with 'map' there is no scale and no offset", "map")
    elif scaled:
        factor = fraction(reader, node.get("scale"), 1)
        field_.scale = Scale(factor, fraction(reader, node.get("offset"), 0))
    if (clamp := node.get("clamp")) is not None:
        ends = list(clamp)
        if len(ends) != 2:
            reader.error(clamp, "[lowest, highest] is expected")
        else:
            low_, high_ = (None if end.value is None else float(fraction(reader, end, 0)) for end in ends)
            field_.clamp = (low_, high_)
    if (digits := node.get("round")) is not None:
        field_.round = reader.integer(digits, 0, -15, 15)


def _other_name(name: str) -> str:
    """The mend of a type that another language calls by another name (int16, uint32_t, float)."""
    found = re.fullmatch(r"(u?)int(8|16|24|32|40|48|56|64)(?:_t)?(le|be)?", name.lower())
    if found is not None:
        ours = ("u" if found[1] else "s") + found[2] + (found[3] or "")
    else:
        ours = {"byte": "u8", "char": "s8", "short": "s16", "float": "f32", "double": "f64"}.get(
            name.lower(), ""
        )
    return f"; did you mean '{ours}'?" if ours in ALL_TYPES else ""
