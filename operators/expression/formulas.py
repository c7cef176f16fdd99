"""Formulas inside expressions: `formula.x` is the formula's tree put in its place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from operators.document import nearest
from operators.expression.tree import (
    Binary,
    Call,
    Compare,
    Expr,
    ExpressionError,
    Logic,
    Name,
    Not,
    Unary,
    walk,
)


def formulas_of(expression: Expr) -> tuple[str, ...]:
    """The formulas that an expression names, each once, in the order of the text."""
    found = {
        node.parts[0]: None for node in walk(expression) if isinstance(node, Name) and node.root == "formula"
    }
    return tuple(found)


def inlined(expression: Expr, formulas: Mapping[str, Expr], owner: str) -> Expr:
    """The expression with every formula's tree in its place, formulas of formulas too (they hold no
    cycle); all of such a tree stands where its name stood. owner: the product's name, for the
    message about an unknown formula (ExpressionError)."""
    if not any(isinstance(node, Name) and node.root == "formula" for node in walk(expression)):
        return expression
    return _Inlining(formulas, owner).put(expression, None)


_MOST_PARTS: Final = 8192
_HIGHEST: Final = 320


class _Inlining:
    def __init__(self, formulas: Mapping[str, Expr], owner: str) -> None:
        self.formulas = formulas
        self.owner = owner
        self.parts = 0

    def put(self, node: Expr, place: Name | None, height: int = 0) -> Expr:
        """The node rebuilt; place: the name that it stands for, if it comes from a formula."""
        self.parts += 1
        if self.parts > _MOST_PARTS or height > _HIGHEST:
            where = place or node
            raise ExpressionError(
                f"with its formulas this is too large; at most {_MOST_PARTS} parts and a chain of {_HIGHEST} "
                "are taken",
                where.start,
                where.stop,
            )
        below = height + 1
        if isinstance(node, Name) and node.root == "formula":
            tree = self.formulas.get(node.parts[0])
            where = place or node
            if tree is None:
                raise ExpressionError(
                    f"no formula '{node.parts[0]}' for {self.owner}{nearest(node.parts[0], self.formulas)}",
                    where.start,
                    where.stop,
                )
            return self.put(tree, where, below)
        if place is not None:
            node = replace(node, start=place.start, stop=place.stop)
        if isinstance(node, Unary | Not):
            return replace(node, operand=self.put(node.operand, place, below))
        if isinstance(node, Binary | Compare):
            return replace(
                node, left=self.put(node.left, place, below), right=self.put(node.right, place, below)
            )
        if isinstance(node, Logic):
            return replace(node, operands=tuple(self.put(one, place, below) for one in node.operands))
        if isinstance(node, Call):
            return replace(node, arguments=tuple(self.put(one, place, below) for one in node.arguments))
        return node
