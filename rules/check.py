"""What can be wrong with a rule, whatever its kind; and the trees that its expressions become."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import chain, pairwise
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from operators.document import nearest
from operators.expression.formulas import formulas_of
from operators.expression.grammar import parse
from operators.expression.program import Scope, check_condition, kind_of, metrics_of, resolved
from operators.expression.ranges import verdict
from operators.expression.tree import (
    Binary,
    Bool,
    Compare,
    Expr,
    ExpressionError,
    Logic,
    Not,
    Number,
)
from rules.message import Template, parse_message
from rules.schedule import schedule_problem
from rules.spec import (
    LIMITS,
    SEVERITY_NUMBERS,
    LimitRule,
    LimitSeverity,
    Rule,
    RuleProduct,
    SeverityMap,
)

DEVICE_WORDS: Final = ("device_id", "productId", "hub_id")
"""Attributes that every device has, in devices.csv or not."""

Ranges = Mapping[str, Mapping[str, tuple[float | None, float | None]]]

_NONE: Final[Mapping[str, Any]] = MappingProxyType({})


class RuleProblem(NamedTuple):
    """One thing wrong with a rule: its key (`limits.H`: a key below one), and characters
    start..stop of that key's text (both -1 where the whole key is meant)."""

    field: str
    text: str
    start: int = -1
    stop: int = -1
    warning: bool = False


class Known(NamedTuple):
    """What a rule is checked against.

    columns, attributes: the header and the rows of devices.csv. ranges: product -> metric ->
    its contract's range, for warnings about conditions that never or always hold; only metrics
    whose values outside of it are rejected, clamped or marked bad belong in it. actions: the
    actionIds of actions/*.yaml. shards, shards_by: `shards.count` and `shards.by` of the plant.
    """

    products: Mapping[str, RuleProduct]
    columns: Collection[str] = ()
    attributes: Mapping[str, Mapping[str, str]] = _NONE
    ranges: Ranges = _NONE
    actions: Collection[str] = ()
    shards: int = 1
    shards_by: str = "device_id"

    def scopes(self, rule: Rule) -> Iterator[Scope]:
        """The names that a rule may use, for each of its products that is there."""
        for name in rule.products:
            if name in self.products:
                yield scope_of(self.products[name], self.columns, self.attributes)


class NoDeadband(ExpressionError):
    """A deadband on a condition that has no order to shift."""


def number_of(cell: str) -> float | None:
    """The finite number in a cell of devices.csv; None where there is none."""
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def samples_of(
    attributes: Mapping[str, Mapping[str, str]],
    columns: Iterable[str] = (),
    former: Iterable[Mapping[str, str]] = (),
) -> dict[str, dict[str, str]]:
    """Two rows that say of every column of devices.csv whether any cell is filled and whether any
    is a number: all that a scope asks, whatever the number of devices. columns: those that are there
    although no row may have them. former: rows that counted once, or will."""
    filled: dict[str, str] = dict.fromkeys(columns, "")
    numeric: dict[str, str] = {}
    for row in chain(attributes.values(), former):
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
    return Scope(
        product.productId,
        product.metrics,
        params,
        texts,
        {*columns, *DEVICE_WORDS},
        product.units,
        product.formulas,
        values=product.values,
    )


# -- trees


