"""Units through an expression: clashes are refused, units of literals are converted.

A metric has the unit that its product declares; a literal may have one (`350 K`). What has none (a
plain number, a parameter, a metric without a unit) fits anything, and a product with it has none
either: a coefficient carries whatever unit makes it fit, as in `100 - vibration * 10`. Two metrics
of one dimension and different units are not converted behind the user's back, but refused.

A difference of temperatures has no zero of its own: `delta(tempC) > 5 K` is 5 Cel, where
`tempC > 350 K` is 76.85 Cel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final, NamedTuple

from operators.expression.canonical import canonical_text
from operators.expression.tree import (
    Binary,
    Call,
    Compare,
    Duration,
    Expr,
    ExpressionError,
    Logic,
    Name,
    Not,
    Null,
    Number,
    Unary,
    walk,
)
from operators.expression.ucum import UnitError, unit_of

_SECOND: Final = "s"
_KEEPING: Final = frozenset(
    ("abs", "floor", "ceil", "round", "prev", "avg", "min", "max", "mean", "last", "p50", "p95", "p99")
)
"""Functions, and aggregates of windows, that give what they take."""


@dataclass(frozen=True, slots=True)
class Measure:
    """What a value is in: base = scale * number + offset; of a difference the scale alone counts."""

    text: str
    dimension: tuple[tuple[str, Fraction], ...]
    scale: Fraction
    offset: Fraction = Fraction(0)
    is_difference: bool = False

    @property
    def difference(self) -> Measure:
        return replace(self, offset=Fraction(0), is_difference=True)

    def same(self, other: Measure) -> bool:
        """Whether numbers of both can be set side by side; a difference fits its own unit."""
        if self.dimension != other.dimension or self.scale != other.scale:
            return False
        return self.offset == other.offset or self.is_difference or other.is_difference


class _Part(NamedTuple):
    """A node with what it is in (None: no unit); literal: a number that still can be converted."""

    node: Expr
    measure: Measure | None
    literal: bool = False


def has_literal_units(node: Expr) -> bool:
    """Whether a number of the expression has a unit."""
    return any(isinstance(below, Number) and below.unit for below in walk(node))


def in_units(node: Expr, units: Mapping[str, str]) -> Expr:
    """The expression with every literal in the unit of what it is set against, and without a unit;
    raises ExpressionError for a clash. units: metric -> UCUM unit."""
    return _fixed(_Algebra(units).visit(node)).node


def measure_of(text: str) -> Measure:
    """A UCUM unit as a measure; raises UnitError."""
    unit = unit_of(text)
    return Measure(text, unit.dimension, unit.scale, unit.offset)


class _Algebra:
    def __init__(self, units: Mapping[str, str]) -> None:
        self.units = units

    def visit(self, node: Expr) -> _Part:
        if isinstance(node, Number):
            return self.number(node)
        if isinstance(node, Name):
            return self.name(node)
        if isinstance(node, Unary):
            below = self.visit(node.operand)
            if below.literal and isinstance(below.node, Number):
                return below._replace(node=replace(below.node, value=-below.node.value, start=node.start))
            return _Part(replace(node, operand=below.node), below.measure)
        if isinstance(node, Binary):
            return self.arithmetic(node)
        if isinstance(node, Compare):
            nodes, _ = self.alike([self.visit(node.left), self.visit(node.right)], node)
            return _Part(replace(node, left=nodes[0], right=nodes[1]), None)
        if isinstance(node, Not):
            return _Part(replace(node, operand=self.fixed(node.operand).node), None)
        if isinstance(node, Logic):
            return _Part(replace(node, operands=tuple(self.fixed(one).node for one in node.operands)), None)
        if isinstance(node, Call):
            return self.call(node)
        return _Part(node, None)

    def fixed(self, node: Expr) -> _Part:
        return _fixed(self.visit(node))

    def number(self, node: Number) -> _Part:
        if not node.unit:
            return _Part(node, None)
        try:
            return _Part(node, measure_of(node.unit), literal=True)
        except UnitError as error:
            raise ExpressionError(str(error), node.start, node.stop) from None

    def name(self, node: Name) -> _Part:
        unit = self.units.get(node.parts[0]) if node.root in ("", "metrics") else None
        try:
            return _Part(node, measure_of(unit) if unit else None)
        except UnitError:  # told where the metric declares it
            return _Part(node, None)

    # -- values that stand side by side

    def alike(self, parts: Sequence[_Part], whole: Expr) -> tuple[list[Expr], Measure | None]:
        """The parts' nodes, each in one unit, and that unit."""
        target = next((part for part in parts if part.measure and not part.literal), None)
        if target is None:
            target = next((part for part in parts if part.literal), None)
            if target is None:
                return [part.node for part in parts], None
            for part in parts:
                if part.measure is None and not isinstance(part.node, Number | Null):
                    raise ExpressionError(
                        f"'{shown(part.node)}' has no unit that '{shown(target.node)}' could be converted "
                        "to; write the number alone",
                        whole.start,
                        whole.stop,
                    )
        assert target.measure is not None
        return [self.converted(part, target, whole) for part in parts], target.measure

    def converted(self, part: _Part, target: _Part, whole: Expr) -> Expr:
        there = target.measure
        if part.measure is None or there is None:
            return part.node
        if part.literal and isinstance(part.node, Number) and part.measure.dimension == there.dimension:
            return _number(part.node, part.measure, there)
        if not part.measure.same(there):
            raise _clash(target, part, whole)
        return part.node

    def arithmetic(self, node: Binary) -> _Part:
        if node.op in ("+", "-"):
            return self.sum(node)
        if node.op == "%":
            nodes, measure = self.alike([self.visit(node.left), self.visit(node.right)], node)
            return _Part(replace(node, left=nodes[0], right=nodes[1]), measure)
        left, right = self.fixed(node.left), self.fixed(node.right)
        found = replace(node, left=left.node, right=right.node)
        if node.op == "**":
            return _Part(found, _power(left.measure, right.node))
        return _Part(found, _product(left.measure, right.measure, node.op))

    def sum(self, node: Binary) -> _Part:
        """Plus and minus: of two temperatures the difference, of one and a difference another."""
        left, right = self.visit(node.left), self.visit(node.right)
        if left.measure and right.measure and left.literal != right.literal:
            self.unambiguous(node, *((left, right) if left.literal else (right, left)))
        nodes, measure = self.alike([left, right], node)
        found = replace(node, left=nodes[0], right=nodes[1])
        zeros = [side.measure is not None and side.measure.offset != 0 for side in (left, right)]
        if not any(zeros) or (zeros[0] and (right.literal or not zeros[1])):
            return _Part(found, left.measure if zeros[0] else measure)
        if node.op == "-" or not all(zeros):
            assert right.measure is not None
            return _Part(found, right.measure.difference if node.op == "-" else right.measure)
        return _Part(found, None)

    def unambiguous(self, node: Binary, literal: _Part, other: _Part) -> None:
        """`tempC + 5 K` may mean five degrees more, or the temperature 5 K: it is refused."""
        here, there = literal.measure, other.measure
        assert here is not None
        assert there is not None
        if not (here.offset or there.offset) or here.dimension != there.dimension:
            return
        if (here.scale, here.offset) != (there.scale, there.offset) and not there.is_difference:
            raise ExpressionError(
                f"'{shown(literal.node)}' may be a temperature or a difference of two here; write the number "
                f"alone, in {there.text}",
                node.start,
                node.stop,
            )

    # -- functions

    def call(self, node: Call) -> _Part:
        function, arguments = node.function, node.arguments
        spanned = bool(arguments) and isinstance(arguments[-1], Duration)
        if function in ("min", "max", "clamp", "default") and not spanned:
            nodes, measure = self.alike([self.visit(argument) for argument in arguments], node)
            return _Part(replace(node, arguments=tuple(nodes)), measure)
        if function == "if":
            test = self.fixed(arguments[0]).node
            nodes, measure = self.alike([self.visit(argument) for argument in arguments[1:]], node)
            return _Part(replace(node, arguments=(test, *nodes)), measure)
        parts = [self.fixed(argument) for argument in arguments]
        found = replace(node, arguments=tuple(part.node for part in parts))
        return _Part(found, _result(function, parts[0].measure, parts[-1].node))


