"""Constants of a binary layout: ranges that values are tested against, and maps of values."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction

from operators.decode.binary_tree import Mapping, Ranges, Value
from operators.decode.evaluate import BOOL, INT, NULL, TEXT
from operators.decode.evaluate import FLOAT as KIND_FLOAT
from operators.decode.layout_tables import plain_number, whole_range
from operators.text import text_code


@dataclass(slots=True, eq=False)
class Values:
    """Rows of the tables of the same names; texts: code -> text."""

    ranges: list[tuple[int, int]] = field(default_factory=list)
    franges: list[tuple[float, float]] = field(default_factory=list)
    mi: list[tuple[int, int, int]] = field(default_factory=list)
    mf: list[tuple[float, float, float, float]] = field(default_factory=list)
    texts: dict[int, str] = field(default_factory=dict)

    def constant(self, value: Value) -> tuple[float, int]:
        """A value as a number and its kind (`operators.decode.evaluate`); a text by its code."""
        if value is None:
            return math.nan, NULL
        if isinstance(value, bool):
            return float(value), BOOL
        if isinstance(value, str):
            code = text_code(value)
            self.texts[code] = value
            return float(code), TEXT
        return float(value), INT if isinstance(value, int) else KIND_FLOAT

    def tested(self, test: Ranges | None, by_float: bool, bias: int, texts: bool) -> tuple[int, int]:
        """(first, count) of the rows of a test in `ranges`, or in `franges` by_float."""
        if test is None:
            return 0, 0
        if by_float:
            first = len(self.franges)
            if texts:
                self.franges.extend((float(text_code(text)),) * 2 for text in test.texts)
                self.franges.extend(
                    (float(text_code(plain_number(low))),) * 2
                    for low, high in test.ranges
                    if low == high and low is not None
                )
            else:
                for low, high in test.ranges:
                    self.franges.append(
                        (-math.inf if low is None else float(low), math.inf if high is None else float(high))
                    )
            return first, len(self.franges) - first
        first = len(self.ranges)
        for low, high in test.ranges:
            self.ranges.append(whole_range(low, high, bias))
        return first, len(self.ranges) - first

    def mapped(
        self, mapping: Mapping, bias: int, texts: bool, by_float: bool, exact: bool = False
    ) -> tuple[int, int, int]:
        """(first, count, else) of the rows of a map in `mi` and `mf`."""
        first = len(self.mi)
        if texts:
            for text, value in mapping.texts:
                self._row(float(text_code(text)), float(text_code(text)), 0, 0, value, exact)
        else:
            for low, high, value in mapping.entries:
                whole = whole_range(low, high, bias)
                ends = -math.inf if low is None else float(low), math.inf if high is None else float(high)
                self._row(*ends, *whole, value, exact)
        count = len(self.mi) - first
        otherwise = -1
        if mapping.has_else:
            otherwise = len(self.mi)
            self._row(0.0, 0.0, 0, 0, mapping.otherwise, exact)
        return first, count, otherwise

    def _row(self, flow: float, fhigh: float, low: int, high: int, value: Value, exact: bool) -> None:
        per = 1.0
        if exact and value is not None:
            ratio = Fraction(str(value))
            number, kind, per = float(ratio.numerator), KIND_FLOAT, float(ratio.denominator)
        else:
            number, kind = self.constant(value)
        self.mi.append((low, high, kind))
        self.mf.append((flow, fhigh, number, per))