def clear_of(rule: Rule, condition: Expr) -> Expr | None:
    """The rule's clear condition; None where it is simply `not condition`.

    With a deadband d it is `not condition` with every bound moved by d: `x > c` clears where
    `not (x > c - d)`, `x < c` where `not (x < c + d)`. condition: resolved, so that bounds have no
    unit any more. Raises NoDeadband where nothing in the condition has such a bound.
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


# -- checks


def check_rule(rule: Rule, known: Known) -> list[RuleProblem]:
    """All that is wrong with a rule by itself, [] if it can run."""
    found = [
        RuleProblem("productId", f"no product '{name}'{nearest(name, known.products)}")
        for name in rule.products
        if name not in known.products
    ]
    if not rule.products:
        found.append(RuleProblem("productId", "names no product"))
    for at, name in enumerate(rule.products):
        if name in rule.products[:at]:
            found.append(RuleProblem(f"productId.{at}", f"'{name}' stands twice; remove one"))
    found += _keys(rule, known)
    from rules.check_kinds import KIND_CHECKS  # it needs this module

    found += (CHECKS | KIND_CHECKS)[rule.type](rule, known)
    for scope in known.scopes(rule):
        try:
            message_of(rule, scope)
        except ExpressionError as error:
            found.append(RuleProblem("message", error.message, error.start, error.stop))
    return list(dict.fromkeys(found))


def _keys(rule: Rule, known: Known) -> Iterator[RuleProblem]:
    """What can be wrong with the keys that every kind of rule has."""
    for field in rule.UNFIT:
        if getattr(rule, field):
            yield RuleProblem(field, f"does not fit a rule of type {rule.type}; leave it out")
    if getattr(rule, "severity", None) == "info" and rule.acknowledge == "required":
        yield RuleProblem("acknowledge", "an info rule is an event and never acknowledged; leave it out")
    if (
        rule.clear_condition is not None
        and rule.deadband
        and not {"clear_condition", "deadband"} & {*rule.UNFIT}
    ):
        yield RuleProblem("deadband", "clear_condition says already when it clears; leave one out")
    if rule.deadband is not None and not 0 <= rule.deadband < float("inf"):
        yield RuleProblem("deadband", "must be 0 or more")
    for at, step in enumerate(rule.escalate):
        before = rule.escalate[at - 1] if at else None
        if step is None or (at and before is None):
            continue  # told already
        if before is not None and step.after <= before.after:
            yield RuleProblem(f"escalate.{at}.after", "must be later than the step before")
        if step.after <= 0:
            yield RuleProblem(f"escalate.{at}.after", "must be more than 0s")
        if step.severity is None and step.notify is None:
            text = "changes nothing; give a severity, or somebody to notify"
            yield RuleProblem(f"escalate.{at}.severity", text)
    yield from _escalated_severities(rule)
    if rule.where is not None:
        yield from check_expression("where", rule.where, known.scopes(rule))
    for at, schedule in enumerate(rule.schedules):
        wrong = schedule_problem(schedule) if schedule is not None else None  # None: told already
        if wrong is not None:
            yield RuleProblem(f"schedule.{at}.{wrong[0]}", wrong[1])
    if rule.autoAction is not None and rule.autoAction not in known.actions:
        mend = nearest(rule.autoAction, known.actions) or "; write it as an actions/*.yaml"
        yield RuleProblem("autoAction", f"no action '{rule.autoAction[:60]}'{mend}")
    if rule.max_shelve is not None and rule.max_shelve <= 0:
        yield RuleProblem("max_shelve", "must be more than 0s")


def _escalated_severities(rule: Rule) -> Iterator[RuleProblem]:
    """Steps that lessen a severity, or leave it as it is, change nothing."""
    severity = getattr(rule, "severity", None)
    if severity is None or isinstance(severity, SeverityMap):
        return  # told already, or the device says it
    reached = min((rule.severity_of(part) for part in rule.parts), key=SEVERITY_NUMBERS.__getitem__)
    for at, step in enumerate(rule.escalate):
        if step is None or step.severity is None:
            continue
        if SEVERITY_NUMBERS[step.severity] <= SEVERITY_NUMBERS[reached]:
            text = f"changes nothing: it is {reached} already, and a step only makes it graver"
            yield RuleProblem(f"escalate.{at}.severity", text, warning=True)
        else:
            reached = step.severity


def check_expression(field: str, text: str, scopes: Iterator[Scope]) -> Iterator[RuleProblem]:
    """What is wrong with a condition that stands under a key."""
    try:
        tree = parse(text)
    except ExpressionError as error:
        yield RuleProblem(field, error.message, error.start, error.stop)
        return
    for scope in scopes:
        for wrong in check_condition(tree, scope):
            yield RuleProblem(field, wrong.message, wrong.start, wrong.stop)


def _check_threshold(rule: Rule, known: Known) -> Iterator[RuleProblem]:
    """A rule with one condition, and perhaps another by which it clears."""
    trees: dict[str, Expr] = {}
    for key, text in (("condition", rule.conditions.get("")), ("clear_condition", rule.clear_condition)):
        if text is None:
            continue
        try:
            trees[key] = parse(text)
        except ExpressionError as error:
            yield RuleProblem(key, error.message, error.start, error.stop)
    if "condition" in trees:
        empty = not metrics_of(trees.values()) and not any(formulas_of(tree) for tree in trees.values())
        if empty:
            stop = len(rule.conditions[""])
            yield RuleProblem("condition", "names no metric, so no reading evaluates it", 0, stop)
        try:
            if rule.clear_condition is None:
                clear_of(rule, trees["condition"])
        except NoDeadband as error:
            yield RuleProblem("deadband", error.message)
    for scope in known.scopes(rule):
        for key, tree in trees.items():
            problems = check_condition(tree, scope)
            for wrong in problems:
                yield RuleProblem(key, wrong.message, wrong.start, wrong.stop)
            if not problems and key == "condition" and not empty:
                told = _doubtful(tree, scope, known)
                if told:
                    yield RuleProblem(key, told, tree.start, tree.stop, True)


def _check_limit(rule: Rule, known: Known) -> Iterator[RuleProblem]:
    """A value and its limits: each by itself, then as the conditions that they become."""
    assert isinstance(rule, LimitRule)
    bounds = {name: getattr(rule.limits, name) for name in LIMITS}
    bounds = {name: bound for name, bound in bounds.items() if bound is not None}
    if not bounds:
        yield RuleProblem("limits", "names none of HH, H, L and LL")
    yield from _limit_order(bounds)
    if isinstance(rule.severity, LimitSeverity):
        for name in LIMITS:
            told = getattr(rule.severity, name) is not None
            if name in bounds and not told:
                yield RuleProblem(f"severity.{name}", f"'{name}' is missing; every limit has its severity")
            if told and name not in bounds:
                yield RuleProblem(f"severity.{name}", f"there is no limit '{name}'")
    texts = {"of": rule.of} | {
        f"limits.{name}": text for name, text in bounds.items() if isinstance(text, str)
    }
    wrong: set[str] = set()
    for key, text in texts.items():
        for problem in _check_number(key, text, known.scopes(rule)):
            wrong.add(key)
            yield problem
    if "of" in wrong:
        return
    if not metrics_of([parse(rule.of)]) and not formulas_of(parse(rule.of)):
        yield RuleProblem("of", "names no metric, so no reading evaluates it", 0, len(rule.of))
        return
    for name, text in rule.conditions.items():
        for scope in known.scopes(rule) if f"limits.{name}" not in wrong else ():
            tree = parse(text)
            problems = check_condition(tree, scope)
            for error in problems:
                yield RuleProblem(f"limits.{name}", error.message)
            if not problems and (told_ := _doubtful(tree, scope, known)):
                yield RuleProblem(f"limits.{name}", told_, warning=True)


def _limit_order(bounds: Mapping[str, float | str]) -> Iterator[RuleProblem]:
    rising = [(name, bounds[name]) for name in ("LL", "L", "H", "HH") if isinstance(bounds.get(name), float)]
    for (lower, low), (upper, high) in pairwise(rising):
        if isinstance(low, float) and isinstance(high, float) and low >= high:
            yield RuleProblem(f"limits.{upper}", f"must be above {lower}")


def _check_number(key: str, text: str, scopes: Iterator[Scope]) -> Iterator[RuleProblem]:
    try:
        tree = parse(text)
    except ExpressionError as error:
        yield RuleProblem(key, error.message, error.start, error.stop)
        return
    if isinstance(tree, Bool | Compare | Logic | Not):
        yield RuleProblem(key, "this is a condition where a number is expected", tree.start, tree.stop)
        return
    compared = Compare(tree.start, tree.stop, ">", tree, tree)
    for scope in scopes:
        problems = check_condition(compared, scope)
        if _is_text(tree, scope):
            problems = [ExpressionError("this is a text where a number is expected", tree.start, tree.stop)]
        for wrong in problems:
            yield RuleProblem(key, wrong.message, wrong.start, wrong.stop)


def _is_text(tree: Expr, scope: Scope) -> bool:
    try:
        return kind_of(tree, scope) == "text"
    except ExpressionError:
        return False


def message_of(rule: Rule, scope: Scope) -> Template:
    """The rule's message template; raises ExpressionError for a name that is unknown."""
    return parse_message(
        rule.message if rule.message is not None else "{ruleId}: {condition}",
        metrics=scope.metrics,
        params=scope.params,
        attributes=scope.attributes,
        owner=scope.owner,
    )


def _doubtful(tree: Expr, scope: Scope, known: Known) -> str:
    holds = verdict(resolved(tree, scope), scope, known.ranges.get(scope.owner, {}))
    return (
        ""
        if holds is None
        else f"{'always' if holds else 'never'} holds within the contract of {scope.owner}"
    )


CHECKS: Final[dict[str, Callable[[Rule, Known], Iterator[RuleProblem]]]] = {
    "threshold": _check_threshold,
    "rate": _check_threshold,
    "window": _check_threshold,
    "limit": _check_limit,
}
"""What is wrong with the keys of one kind of rule, by its `type`."""
