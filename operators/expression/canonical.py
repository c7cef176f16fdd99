"""A tree as text again: one text for one meaning, whatever blanks, brackets and spellings it had."""

from __future__ import annotations

from collections.abc import Callable

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


def canonical_text(node: Expr, shown: Callable[[Name], str] | None = None) -> str:
    """The tree with every operation in brackets, `metrics.` left out and numbers in full precision;
    equal for equal trees and different for different ones. shown: how a name is written."""
    write = shown or _name

    def text(node: Expr) -> str:
        if isinstance(node, Number):
            return repr(node.value) + (f" [{node.unit}]" if node.unit else "")
        if isinstance(node, Text):
            return "'" + node.value.replace("'", "''") + "'"
        if isinstance(node, Bool):
            return "true" if node.value else "false"
        if isinstance(node, Null):
            return "null"
        if isinstance(node, Duration):
            return f"{node.months}mo" if node.months else f"{node.ns}ns"
        if isinstance(node, Name):
            return write(node)
        if isinstance(node, Unary):
            return f"(-{text(node.operand)})"
        if isinstance(node, Not):
            return f"(not {text(node.operand)})"
        if isinstance(node, Binary | Compare):
            return f"({text(node.left)} {node.op} {text(node.right)})"
        if isinstance(node, Logic):
            return "(" + f" {node.op} ".join(text(below) for below in node.operands) + ")"
        return _call(node)

    def _call(node: Call) -> str:
        arguments = ", ".join(text(argument) for argument in node.arguments)
        target = f"{write(node.target)}." if node.target is not None else ""
        return f"{target}{node.function}({arguments})"

    return text(node)


def _name(node: Name) -> str:
    quoted = ".".join(part if part.isidentifier() else f"`{part}`" for part in node.parts)
    return quoted if node.root in ("", "metrics") else f"{node.root}.{quoted}"
