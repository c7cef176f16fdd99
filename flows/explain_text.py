"""Expressions as people write them, what kind of value they have, and their parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from operators.expression.canonical import canonical_text
from operators.expression.program import Scope
from operators.expression.tree import (
    Binary,
    Bool,
    Call,
    Compare,
    Duration,
    Expr,
    Logic,
    Name,
    Not,
    Null,
    Number,
    Text,
    Unary,
)

_CONDITIONS: Final = frozenset({"held", "changed"})


def kind_of(node: Expr, scope: Scope) -> str:
    """number, bool or text."""
    if isinstance(node, Compare | Logic | Not | Bool):
        return "bool"
    if isinstance(node, Text):
        return "text"
    if isinstance(node, Name):
        if node.root == "device" or (node.root == "param" and node.parts[0] in scope.text_params):
            return "text"
        kind = scope.metrics.get(node.parts[0]) if node.root in ("", "metrics") else None
        return {"boolean": "bool", "string": "text"}.get(kind or "", "number")
    if isinstance(node, Call):
        if node.function in _CONDITIONS:
            return "bool"
        if node.function in ("if", "default"):
            kinds = {kind_of(one, scope) for one in node.arguments[-2:] if not isinstance(one, Null)}
            return kinds.pop() if len(kinds) == 1 else "number"
        if node.function == "prev":
            return kind_of(node.arguments[0], scope)
    return "number"


def written(node: Expr) -> str:
    """The expression as a person would write it: brackets only where they are needed."""
    return _written(node, 0)


_BINDS: Final = {"+": 5, "-": 5, "*": 6, "/": 6, "%": 6, "**": 8}


def _written(node: Expr, outer: int) -> str:
    text, own = _parts(node)
    return f"({text})" if own < outer else text


def _parts(node: Expr) -> tuple[str, int]:
    """A node's text, and how strongly its operation binds."""
    if isinstance(node, Number):
        return node.text, 9
    if isinstance(node, Duration):
        return node.text, 9
    if isinstance(node, Logic):
        own = 1 if node.op == "or" else 2
        return f" {node.op} ".join(_written(one, own + 1) for one in node.operands), own
    if isinstance(node, Not):
        return f"not {_written(node.operand, 3)}", 3
    if isinstance(node, Compare):
        return f"{_written(node.left, 5)} {node.op} {_written(node.right, 5)}", 4
    if isinstance(node, Binary):
        own = _BINDS[node.op]
        return f"{_written(node.left, own)} {node.op} {_written(node.right, own + 1)}", own
    if isinstance(node, Unary):
        return f"-{_written(node.operand, 7)}", 7
    if isinstance(node, Call) and node.target is None:
        return f"{node.function}({', '.join(_written(one, 0) for one in node.arguments)})", 9
    return canonical_text(node), 9


def mapped(node: Expr, to: Callable[[Expr], Expr]) -> Expr:
    """The node with what stands right below it replaced."""
    if isinstance(node, Unary | Not):
        return replace(node, operand=to(node.operand))
    if isinstance(node, Binary | Compare):
        return replace(node, left=to(node.left), right=to(node.right))
    if isinstance(node, Logic):
        return replace(node, operands=tuple(map(to, node.operands)))
    if isinstance(node, Call):
        return replace(node, arguments=tuple(map(to, node.arguments)))
    return node
