"""The rules of one product as tables: their program, and what the kernels ask of each rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from operators.batch import Bytes, Int32, Int64
from operators.expression.grammar import parse
from operators.expression.program import compile_conditions, metrics_of
from operators.expression.registers import Column, Program
from operators.expression.tree import Expr
from rules.check import clear_of, message_of, scope_of
from rules.message import Field, Template
from rules.spec import Rule, RuleProduct


class RuleTables(NamedTuple):
    """Columns over the R rules, as `kernels.walk` takes them."""

    condition_row: Int32
    clear_row: Int32
    carry_start: Int32
    carry: Int32
    on_delay: Int64
    off_delay: Int64
    keeps_open: Bytes


@dataclass(slots=True, eq=False)
class CompiledRules:
    """What a product's rules become.

    program: its input columns are all metrics of the product in file order, then parameters and
    attributes that differ by device. metrics: those that rules or their messages use; used:
    int32[J], their rows. evidence_of: for each rule the indices in `metrics` of its condition's.
    """

    program: Program
    tables: RuleTables
    messages: list[Template]
    metrics: tuple[str, ...]
    used: Int32
    evidence_of: list[list[int]]


def compile_rules(
    product: RuleProduct, rules: Sequence[Rule], samples: Mapping[str, Mapping[str, str]]
) -> CompiledRules:
    """Tables of rules that have passed `check_rule`; samples as `check.samples_of` gives them."""
    scope = scope_of(product, {name for row in samples.values() for name in row}, samples)
    conditions = [parse(rule.conditions[""]) for rule in rules]
    clears = [clear_of(rule, tree) for rule, tree in zip(rules, conditions, strict=True)]
    messages = [message_of(rule, scope) for rule in rules]
    shown = {
        piece.name: None
        for template in messages
        for piece in template.pieces
        if isinstance(piece, Field) and piece.root == "metrics"
    }
    names = list(product.metrics)
    trees = [*conditions, *(tree for tree in clears if tree is not None)]
    metrics = tuple(dict.fromkeys((*metrics_of(trees), *shown)))
    program = compile_conditions(trees, scope, [Column("metrics", name) for name in names])
    return CompiledRules(
        program,
        _tables(rules, conditions, clears, metrics, program.outputs),
        messages,
        metrics,
        np.array([names.index(name) for name in metrics], np.int32),
        [[metrics.index(name) for name in metrics_of([tree])] for tree in conditions],
    )


def _tables(
    rules: Sequence[Rule],
    conditions: Sequence[Expr],
    clears: Sequence[Expr | None],
    metrics: Sequence[str],
    outputs: Sequence[int],
) -> RuleTables:
    clear_rows: list[int] = []
    start, carry = [0], list[int]()
    at = len(rules)
    for condition, clear in zip(conditions, clears, strict=True):
        clear_rows.append(-1 if clear is None else outputs[at])
        at += clear is not None
        trees = [condition] if clear is None else [condition, clear]
        carry += [metrics.index(name) for name in metrics_of(trees)]
        start.append(len(carry))
    return RuleTables(
        np.array(outputs[: len(rules)], np.int32),
        np.array(clear_rows, np.int32),
        np.array(start, np.int32),
        np.array(carry, np.int32),
        np.array([rule.on_delay for rule in rules], np.int64),
        np.array([rule.off_delay for rule in rules], np.int64),
        np.array([rule.acknowledged_by_hand(rule.severity_of()) for rule in rules], np.uint8),
    )


def rule_key(rule: Rule, product: RuleProduct) -> str:
    """What must be equal for a rule's state to be kept over a change of the plant: its text and
    the types of the metrics that it uses."""
    trees = [parse(text) for text in (*rule.conditions.values(), rule.clear_condition) if text is not None]
    used = ",".join(f"{name}:{product.metrics.get(name)}" for name in metrics_of(trees))
    return f"{rule.ruleId}\x1f{rule.version}\x1f{used}"
