"""The syntax tree of the expression language (FORMATS section 3).

Every node is frozen and knows `start` and `stop`, the characters (from 0, stop excluded) that it
came from. Equality and hash leave the place out, so that equal sub-expressions of different rules
are one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, TypeAlias

ROOTS: Final = ("metrics", "param", "device", "formula", "window", "frame", "alarm")
"""What may stand before a dot. `metrics.x` and `x` are the same."""


class ExpressionError(ValueError):
    """What is wrong with an expression, at characters start..stop of its text."""

    def __init__(self, message: str, start: int, stop: int) -> None:
        super().__init__(message)
        self.message = message
        self.start = start
        self.stop = stop


@dataclass(frozen=True, slots=True)
class Node:
    """A place in the text."""

    start: int = field(compare=False)
    stop: int = field(compare=False)


@dataclass(frozen=True, slots=True)
class Number(Node):
    """A number as written; `value` is the nearest double. unit: its UCUM unit; "" = none."""

    value: float
    text: str = field(compare=False)
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Text(Node):
    """A text in quotes."""

    value: str


@dataclass(frozen=True, slots=True)
class Bool(Node):
    """`true` or `false`."""

    value: bool


@dataclass(frozen=True, slots=True)
class Null(Node):
    """`null`: unknown."""


@dataclass(frozen=True, slots=True)
class Duration(Node):
    """A duration; it stands only where a function takes one. A month is `months`, not `ns`."""

    ns: int
    months: int
    text: str = field(compare=False)


@dataclass(frozen=True, slots=True)
class Name(Node):
    """A name. root: "" for a bare one, else one of ROOTS; parts: what follows the root.

    `tempC` is ("", ("tempC",)); `device.site_id` is ("device", ("site_id",)).
    """

    root: str
    parts: tuple[str, ...]
    text: str = field(compare=False)


@dataclass(frozen=True, slots=True)
class Unary(Node):
    """Minus."""

    operand: Expr


@dataclass(frozen=True, slots=True)
class Binary(Node):
    """Arithmetic of two."""

    op: Literal["+", "-", "*", "/", "%", "**"]
    left: Expr
    right: Expr


@dataclass(frozen=True, slots=True)
class Compare(Node):
    """A comparison of two."""

    op: Literal["==", "!=", "<", "<=", ">", ">="]
    left: Expr
    right: Expr


@dataclass(frozen=True, slots=True)
class Logic(Node):
    """`and` or `or` of two or more."""

    op: Literal["and", "or"]
    operands: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Not(Node):
    """`not`."""

    operand: Expr


@dataclass(frozen=True, slots=True)
class Call(Node):
    """A function of FUNCTIONS, its number of arguments checked; or, with a `target`, an
    aggregate of a window: ``window.`1m`.mean(tempC)``."""

    function: str
    arguments: tuple[Expr, ...]
    target: Name | None = None


Expr: TypeAlias = (
    Number | Text | Bool | Null | Duration | Name | Unary | Binary | Compare | Logic | Not | Call
)


class Function(NamedTuple):
    """How a function is called: least and most arguments; `span`: its last argument may
    (`optional`) or must (`always`) be a duration, over which it then runs; `temporal`: it looks
    at the device's own past."""

    least: int
    most: int
    span: Literal["never", "optional", "always"] = "never"
    temporal: bool = False


FUNCTIONS: Final[dict[str, Function]] = {
    "if": Function(3, 3),
    "abs": Function(1, 1),
    "min": Function(2, 32, "optional"),
    "max": Function(2, 32, "optional"),
    "clamp": Function(3, 3),
    "sqrt": Function(1, 1),
    "exp": Function(1, 1),
    "log": Function(1, 1),
    "log10": Function(1, 1),
    "pow": Function(2, 2),
    "floor": Function(1, 1),
    "ceil": Function(1, 1),
    "round": Function(1, 2),
    "default": Function(2, 2),
    "bitand": Function(2, 2),
    "bitor": Function(2, 2),
    "bitxor": Function(2, 2),
    "shl": Function(2, 2),
    "shr": Function(2, 2),
    "popcount": Function(1, 1),
    "rate": Function(1, 1, "never", True),
    "delta": Function(1, 1, "never", True),
    "prev": Function(1, 1, "never", True),
    "changed": Function(1, 1, "never", True),
    "since": Function(1, 1, "never", True),
    "held": Function(2, 2, "always", True),
    "avg": Function(2, 2, "always", True),
    "sum": Function(2, 2, "always", True),
    "std": Function(2, 2, "always", True),
    "count": Function(2, 2, "always", True),
}


def is_temporal(node: Expr) -> bool:
    """A call that looks at the past: a temporal function, or min and max over a duration."""
    if not isinstance(node, Call) or node.target is not None:
        return False
    function = FUNCTIONS[node.function]
    return function.temporal or isinstance(node.arguments[-1], Duration)


def children(node: Expr) -> tuple[Expr, ...]:
    """The nodes right below, in the order of the text."""
    if isinstance(node, Unary | Not):
        return (node.operand,)
    if isinstance(node, Binary | Compare):
        return (node.left, node.right)
    if isinstance(node, Logic):
        return node.operands
    if isinstance(node, Call):
        return node.arguments
    return ()


def walk(node: Expr) -> Iterator[Expr]:
    """The node and all below it, in the order of the text."""
    waiting: list[Expr] = [node]
    while waiting:
        current = waiting.pop()
        yield current
        waiting.extend(reversed(children(current)))
