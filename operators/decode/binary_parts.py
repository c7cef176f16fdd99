"""Reading the parts of a fragment that hold no fragments: bit streams, times, checks, selects, and
the keys of tlv items."""

from __future__ import annotations

import datetime
import re
from fractions import Fraction
from typing import Final

from operators.decode.binary_fields import (
    Reader,
    fraction,
    order_of,
    parse_field,
    parse_length,
    parse_map,
    parse_range,
    parse_type,
    shown,
)
from operators.decode.binary_tree import (
    BE,
    UINT,
    BitEntry,
    BitRepeat,
    Bits,
    BitSkip,
    Check,
    Length,
    Select,
    Time,
    Type,
)
from operators.document import Node, nearest

_TOKEN = re.compile(r"[0-9A-Fa-f?]+\Z")
CHECKS: Final = ("crc8", "crc16", "crc32", "sum8", "sum16", "xor8")
UNITS: Final = {
    "s": 10**9,
    "ms": 10**6,
    "us": 10**3,
    "ns": 1,
    "min": 60 * 10**9,
    "h": 3600 * 10**9,
    "d": 86400 * 10**9,
}
TIME_KEYS: Final = ("epoch", "unit", "wrap", "ago", "relative", "step", "first")


def parse_select(reader: Reader, name: str, node: Node, prefix: str) -> Select:
    """One choice of `select:`."""
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


def parse_bits(reader: Reader, node: Node, order: int, prefix: str) -> Bits:
    """A stream of bits."""
    reader.keys(node, ("from", "order", "list"))
    start = node.get("from")
    lsb = reader.choice(node.get("order"), "msb", ("msb", "lsb")) == "lsb"
    entries = _bit_list(reader, node, prefix, 0)
    return Bits(None if start is None else reader.integer(start, 0), lsb, entries, node)


def _bit_list(reader: Reader, node: Node, prefix: str, depth: int) -> list[BitEntry]:
    listed = node.get("list")
    if listed is None or not listed.is_list or depth > 3:
        reader.error(node, "'list' is missing: entries such as {name: width}")
        return []
    return [_bit_entry(reader, entry, prefix, depth) for entry in listed]


def _bit_entry(reader: Reader, node: Node, prefix: str, depth: int) -> BitEntry:
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
        return BitRepeat(length, _bit_list(reader, node, prefix, depth + 1), node)
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


def parse_time(reader: Reader, node: Node, order: int, keys: int) -> Time | None:
    """`time:` of a fragment; None if it is no mapping. keys: parts of the tlv key around it."""
    if not node.is_map:
        reader.error(node, "a time is a mapping such as {at: 0, as: u32, epoch: 1970}")
        return None
    unit = reader.choice(node.get("unit"), "s", tuple(UNITS))
    epoch = _epoch(reader, node.get("epoch"))
    if (ago := node.get("ago")) is not None:
        reader.keys(node, ("ago", "unit"))
        return Time("ago", parse_field(reader, "", ago, order, keys=keys), UNITS[unit], 0, node=node)
    if (relative := node.get("relative")) is not None:
        reader.keys(node, ("relative", "step", "first", "unit"))
        found = Time("relative", None, UNITS[unit], 0, node=node)
        if relative.is_map:
            found.field = parse_field(reader, "", relative, order, keys=keys, extra=("epoch", "unit"))
            found.epoch_ns = _epoch(reader, relative.get("epoch"))
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


def _epoch(reader: Reader, node: Node | None) -> int:
    """Nanoseconds from 1970 to the start of a year, or to a day "YYYY-MM-DD", in UTC."""
    if node is None:
        return 0
    try:
        if isinstance(node.value, int) and not isinstance(node.value, bool):
            day = datetime.date(node.value, 1, 1)
        else:
            day = datetime.date.fromisoformat(str(node.value))
    except ValueError:
        reader.error(node, f'a year or a day such as "2000-01-01" is expected, not {shown(node)}')
        return 0
    if not 1700 <= day.year <= 2200:
        reader.error(node, f"the year {day.year} is not between 1700 and 2200")
        return 0
    return (day - datetime.date(1970, 1, 1)).days * 86400 * 10**9


def parse_checks(reader: Reader, node: Node, order: int) -> list[Check]:
    """The checks of one `check:` mapping."""
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


def key_pattern(token: str, bits: int) -> tuple[tuple[int, int, int, int], int] | None:
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
