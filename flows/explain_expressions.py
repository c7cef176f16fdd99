"""The expressions of a rule, as explaining and checking look at them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from flows.explain_text import written
from operators.expression.grammar import parse
from operators.expression.program import Scope, resolved
from operators.expression.tree import Expr, Name, Not, walk
from rules.check import clear_of
from rules.spec import GroupRule, Rule, SequenceRule


@dataclass(frozen=True, slots=True)
class Expression:
    """One expression of a rule: what it is for, as the rule writes it, and its tree."""

    what: str
    text: str
    tree: Expr
    default: bool = False  # of `clear`: the rule does not say it


def expressions_of(rule: Rule, scope: Scope) -> list[Expression]:
    """The expressions of a rule that are over one device's readings, the condition first; formulas
    are put in place, and literals stand in the units of what they are set against."""
    found: list[Expression] = []
    for part, text in rule.conditions.items():
        tree = resolved(parse(text), scope)
        found.append(Expression(f"condition {part}".strip(), text, tree))
        clear = clear_of(rule, tree)
        plain = clear is None
        clear = Not(tree.start, tree.stop, tree) if clear is None else resolved(clear, scope)
        told = rule.clear_condition or ("not the condition" if plain else written(clear))
        found.append(Expression(f"clear {part}".strip(), told, clear, plain))
    for what, text in _others(rule):
        found.append(Expression(what, text, resolved(parse(text), scope)))
    return found


def _others(rule: Rule) -> Iterator[tuple[str, str]]:
    """Expressions besides the conditions of thresholds and limits."""
    if isinstance(rule, SequenceRule):
        for number, step in enumerate(rule.steps, 1):
            if isinstance(step, str):
                yield f"step {number}", step
            elif step.condition is not None:
                yield f"step {number}", step.condition
            else:
                yield f"step {number}, not", step.not_ or ""
    if isinstance(rule, GroupRule):
        yield "condition", rule.condition
    if rule.where is not None:
        yield "where", rule.where


def formulas_in(rule: Rule, scope: Scope) -> dict[Expr, str]:
    """The trees of the formulas that a rule names, and what they are called there."""
    texts = [*rule.conditions.values(), *(text for _, text in _others(rule))]
    named = [
        node
        for text in (*texts, *([rule.clear_condition] if rule.clear_condition is not None else []))
        for node in walk(parse(text))
        if isinstance(node, Name) and node.root == "formula"
    ]
    return {resolved(node, scope): node.text for node in named}
