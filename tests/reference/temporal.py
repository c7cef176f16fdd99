"""Functions over a device's own past the plain way: one device, one reading after another.

`Past` evaluates an expression of `tests.reference.expression`, which may hold the functions over
time as ("call", "rate", x), ("call", "held", c, ("duration", seconds_in_ms)) and so on. None is
unknown. Written from FORMATS section 3 and DESIGN section 6; imports nothing of ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tests.reference.expression import Value, text_of, value_of

OVER_TIME = ("rate", "delta", "prev", "changed", "since", "held")
OVER_DURATION = ("count", "sum", "avg", "min", "max", "std")


def is_past(node: tuple[Any, ...]) -> bool:
    return node[0] == "call" and (node[1] in OVER_TIME or node[-1][0] == "duration")


class Past:
    """What one device's readings so far have left behind."""

    def __init__(self, expressions: list[tuple[Any, ...]], max_samples: int = 4096) -> None:
        self.expressions = expressions
        self.max_samples = max_samples
        self.begin()

    def begin(self) -> None:
        """Everything begins anew."""
        self.seen: dict[str, list[Any]] = {}
        self.newest: int | None = None

    def read(self, ms: int, names: Mapping[str, Value], *, rebased: bool = False) -> list[Value]:
        """One reading at a time in milliseconds; the value of each expression there."""
        if rebased or (self.newest is not None and ms <= self.newest):
            self.begin()
        self.newest = ms
        self.now = ms
        self.done: dict[str, Value] = {}
        return [self.value(node, names) for node in self.expressions]

    def value(self, node: tuple[Any, ...], names: Mapping[str, Value]) -> Value:
        """Every function over time below is worked out, used or not, and its value put in place."""
        named = dict(names)

        def without_past(node: tuple[Any, ...]) -> tuple[Any, ...]:
            parts = tuple(without_past(part) if isinstance(part, tuple) else part for part in node)
            if not is_past(parts):
                return parts
            text = text_of(parts)
            if text not in self.done:
                self.done[text] = self.function(parts, value_of(parts[2], named), text)
            named[text] = self.done[text]
            return ("name", text)

        return value_of(without_past(node), named)

    def function(self, node: tuple[Any, ...], value: Value, text: str) -> Value:
        kind = node[1]
        state = self.seen.setdefault(text, [])
        if node[-1][0] == "duration" and kind != "held":
            known = None if value is None else 0.0 if isinstance(value, str) else float(value)
            return self.fold(kind, state, known, node[-1][1])
        if kind == "since":
            if value is True:
                state[:] = [self.now]
            return None if value is None or not state else (self.now - state[0]) / 1000.0
        if kind == "held":
            return self.held(state, value, node[-1][1])
        before = state[0] if state else None
        if value is not None:
            state[:] = [(value, self.now)]
        if kind == "prev":
            return before[0] if before else None
        if before is None or value is None:
            return None
        if kind == "changed":
            return value != before[0]
        change = finite(float(value) - float(before[0]))
        if kind == "delta" or change is None:
            return change
        return finite(change / ((self.now - before[1]) / 1000.0))

    def held(self, state: list[Any], value: Value, duration_ms: int) -> Value:
        """state: when it became true, and since when it has been unknown."""
        if value is None:
            if state and state[1] is None:
                state[1] = self.now
            return None
        if not value:
            state.clear()
            return False
        if not state:
            state[:] = [self.now, None]
        if state[1] is not None:
            state[:] = [state[0] + self.now - state[1], None]
        return bool(self.now - state[0] >= duration_ms)

    def fold(self, kind: str, samples: list[Any], value: float | None, duration_ms: int) -> Value:
        if value is not None:
            samples.append((self.now, value))
        samples[:] = [one for one in samples if one[0] > self.now - duration_ms]
        if len(samples) > self.max_samples:
            return None
        numbers = [one[1] for one in samples]
        if kind == "count":
            return float(len(numbers))
        if not numbers:
            return None
        if kind == "min":
            return min(numbers)
        if kind == "max":
            return max(numbers)
        total = left_to_right(numbers)
        if kind == "sum":
            return finite(total)
        mean = total / len(numbers)
        if kind == "avg":
            return finite(mean)
        squares = left_to_right([(number - mean) * (number - mean) for number in numbers])
        return finite(math.sqrt(squares / len(numbers))) if not math.isnan(squares) else None


def left_to_right(numbers: list[float]) -> float:
    total = numbers[0]
    for number in numbers[1:]:
        total = total + number
    return total


def finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
