"""Expressions as trees of tuples, evaluated one reading at a time with three truth values, and written out
as the text that a rule file holds. Nothing of it is shared with the engine: it has no parser.

A tree: ("num", 5.0), ("text", "run"), ("metric", name), ("param", name), ("device", column),
("cmp", op, a, b), ("and", a, b), ("or", a, b), ("not", a), ("arith", op, a, b), ("call", name, a, ...),
("if", c, a, b), ("default", a, b), ("unknown?", a), ("formula", name, tree), and over the past
("past", function, x), ("past", function, x, duration).
None is unknown; truth is True, False or None. Durations are nanoseconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

Tree = tuple[Any, ...]
Lookup = Callable[[str, str], Any]


class Absent(Exception):
    """A name that the reading does not have; what is derived from it is absent too."""


def text_of(tree: Tree) -> str:
    """The tree as FORMATS section 3 writes it, with brackets around every part."""
    kind = tree[0]
    if kind == "num":
        return repr(tree[1])
    if kind == "text":
        return f"'{tree[1]}'"
    if kind == "metric":
        return str(tree[1])
    if kind in ("param", "device", "formula"):
        return f"{kind}.{tree[1]}"
    if kind == "past":
        last = f", {tree[3] // 1_000_000}ms" if len(tree) > 3 else ""
        return f"{tree[1]}({text_of(tree[2])}{last})"
    if kind in ("cmp", "arith"):
        return f"{_part(tree[2])} {tree[1]} {_part(tree[3])}"
    if kind in ("and", "or"):
        return f" {kind} ".join(_part(each) for each in tree[1:])
    if kind == "not":
        return f"not {_part(tree[1])}"
    if kind == "unknown?":
        return f"{tree[1][1]} == null"
    name, parts = (tree[1], tree[2:]) if kind == "call" else (kind, tree[1:])
    return f"{name}({', '.join(text_of(each) for each in parts)})"


def _part(tree: Tree) -> str:
    return (
        f"({text_of(tree)})" if tree[0] in ("cmp", "arith", "and", "or", "not", "unknown?") else text_of(tree)
    )


def metrics_of(tree: Tree) -> Iterator[str]:
    """Metrics in the order in which they stand."""
    if tree[:1] == ("metric",):
        yield tree[1]
    for part in tree[1:]:
        if isinstance(part, tuple):
            yield from metrics_of(part)


def moved(tree: Tree, by: float, inside_not: bool = False) -> Tree:
    """The condition with the bounds of its comparisons moved outwards by a deadband."""
    kind = tree[0]
    if kind == "cmp" and tree[1] in ("<", "<=", ">", ">="):
        down = (tree[1] in (">", ">=")) != inside_not
        return ("cmp", tree[1], tree[2], ("arith", "-" if down else "+", tree[3], ("num", by)))
    if kind in ("and", "or"):
        return (kind, *(moved(each, by, inside_not) for each in tree[1:]))
    if kind == "not":
        return ("not", moved(tree[1], by, not inside_not))
    if kind == "formula":
        return moved(tree[2], by, inside_not)
    return tree


def pasts_of(tree: Tree) -> Iterator[Tree]:
    """Functions over the past, those inside before those around them."""
    for part in tree[1:]:
        if isinstance(part, tuple):
            yield from pasts_of(part)
    if tree[0] == "past":
        yield tree


def value_of(tree: Tree, look: Lookup) -> Any:
    """The value under `look(kind, name)`, which answers None for what is unknown."""
    kind = tree[0]
    if kind in ("num", "text"):
        return tree[1]
    if kind in ("metric", "param", "device"):
        return look(kind, tree[1])
    if kind == "past":
        return look(kind, text_of(tree))
    if kind == "formula":
        return value_of(tree[2], look)
    if kind == "cmp":
        return _compare(tree[1], value_of(tree[2], look), value_of(tree[3], look))
    if kind == "and":
        parts = [value_of(each, look) for each in tree[1:]]
        return False if False in parts else None if None in parts else True
    if kind == "or":
        parts = [value_of(each, look) for each in tree[1:]]
        return True if True in parts else None if None in parts else False
    if kind == "not":
        part = value_of(tree[1], look)
        return None if part is None else not part
    if kind == "unknown?":
        return value_of(tree[1], look) is None
    if kind == "if":
        chosen = value_of(tree[1], look)
        return None if chosen is None else value_of(tree[2] if chosen else tree[3], look)
    if kind == "default":
        try:
            first = value_of(tree[1], look)
        except Absent:
            first = None
        return value_of(tree[2], look) if first is None else first
    if kind == "arith":
        return _arithmetic(tree[1], value_of(tree[2], look), value_of(tree[3], look))
    return _call(tree[1], [value_of(each, look) for each in tree[2:]])


def _compare(op: str, a: Any, b: Any) -> bool | None:
    if a is None or b is None:
        return None
    results = {"==": a == b, "!=": a != b}
    if op in results:
        return bool(results[op])
    return bool({"<": a < b, "<=": a <= b, ">": a > b, ">=": a >= b}[op])


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _arithmetic(op: str, a: Any, b: Any) -> float | None:
    if a is None or b is None:
        return None
    a, b = float(a), float(b)
    if op == "/":
        return _finite(a / b) if b else None
    return _finite({"+": a + b, "-": a - b, "*": a * b}[op])


def _call(name: str, parts: list[Any]) -> float | None:
    if any(part is None for part in parts):
        return None
    numbers = [float(part) for part in parts]
    if name == "abs":
        return abs(numbers[0])
    if name == "min":
        return min(numbers)
    if name == "max":
        return max(numbers)
    if name == "sqrt":
        return math.sqrt(numbers[0]) if numbers[0] >= 0 else None
    if name == "clamp":
        return min(max(numbers[0], numbers[1]), numbers[2])
    raise ValueError(name)


class Past:
    """What the readings of one device so far left for the functions over the past."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """The past begins anew."""
        self.kept: dict[str, Any] = {}
        self.newest: int | None = None

    def reading(self, ts: int, stepped: bool, trees: list[Tree], look: Lookup) -> dict[str, Any]:
        """The value of every function over the past at a reading, by its text."""
        if stepped or (self.newest is not None and ts <= self.newest):
            self.begin()
        self.newest = ts
        found: dict[str, Any] = {}

        def inner(kind: str, name: str) -> Any:
            return found[name] if kind == "past" else look(kind, name)

        for tree in trees:
            for node in pasts_of(tree):
                text = text_of(node)
                if text not in found:
                    value = value_of(node[2], inner)
                    found[text] = self.function(node, text, value, ts)
        return found

    def function(self, node: Tree, text: str, value: Any, ts: int) -> Any:
        name = node[1]
        if name == "held":
            return self.held(text, value, ts, node[3])
        if len(node) > 3:
            return self.fold(text, name, value, ts, node[3])
        kept = self.kept.get(text)
        if name == "since":
            if value is True:
                self.kept[text] = kept = ts
            return None if value is None or kept is None else (ts - kept) / 1e9
        if value is not None:
            self.kept[text] = (value, ts)
        if name == "prev":
            return None if kept is None else kept[0]
        if kept is None or value is None:
            return None
        if name == "changed":
            return bool(value != kept[0])
        change = _finite(float(value) - float(kept[0]))
        if name == "delta" or change is None:
            return change
        return _finite(change / ((ts - kept[1]) / 1e9))

    def held(self, text: str, value: Any, ts: int, duration: int) -> bool | None:
        """Kept: since when, how long it stood still, and since when it does."""
        kept = self.kept.get(text)
        if value is None:
            if kept is not None and kept[2] is None:
                kept[2] = ts
            return None
        if value is False:
            self.kept.pop(text, None)
            return False
        if kept is None:
            kept = self.kept[text] = [ts, 0, None]
        if kept[2] is not None:
            kept[1] += ts - kept[2]
            kept[2] = None
        return bool(ts - kept[0] - kept[1] >= duration)

    def fold(self, text: str, name: str, value: Any, ts: int, duration: int) -> float | None:
        kept: list[tuple[int, float]] = self.kept.setdefault(text, [])
        if value is not None:
            kept.append((ts, float(value)))
        kept[:] = [each for each in kept if each[0] > ts - duration]
        values = [each[1] for each in kept]
        if name == "count":
            return float(len(values))
        if not values:
            return None
        if name in ("min", "max"):
            return min(values) if name == "min" else max(values)
        total = 0.0
        for each in values:
            total += each
        if name == "sum":
            return _finite(total)
        mean = total / len(values)
        if name == "avg":
            return _finite(mean)
        squares = 0.0
        for each in values:
            squares += (each - mean) * (each - mean)
        return _finite(math.sqrt(squares / len(values)))
