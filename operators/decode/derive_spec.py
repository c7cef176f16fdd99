"""`derive:` of JSON and CSV products: expressions over what was decoded, read and checked."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from operators.contract.spec import Metric
from operators.document import Node, Problems, nearest
from operators.expression.grammar import parse
from operators.expression.tree import Call, Expr, ExpressionError, Name, Number, is_temporal, walk


class Derived(NamedTuple):
    """One line of `derive:`; `name` is a metric or an internal `_x`."""

    name: str
    expression: Expr


def parse_derive(
    node: Node | None,
    metrics: Mapping[str, Metric],
    params: Mapping[str, float | str],
    internals: Collection[str],
    problems: Problems,
) -> tuple[Derived, ...]:
    """The lines of a `derive:` mapping, in the order of the file; a later one sees earlier ones.

    internals: the `_x` columns that decoding gives. A name may be a declared metric, an internal,
    or `param.x` of a numeric parameter; nothing looks at the past.
    """
    if node is None or node.value is None:
        return ()
    if not node.is_map:
        problems.add(node, 'a mapping is expected, e.g. derive: {tempC: "(_tempF - 32) * 5 / 9"}')
        return ()
    found: list[Derived] = []
    known = {*metrics, *internals}
    for name, child in node.items():
        if not name.startswith("_") and name not in metrics:
            problems.add(node, f"no metric '{name}'{nearest(name, metrics)}", key=name)
        text = child.raw if not isinstance(child.value, str) else child.value
        if child.is_map or child.is_list:
            problems.add(child, "an expression is expected")
            continue
        try:
            expression = parse(text)
        except ExpressionError as error:
            problems.add_caret(child, error.message, error.start, error.stop)
            continue
        for start, stop, why in _wrong(expression, known, params):
            problems.add_caret(child, why, start, stop)
        known.add(name)
        found.append(Derived(name, expression))
    return tuple(found)


def _wrong(
    expression: Expr, known: Collection[str], params: Mapping[str, float | str]
) -> Iterator[tuple[int, int, str]]:
    for part in walk(expression):
        if isinstance(part, Call) and (is_temporal(part) or part.target is not None):
            yield part.start, part.stop, "a derived value sees one reading alone, not the past"
        if isinstance(part, Number) and part.unit:
            yield (
                part.start,
                part.stop,
                f"derive converts no units; write the number alone, without '{part.unit}'",
            )
        if not isinstance(part, Name):
            continue
        name = ".".join(part.parts)
        if part.root in ("", "metrics"):
            if name not in known:
                yield part.start, part.stop, f"no metric '{name}' here{nearest(name, known)}"
        elif part.root == "param":
            if not isinstance(params.get(name), int | float):
                yield part.start, part.stop, f"no numeric parameter '{name}'{nearest(name, params)}"
        else:
            yield part.start, part.stop, f"'{part.root}.' has no place in derive"
