"""Small steps from a binary layout's tree to tables: ranges, scales, CRC tables, hashes, arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields as dataclass_fields
from dataclasses import is_dataclass
from fractions import Fraction
from typing import Any, Final

import numpy as np

from operators.batch import Float64, Int64
from operators.decode.binary_tree import BitEntry, BitRepeat, BitSkip, Field
from operators.decode.exact import EXACT
from operators.document import Node
from operators.expression.tree import Expr
from operators.expression.tree import Node as ExprNode

_BITS64: Final = (1 << 64) - 1
_HIGHEST: Final = (1 << 63) - 1
_LOWEST: Final = -(1 << 63)


def trees_of(value: Any) -> list[Expr]:
    """Every expression inside a part of a layout."""
    found: list[Expr] = []
    waiting = [value]
    while waiting:
        current = waiting.pop()
        if isinstance(current, ExprNode):
            found.append(current)  # type: ignore[arg-type]  # every node of a tree is an Expr
        elif isinstance(current, list | tuple):
            waiting.extend(current)
        elif is_dataclass(current) and not isinstance(current, Node):
            waiting.extend(getattr(current, one.name) for one in dataclass_fields(current))
    return found


def plain_number(value: Fraction) -> str:
    return str(value.numerator) if value.denominator == 1 else str(float(value))


def least_width(entries: list[BitEntry]) -> int:
    """Bits that one turn of a repeated list takes at least."""
    total = 0
    for entry in entries:
        if isinstance(entry, BitSkip):
            total += entry.width
        elif isinstance(entry, Field) and entry.condition is None and not entry.optional:
            total += entry.bit[1] if entry.bit is not None else 0
        elif isinstance(entry, BitRepeat) and entry.count.kind == "number":
            total += entry.count.number * least_width(entry.list)
    return total


def whole_range(low: Fraction | None, high: Fraction | None, bias: int) -> tuple[int, int]:
    """The whole numbers of a range, moved down by `bias`, as int64; an empty range is (1, 0)."""
    first = _LOWEST if low is None else math.ceil(low) - bias
    last = _HIGHEST if high is None else math.floor(high) - bias
    if first > last or first > _HIGHEST or last < _LOWEST:
        return 1, 0
    return max(first, _LOWEST), min(last, _HIGHEST)


def _split(value: Fraction) -> tuple[float, float]:
    high = float(value)
    return high, float(value - Fraction(high))


def scale_parts(factor: Fraction, shift: Fraction) -> list[float]:
    """(a_high, a_low, b_high, b_low, d): value * factor + shift = (value * a + b) / d."""
    d = math.lcm(factor.denominator, shift.denominator)
    a, b = factor * d, shift * d
    if max(abs(a), abs(b), Fraction(d)) < Fraction(EXACT):
        return [float(a), 0.0, float(b), 0.0, float(d)]
    return [*_split(factor), *_split(shift), 1.0]


def reflected(value: int, width: int) -> int:
    return int(f"{value:0{width}b}"[::-1], 2)


def crc_table(width: int, poly: int, reflect: bool) -> list[int]:
    """The 256 entries of a CRC of a polynomial in normal form."""
    table = []
    top = 1 << (width - 1)
    mask = (1 << width) - 1
    turned = reflected(poly, width)
    for byte in range(256):
        crc = byte if reflect else byte << (width - 8)
        for _ in range(8):
            if reflect:
                crc = (crc >> 1) ^ turned if crc & 1 else crc >> 1
            else:
                crc = ((crc << 1) ^ poly if crc & top else crc << 1) & mask
        table.append(crc)
    return table


def _signed(value: int) -> int:
    value &= _BITS64
    return value - (1 << 64) if value >> 63 else value


def name_hash(kind: int, *numbers: int) -> int:
    """As `binary_kernels.find_name`, in wrapping 64-bit arithmetic."""
    h = kind * 31 + numbers[0]
    for n in numbers[1:]:
        h = h * 1000003 + n
    h = _signed(h)
    return _signed(h ^ (h >> 15))


def int_table(rows: Sequence[Sequence[int]], width: int) -> Int64:
    return np.ascontiguousarray(np.array(rows or [[0] * width], np.int64).reshape(-1, width))


def float_table(rows: Sequence[Sequence[float]], width: int) -> Float64:
    return np.ascontiguousarray(np.array(rows or [[0.0] * width], np.float64).reshape(-1, width))