def _result(function: str, inner: Measure | None, last: Expr) -> Measure | None:
    """What a function of one value is in."""
    if function == "since":
        return measure_of(_SECOND)
    if inner is None:
        return None
    if function in _KEEPING:
        return inner
    if function in ("delta", "std"):
        return inner.difference
    if function == "rate":
        return _product(inner, measure_of(_SECOND), "/")
    if function == "sum":
        return None if inner.offset else inner
    if function == "pow":
        return _power(inner, last)
    if function == "sqrt":
        return _raised(inner, Fraction(1, 2))
    return None


def _product(left: Measure | None, right: Measure | None, op: str) -> Measure | None:
    if left is None or right is None:
        return None
    sign = 1 if op == "*" else -1
    powers = dict(left.dimension)
    for name, power in right.dimension:
        powers[name] = powers.get(name, Fraction(0)) + sign * power
    scale = left.scale * right.scale if op == "*" else left.scale / right.scale
    dimension = tuple(sorted((name, power) for name, power in powers.items() if power))
    return Measure(f"{left.text}{'.' if op == '*' else '/'}{right.text}", dimension, scale)


def _power(base: Measure | None, exponent: Expr) -> Measure | None:
    if base is None or not isinstance(exponent, Number) or exponent.value not in range(1, 10):
        return None
    return _raised(base, Fraction(int(exponent.value)))


