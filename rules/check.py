"""What can be wrong with a rule, and the program that it becomes."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Final, NamedTuple

from operators.document import nearest
from operators.expression.grammar import parse
from operators.expression.program import Scope, check_condition, metrics_of
from operators.expression.ranges import verdict
from operators.expression.tree import (
    Binary,
    Compare,
    Expr,
    ExpressionError,
    Logic,
    Not,
    Number,
)
from rules.message import Template, parse_message
from rules.spec import Rule, RuleProduct

DEVICE_WORDS: Final = ("device_id", "productId", "hub_id")
"""Attributes that every device has, in devices.csv or not."""


class RuleProblem(NamedTuple):
    """One thing wrong with a rule: its key, and characters start..stop of that key's text
    (both -1 where the whole key is meant)."""

    field: str
    text: str
    start: int = -1
    stop: int = -1
    warning: bool = False


class NoDeadband(ExpressionError):
    """A deadband on a condition that has no order to shift."""


def number_of(cell: str) -> float | None:
    """The finite number in a cell of devices.csv; None where there is none."""
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def samples_of(attributes: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    """Two rows that say of every column of devices.csv whether any cell is filled and whether any
    is a number: all that a scope asks, whatever the number of devices."""
    filled: dict[str, str] = {}
    numeric: dict[str, str] = {}
    for row in attributes.values():
        for name, cell in row.items():
            if name not in filled or (not filled[name] and cell):
                filled[name] = cell
            if cell and name not in numeric and number_of(cell) is not None:
                numeric[name] = cell
    return {"filled": filled, "numeric": numeric}


def scope_of(
    product: RuleProduct, columns: Collection[str], attributes: Mapping[str, Mapping[str, str]]
) -> Scope:
    """The names that a rule of the product may use.

    A parameter that no device overrides is a constant; a column of devices.csv in which a number
    stands is a parameter too.
    """
    params: dict[str, float | str | None] = {}
    for name, value in product.params.items():
        overridden = name in columns and any(row.get(name) for row in attributes.values())
        params[name] = None if overridden else value
    for name in columns:
        if name not in params and any(
            number_of(row.get(name, "")) is not None for row in attributes.values()
        ):
            params[name] = None
    texts = {name for name, value in product.params.items() if isinstance(value, str)}
    return Scope(product.productId, product.metrics, params, texts, {*columns, *DEVICE_WORDS})


def clear_of(rule: Rule, condition: Expr) -> Expr | None:
    """The rule's clear condition; None where it is simply `not condition`.

    With a deadband d it is `not condition` with every bound moved by d: `x > c` clears where
    `not (x > c - d)`, `x < c` where `not (x < c + d)`. Raises NoDeadband where nothing in the
    condition has such a bound.
    """
    if rule.clear_condition is not None:
        return parse(rule.clear_condition)
    if not rule.deadband:
        return None
    shifted = _shifted(condition, rule.deadband)
    if shifted == condition:
        raise NoDeadband(
            "a deadband needs a comparison with <, <=, > or >= in the condition, outside of functions",
            condition.start,
            condition.stop,
        )
    return Not(condition.start, condition.stop, shifted)


def _shifted(node: Expr, by: float) -> Expr:
    """The condition with its bounds moved so that it stays true for `by` longer."""
    if isinstance(node, Logic):
        return Logic(node.start, node.stop, node.op, tuple(_shifted(below, by) for below in node.operands))
    if isinstance(node, Not):
        return Not(node.start, node.stop, _shifted(node.operand, -by))
    if isinstance(node, Compare) and node.op not in ("==", "!="):
        amount = Number(node.right.start, node.right.stop, abs(by), repr(abs(by)))
        down = (node.op in (">", ">=")) == (by > 0)
        bound = Binary(node.right.start, node.right.stop, "-" if down else "+", node.right, amount)
        return Compare(node.start, node.stop, node.op, node.left, bound)
    return node


def check_rule(
    rule: Rule,
    products: Mapping[str, RuleProduct],
    columns: Collection[str] = (),
    attributes: Mapping[str, Mapping[str, str]] | None = None,
    ranges: Mapping[str, Mapping[str, tuple[float | None, float | None]]] | None = None,
) -> list[RuleProblem]:
    """All that is wrong with a rule, [] if it can run.

    columns, attributes: the header and the rows of devices.csv. ranges: product -> metric ->
    its contract's range, for warnings about conditions that never or always hold; only metrics
    whose values outside of it are rejected, clamped or marked bad belong in it.
    """
    found = [
        RuleProblem("productId", f"no product '{name}'{nearest(name, products)}")
        for name in rule.products
        if name not in products
    ]
    if not rule.products:
        found.append(RuleProblem("productId", "names no product"))
    if rule.severity == "info" and rule.acknowledge == "required":
        found.append(
            RuleProblem("acknowledge", "an info rule is an event and never acknowledged; leave it out")
        )
    if rule.clear_condition is not None and rule.deadband:
        found.append(RuleProblem("deadband", "clear_condition says already when it clears; leave one out"))
    if rule.deadband is not None and not 0 <= rule.deadband < float("inf"):
        found.append(RuleProblem("deadband", "must be 0 or more"))
    trees: dict[str, Expr] = {}
    for key, text in (("condition", rule.condition), ("clear_condition", rule.clear_condition)):
        if text is None:
            continue
        try:
            trees[key] = parse(text)
        except ExpressionError as error:
            found.append(RuleProblem(key, error.message, error.start, error.stop))
    if "condition" in trees:
        if not metrics_of(trees.values()):
            found.append(
                RuleProblem(
                    "condition", "names no metric, so no reading evaluates it", 0, len(rule.condition)
                )
            )
        try:
            if rule.clear_condition is None:
                clear_of(rule, trees["condition"])
        except NoDeadband as error:
            found.append(RuleProblem("deadband", error.message))
    for name in rule.products:
        if name in products:
            scope = scope_of(products[name], columns, attributes or {})
            for key, tree in trees.items():
                problems = check_condition(tree, scope)
                found += [RuleProblem(key, error.message, error.start, error.stop) for error in problems]
                if not problems and key == "condition":
                    found += _doubtful(tree, scope, (ranges or {}).get(name, {}))
            try:
                message_of(rule, scope)
            except ExpressionError as error:
                found.append(RuleProblem("message", error.message, error.start, error.stop))
    return list(dict.fromkeys(found))


def message_of(rule: Rule, scope: Scope) -> Template:
    """The rule's message template; raises ExpressionError for a name that is unknown."""
    return parse_message(
        rule.message if rule.message is not None else "{ruleId}: {condition}",
        metrics=scope.metrics,
        params=scope.params,
        attributes=scope.attributes,
        owner=scope.owner,
    )


def _doubtful(
    tree: Expr, scope: Scope, ranges: Mapping[str, tuple[float | None, float | None]]
) -> list[RuleProblem]:
    holds = verdict(tree, scope, ranges)
    if holds is None:
        return []
    word = "always" if holds else "never"
    return [
        RuleProblem(
            "condition", f"{word} holds within the contract of {scope.owner}", tree.start, tree.stop, True
        )
    ]
