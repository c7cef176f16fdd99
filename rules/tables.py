"""The rules of one product as tables: their program, and what the kernels ask of each alarm."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import numpy as np

from operators.batch import Int32, Int64
from operators.expression.canonical import canonical_text
from operators.expression.formulas import formulas_of, inlined
from operators.expression.grammar import parse
from operators.expression.program import Scope, compile_conditions, metrics_of, resolved
from operators.expression.registers import Column, Program
from operators.expression.tree import Expr, Logic, Not
from rules.alarm import AlarmRule
from rules.check import clear_of, message_of, scope_of
from rules.message import Field
from rules.schedule import Windows
from rules.spec import Rule, RuleProduct, RulesSpec
from rules.suppression import ranked

_NO_MEANING = ("productId", "message", "severity", "autoAction", "max_shelve", "version")


class RuleTables(NamedTuple):
    """Columns over the R alarms, as `kernels.walk` takes them."""

    condition_row: Int32
    clear_row: Int32
    carry_start: Int32
    carry: Int32
    on_delay: Int64
    off_delay: Int64


class Gate(NamedTuple):
    """A condition that counts only in the windows of a schedule: a row of the results, and they."""

    row: int
    windows: Windows


class Part(NamedTuple):
    """One alarm of a rule that is a condition: the rule itself, or one limit of it."""

    rule: Rule
    alarm: AlarmRule


@dataclass(slots=True, eq=False)
class CompiledRules:
    """What a product's rules become.

    program: its input columns are all metrics of the product in file order, then parameters and
    attributes that differ by device. metrics: those that rules or their messages use; used:
    int32[J], their rows. evidence_of: for each alarm the indices in `metrics` of its condition's.
    """

    program: Program
    tables: RuleTables
    gates: list[Gate]
    metrics: tuple[str, ...]
    used: Int32
    evidence_of: list[list[int]]


class _Trees(NamedTuple):
    """condition: as evidence shows it; raising: the condition and `where`; clear: None where it is
    `not raising`."""

    condition: Expr
    raising: Expr
    clear: Expr | None

    def all(self) -> list[Expr]:
        return [self.raising] if self.clear is None else [self.raising, self.clear]


def alarm_rules(spec: RulesSpec, samples: Mapping[str, Mapping[str, str]]) -> list[AlarmRule]:
    """Every alarm of a plant's rules, those that suppress first."""
    shadows = {rule.ruleId for rule in spec.rules if rule.mode == "shadow"}
    columns = {name for row in samples.values() for name in row}
    found: list[AlarmRule] = []
    for rule in ranked(spec.rules):
        product = next((spec.products[name] for name in rule.products if name in spec.products), None)
        if product is None:
            continue
        template = message_of(rule, scope_of(product, columns, samples))
        shadow = rule.mode == "shadow"
        # a rule in shadow suppresses nobody but others in shadow
        suppressors = tuple(name for name in rule.suppressors if shadow or name not in shadows)
        conditions = rule.conditions
        for part in rule.parts:
            beyond = part + part  # HH is beyond H
            inner = (f"{rule.ruleId}/{beyond}",) if len(part) == 1 and beyond in rule.parts else ()
            found.append(
                AlarmRule(
                    rule.ruleId,
                    part,
                    rule.version,
                    rule.severity_of(part),
                    template,
                    conditions.get(part, ""),
                    None if rule.acknowledge is None else rule.acknowledge == "required",
                    rule.latch,
                    rule.max_shelve,
                    tuple(rule.escalate),
                    (*suppressors, *inner),
                    shadow,
                    len(found),
                )
            )
    return found


def parts_of(rules: Iterable[Rule], alarms: Mapping[tuple[str, str], AlarmRule]) -> list[Part]:
    """The alarms of the rules that are conditions over one device's readings, by rank."""
    found = [Part(rule, alarms[rule.ruleId, part]) for rule in rules for part in rule.conditions]
    return sorted(found, key=lambda part: part.alarm.rank)