def _raised(base: Measure, power: Fraction) -> Measure | None:
    """None where the scale has no exact root."""
    raised: Fraction | float = base.scale**power
    scale = Fraction(raised).limit_denominator(10**12) if isinstance(raised, float) else raised
    if isinstance(raised, float) and scale ** (1 / power) != base.scale:
        return None
    return Measure(f"({base.text})**{power}", tuple((n, p * power) for n, p in base.dimension), scale)


def _fixed(part: _Part) -> _Part:
    """A part whose number stays as it is, its unit told by the measure alone."""
    if part.literal and isinstance(part.node, Number):
        return _Part(replace(part.node, unit=""), part.measure)
    return part


def _number(node: Number, here: Measure, there: Measure) -> Number:
    """The literal in the unit `there`: the double nearest to the exact value."""
    sign = -1 if node.value < 0 else 1
    exact = Fraction(int(node.text, 16)) if node.text[:2].lower() == "0x" else Fraction(node.text)
    base = sign * exact * here.scale
    if not there.is_difference:
        base += here.offset
    value = float((base - there.offset) / there.scale)
    return Number(node.start, node.stop, value, node.text)


def shown(node: Expr) -> str:
    """An expression in a message."""
    if isinstance(node, Number):
        return f"{'-' if node.value < 0 else ''}{node.text} {node.unit}".strip()
    text = canonical_text(node)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _clash(target: _Part, part: _Part, whole: Expr) -> ExpressionError:
    here, there = part.measure, target.measure
    assert here is not None
    assert there is not None
    told = f"'{shown(target.node)}' is in {there.text} and '{shown(part.node)}' in {here.text}"
    if here.dimension != there.dimension:
        return ExpressionError(f"{told}; these have no common unit", whole.start, whole.stop)
    factor, zero = here.scale / there.scale, (here.offset - there.offset) / there.scale
    mend = f"{shown(part.node)} * {float(factor):.12g}"
    if zero:
        mend += f" {'+' if zero > 0 else '-'} {abs(float(zero)):.12g}"
    return ExpressionError(f"{told}; write '{mend}' for the second", whole.start, whole.stop)
