"""What an expression can be, given what its metrics can be: for warnings at check time.

Plain interval arithmetic. Where it cannot tell, it says that everything is possible, so a
warning is never wrong about exact arithmetic; it says nothing about unknown values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, NamedTuple

from operators.expression.program import Scope
from operators.expression.tree import (
    Binary,
    Bool,
    Call,
    Compare,
    Expr,
    Logic,
    Name,
    Not,
    Number,
    Text,
    Unary,
    is_temporal,
)


class Interval(NamedTuple):
    """least..most, both included; infinite where unbounded."""

    least: float
    most: float


ANY: Final = Interval(-math.inf, math.inf)
Ranges = Mapping[str, tuple[float | None, float | None]]


def verdict(node: Expr, scope: Scope, ranges: Ranges) -> bool | None:
    """True: the condition always holds; False: never; None: it depends (or cannot be told)."""
    if isinstance(node, Bool):
        return node.value
    if isinstance(node, Not):
        inner = verdict(node.operand, scope, ranges)
        return None if inner is None else not inner
    if isinstance(node, Logic):
        parts = [verdict(below, scope, ranges) for below in node.operands]
        deciding = node.op == "or"
        if deciding in parts:
            return deciding
        return None if None in parts else not deciding
    if isinstance(node, Call) and node.function == "held":
        return False if verdict(node.arguments[0], scope, ranges) is False else None
    if isinstance(node, Compare) and node.op in ("==", "!="):
        same = _same(node, scope, ranges)
        return same if same is None or node.op == "==" else not same
    if isinstance(node, Compare):
        left, right = interval(node.left, scope, ranges), interval(node.right, scope, ranges)
        if node.op in (">", ">="):
            left, right = right, left
        strict = node.op in ("<", ">")
        if left.most < right.least or (not strict and left.most == right.least):
            return True
        if left.least > right.most or (strict and left.least == right.most):
            return False
    return None


def _same(node: Compare, scope: Scope, ranges: Ranges) -> bool | None:
    """False where the two sides can never be equal; None where they can be."""
    for name, text in ((node.left, node.right), (node.right, node.left)):
        if isinstance(name, Name) and isinstance(text, Text) and name.root in ("", "metrics"):
            allowed = scope.values.get(name.parts[0])
            return False if allowed is not None and text.value not in allowed else None
    left, right = interval(node.left, scope, ranges), interval(node.right, scope, ranges)
    return False if left.most < right.least or right.most < left.least else None


def interval(node: Expr, scope: Scope, ranges: Ranges) -> Interval:
    """The values that a number can take."""
    if isinstance(node, Number):
        return Interval(node.value, node.value)
    if isinstance(node, Name):
        return _name(node, scope, ranges)
    if isinstance(node, Unary):
        inner = interval(node.operand, scope, ranges)
        return Interval(-inner.most, -inner.least)
    if isinstance(node, Binary):
        left, right = interval(node.left, scope, ranges), interval(node.right, scope, ranges)
        if node.op == "+":
            return _known(left.least + right.least, left.most + right.most)
        if node.op == "-":
            return _known(left.least - right.most, left.most - right.least)
        if node.op == "*":
            corners = [a * b if a and b else 0.0 for a in left for b in right]
            return _known(min(corners), max(corners))
        return ANY
    if isinstance(node, Call) and node.target is None:
        return _past(node, scope, ranges) if is_temporal(node) else _call(node, scope, ranges)
    return ANY


def _past(node: Call, scope: Scope, ranges: Ranges) -> Interval:
    """A function over the device's past: what it looks at has been within its range all the time."""
    if node.function in ("since", "count"):
        return Interval(0.0, math.inf)
    inner = interval(node.arguments[0], scope, ranges)
    if node.function in ("prev", "avg", "min", "max"):
        return inner
    width = _known(inner.least - inner.most, inner.most - inner.least)
    if node.function == "delta":
        return width
    if node.function == "std":
        return Interval(0.0, width.most)
    if node.function == "sum":
        return Interval(0.0 if inner.least >= 0.0 else -math.inf, 0.0 if inner.most <= 0.0 else math.inf)
    return ANY


def _call(node: Call, scope: Scope, ranges: Ranges) -> Interval:
    parts = [interval(argument, scope, ranges) for argument in node.arguments]
    if node.function == "abs":
        inner = parts[0]
        least = 0.0 if inner.least <= 0.0 <= inner.most else min(abs(inner.least), abs(inner.most))
        return Interval(least, max(abs(inner.least), abs(inner.most)))
    if node.function == "min":
        return Interval(min(part.least for part in parts), min(part.most for part in parts))
    if node.function == "max":
        return Interval(max(part.least for part in parts), max(part.most for part in parts))
    if node.function == "clamp":
        low = Interval(max(parts[0].least, parts[1].least), max(parts[0].most, parts[1].most))
        return Interval(min(low.least, parts[2].least), min(low.most, parts[2].most))
    if node.function == "if":
        return Interval(min(parts[1].least, parts[2].least), max(parts[1].most, parts[2].most))
    if node.function == "sqrt":
        return Interval(0.0, math.inf)
    return ANY


def _name(node: Name, scope: Scope, ranges: Ranges) -> Interval:
    name = node.parts[0]
    if node.root in ("", "metrics"):
        if scope.metrics.get(name) == "boolean":
            return Interval(0.0, 1.0)
        least, most = ranges.get(name, (None, None))
        return Interval(-math.inf if least is None else least, math.inf if most is None else most)
    if node.root == "param":
        value = scope.params.get(name)
        if isinstance(value, float | int):
            return Interval(float(value), float(value))
    return ANY


def _known(least: float, most: float) -> Interval:
    return ANY if math.isnan(least) or math.isnan(most) else Interval(least, most)