def compile_rules(
    product: RuleProduct,
    parts: Sequence[Part],
    samples: Mapping[str, Mapping[str, str]],
    timezone: str = "UTC",
) -> CompiledRules:
    """Tables of rules that have passed `check_rule`; samples as `check.samples_of` gives them."""
    scope = scope_of(product, {name for row in samples.values() for name in row}, samples)
    trees = [_trees(part, scope) for part in parts]
    shown = {
        piece.name: None
        for part in parts
        for piece in part.alarm.template.pieces
        if isinstance(piece, Field) and piece.root == "metrics"
    }
    names = list(product.metrics)
    clears = [one.clear for one in trees if one.clear is not None]
    compiled = [*(one.raising for one in trees), *clears]
    metrics = tuple(dict.fromkeys((*metrics_of(compiled), *shown)))
    program = compile_conditions(compiled, scope, [Column("metrics", name) for name in names])
    tables, gates = _tables(parts, trees, metrics, program.outputs, timezone)
    return CompiledRules(
        program,
        tables,
        gates,
        metrics,
        np.array([names.index(name) for name in metrics], np.int32),
        [[metrics.index(name) for name in metrics_of([one.condition])] for one in trees],
    )


def _trees(part: Part, scope: Scope) -> _Trees:
    """`where` and `schedule` gate raising only: by default what clears is `not condition`."""
    rule = part.rule
    condition = resolved(parse(part.alarm.expression), scope)
    clear = clear_of(rule, condition)
    if clear is None and (rule.where is not None or rule.schedules):
        clear = Not(condition.start, condition.stop, condition)
    raising = condition
    if rule.where is not None:
        raising = Logic(
            condition.start, condition.stop, "and", (condition, resolved(parse(rule.where), scope))
        )
    return _Trees(condition, raising, None if clear is None else resolved(clear, scope))


def _tables(
    parts: Sequence[Part],
    trees: Sequence[_Trees],
    metrics: Sequence[str],
    outputs: Sequence[int],
    timezone: str,
) -> tuple[RuleTables, list[Gate]]:
    rows: list[int] = []
    clear_rows: list[int] = []
    gates: list[Gate] = []
    start, carry = [0], list[int]()
    at = len(parts)
    for number, (part, tree) in enumerate(zip(parts, trees, strict=True)):
        clear_rows.append(-1 if tree.clear is None else outputs[at])
        at += tree.clear is not None
        rows.append(outputs[number])
        if part.rule.schedules:
            gates.append(Gate(outputs[number], Windows.of(part.rule.schedules, timezone)))
            rows[-1] = -len(gates)
        carry += [metrics.index(name) for name in metrics_of(tree.all())]
        start.append(len(carry))
    tables = RuleTables(
        np.array(rows, np.int32),
        np.array(clear_rows, np.int32),
        np.array(start, np.int32),
        np.array(carry, np.int32),
        np.array([part.rule.on_delay for part in parts], np.int64),
        np.array([part.rule.off_delay for part in parts], np.int64),
    )
    return tables, gates


def meaning(rule: Rule, timezone: str) -> Any:
    """What must be equal for a rule's state to be kept over a change of the plant, as plain values:
    all that it says but its message, severity, autoAction and max_shelve."""
    plain: dict[str, Any] = msgspec.to_builtins(rule)
    for key in _NO_MEANING:
        plain.pop(key, None)
    return plain | ({"timezone": timezone} if rule.schedules else {})


def rule_key(rule: Rule, product: RuleProduct, timezone: str = "UTC") -> str:
    """A text that is equal where a rule's state is kept for the devices of a product: its meaning,
    and the types of the metrics that it names."""
    texts = [*rule.conditions.values(), rule.clear_condition, rule.where]
    written = [parse(text) for text in texts if text is not None]
    trees = [inlined(tree, product.formulas, product.productId) for tree in written]
    types = [
        f"{name}:{product.metrics.get(name)}:{product.units.get(name, '')}" for name in metrics_of(trees)
    ]
    formulas = [canonical_text(tree) for tree, by in zip(trees, written, strict=True) if formulas_of(by)]
    plain = msgspec.json.encode(meaning(rule, timezone), order="sorted").decode()
    return "\x1f".join((plain, *types, *formulas))
