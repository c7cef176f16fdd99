"""What a report's payload says by a rule of type reported: its expressions, one report at a time.

Names are paths in the payload (`data.on`, `data.list[0].x`). Reports are few, so plain Python walks
the tree; three-valued as everywhere: what is not there, null, an object or an array is unknown, and
so is a comparison of a text with a number. `true` is 1 and `false` is 0.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from operators.decode.json_spec import Path, parse_path
from operators.decode.reports import value_at
from operators.decode.spec import ReportSpec
from operators.expression.grammar import parse
from operators.expression.tree import (
    Binary,
    Bool,
    Compare,
    Expr,
    ExpressionError,
    Logic,
    Name,
    Not,
    Null,
    Number,
    Text,
    Unary,
    walk,
)
from rules.spec import ReportedRule, Rule

_TOKEN: Final = re.compile(r"""'[^']*'|"[^"]*"|`[^`]*`|(?P<path>[^\W\d]\w*(?:\.[^\W\d]\w*|\[\d+\])+)""")
_LARGEST: Final = 1.7976931348623157e308
_OPERATIONS: Final[dict[str, Callable[[float, float], Any]]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "%": operator.mod,
    "**": operator.pow,
}
Value = float | str | bool | None


def parse_raised(text: str) -> Expr:
    """The tree of `raised`, each path one bare name. Raises ExpressionError with places in `text`."""
    written = ""
    places: list[int] = []  # of each character of `written`, where it stands in `text`
    at = 0
    for match in _TOKEN.finditer(text):
        if match["path"] is None:
            continue
        written += text[at : match.start()] + f"`{match['path']}`"
        inside = range(match.start(), match.end())
        places += [*range(at, match.start()), match.start(), *inside, max(match.start(), match.end() - 1)]
        at = match.end()
    written += text[at:]
    places += [*range(at, len(text)), len(text)]
    try:
        tree = parse(written)
        for node in walk(tree):
            if isinstance(node, Name) and node.root:
                raise ExpressionError(f"'{node.text}' is no path of the payload", node.start, node.stop)
            if isinstance(node, Name) and isinstance(told := parse_path(node.parts[0]), str):
                raise ExpressionError(told, node.start, node.stop)
            if isinstance(node, Number) and node.unit:
                raise ExpressionError("a payload's numbers have no unit", node.start, node.stop)
            if not isinstance(node, _KNOWN):
                raise ExpressionError(
                    "`raised` compares what stands in the payload; functions have no place here",
                    node.start,
                    node.stop,
                )
        if not isinstance(tree, Compare | Logic | Not | Name | Bool):
            raise ExpressionError("is no condition", tree.start, tree.stop)
    except ExpressionError as error:
        last = len(places) - 1
        start, stop = places[min(error.start, last)], places[min(max(error.stop - 1, 0), last)] + 1
        raise ExpressionError(error.message, start, min(stop, len(text))) from error
    return tree


_KNOWN: Final = (Binary, Bool, Compare, Logic, Name, Not, Null, Number, Text, Unary)


def paths_of(tree: Expr) -> dict[str, Path]:
    """The paths that a tree names, as written."""
    found: dict[str, Path] = {}
    for node in walk(tree):
        if isinstance(node, Name):
            path = parse_path(node.parts[0])
            assert not isinstance(path, str)
            found[node.parts[0]] = path
    return found


def truth(tree: Expr, data: Any) -> bool | None:
    """What a condition says of a payload."""
    value = _value(tree, data)
    return value if isinstance(value, bool) else None if value is None else value == 1.0


def _value(node: Expr, data: Any) -> Value:
    if isinstance(node, Number | Text | Bool):
        return node.value
    if isinstance(node, Name):
        path = parse_path(node.parts[0])
        found = None if isinstance(path, str) else value_at(data, path)
        return found if isinstance(found, bool | str) else _finite(found)
    if isinstance(node, Not):
        known = truth(node.operand, data)
        return None if known is None else not known
    if isinstance(node, Logic):
        each = [truth(one, data) for one in node.operands]
        decides = node.op == "or"
        return decides if decides in each else None if None in each else not decides
    if isinstance(node, Compare):
        return _compare(node.op, _value(node.left, data), _value(node.right, data))
    if isinstance(node, Unary):
        only = _number(_value(node.operand, data))
        return None if only is None else -only
    if isinstance(node, Binary):
        return _calculate(node.op, _number(_value(node.left, data)), _number(_value(node.right, data)))
    return None


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and abs(value) <= _LARGEST else None


def _number(value: Value) -> float | None:
    return None if value is None or isinstance(value, str) else float(value)


def _compare(op: str, left: Value, right: Value) -> bool | None:
    if left is None or right is None or isinstance(left, str) is not isinstance(right, str):
        return None
    if isinstance(left, str) and op not in ("==", "!="):
        return None
    same, less = left == right, left < right  # type: ignore[operator]  # both texts or both numbers
    return {
        "==": same,
        "!=": not same,
        "<": less,
        "<=": less or same,
        ">": not less and not same,
        ">=": not less,
    }[op]


def _calculate(op: str, left: float | None, right: float | None) -> float | None:
    if left is None or right is None:
        return None
    try:
        return _finite(_OPERATIONS[op](left, right))
    except (ArithmeticError, ValueError):
        return None


def report_specs(rules: Iterable[Rule], max_future: Mapping[str, int]) -> dict[str, dict[str, ReportSpec]]:
    """Role -> productId -> what frames of that role must hold, for `RoutingSpec.reports`; max_future: of
    each product's contract."""
    found: dict[str, dict[str, ReportSpec]] = {}
    for rule in rules:
        if not isinstance(rule, ReportedRule):
            continue
        code = parse_path(rule.code)
        assert not isinstance(code, str)
        needs = (code, *paths_of(parse_raised(rule.raised)).values())
        for product in rule.products:
            of_role = found.setdefault(rule.role, {})
            before = of_role[product].needs if product in of_role else ()
            if product in max_future:
                of_role[product] = ReportSpec((*before, needs), max_future[product])
    return found
