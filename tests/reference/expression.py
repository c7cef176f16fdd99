"""The expression language the plain way: one row, Python values, None = unknown.

An expression is a nested tuple; `text_of` writes it as a person would and `value_of` says what
it is worth. Written from FORMATS section 3; imports nothing of ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

Value = Any  # float, bool, str or None


def text_of(node: tuple[Any, ...]) -> str:
    kind = node[0]
    if kind == "number":
        return repr(node[1])
    if kind == "text":
        doubled = node[1].replace("'", "''")
        return f"'{doubled}'"
    if kind == "bool":
        return "true" if node[1] else "false"
    if kind == "null":
        return "null"
    if kind == "name":
        return f"{node[1]}"
    if kind == "duration":
        return f"{node[1]}ms"
    if kind == "minus":
        return f"-({text_of(node[1])})"
    if kind == "not":
        return f"not ({text_of(node[1])})"
    if kind in ("and", "or"):
        return f" {kind} ".join(f"({text_of(part)})" for part in node[1:])
    if kind == "call":
        return f"{node[1]}({', '.join(text_of(part) for part in node[2:])})"
    return f"({text_of(node[1])}) {kind} ({text_of(node[2])})"


def value_of(node: tuple[Any, ...], names: Mapping[str, Value]) -> Value:
    kind = node[0]
    if kind in ("number", "text", "bool"):
        return node[1]
    if kind == "null":
        return None
    if kind == "name":
        return names[node[1]]
    if kind in ("and", "or"):
        parts = [value_of(part, names) for part in node[1:]]
        deciding = kind == "or"
        if deciding in parts:
            return deciding
        return None if None in parts else not deciding
    if kind in ("==", "!=") and ("null",) in node[1:]:
        other = node[1] if node[2] == ("null",) else node[2]
        return (value_of(other, names) is None) == (kind == "==")
    if kind == "call" and node[1] == "if":
        test = value_of(node[2], names)
        return None if test is None else value_of(node[3] if test else node[4], names)
    if kind == "call" and node[1] == "default":
        first = value_of(node[2], names)
        return value_of(node[3], names) if first is None else first
    below = [value_of(part, names) for part in node[1:] if isinstance(part, tuple)]
    if any(value is None for value in below):
        return None
    if kind == "not":
        return not below[0]
    if kind in ("==", "!=") and isinstance(below[0], str):
        return (below[0] == below[1]) == (kind == "==")
    numbers = [float(value) for value in below]
    if kind in COMPARISONS:
        return COMPARISONS[kind](*numbers)
    try:
        result = -numbers[0] if kind == "minus" else operation(kind if kind != "call" else node[1], numbers)
    except (ArithmeticError, ValueError):
        return None
    return result if result is not None and math.isfinite(result) else None


COMPARISONS = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def operation(name: str, x: list[float]) -> float | None:
    if name == "+":
        return x[0] + x[1]
    if name == "-":
        return x[0] - x[1]
    if name == "*":
        return x[0] * x[1]
    if name == "/":
        return x[0] / x[1]
    if name == "%":
        return x[0] % x[1]
    if name in ("**", "pow"):
        return math.pow(x[0], x[1])
    if name == "abs":
        return abs(x[0])
    if name == "min":
        return min(x)
    if name == "max":
        return max(x)
    if name == "clamp":
        return min(max(x[0], x[1]), x[2])
    if name == "sqrt":
        return math.sqrt(x[0])
    if name == "exp":
        return math.exp(x[0])
    if name == "log":
        return math.log(x[0])
    if name == "log10":
        return math.log10(x[0])
    if name == "floor":
        return float(math.floor(x[0]))
    if name == "ceil":
        return float(math.ceil(x[0]))
    if name == "round":
        digits = int(x[1]) if len(x) > 1 else 0
        step = Decimal(1).scaleb(-digits)
        return float(Decimal(repr(x[0])).quantize(step, rounding=ROUND_HALF_UP))
    if any(not 0 <= value < 2**53 or value != int(value) for value in x):
        return None
    whole = [int(value) for value in x]
    if name == "bitand":
        return float(whole[0] & whole[1])
    if name == "bitor":
        return float(whole[0] | whole[1])
    if name == "bitxor":
        return float(whole[0] ^ whole[1])
    if name == "shl":
        shifted = whole[0] << min(whole[1], 60)
        return float(shifted) if shifted < 2**53 else None
    if name == "shr":
        return float(whole[0] >> min(whole[1], 60))
    assert name == "popcount"
    return float(bin(whole[0]).count("1"))
