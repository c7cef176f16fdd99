"""What can be wrong with rules of type sequence, absence, group and reported."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from operators.decode.json_spec import parse_path
from operators.document import nearest
from operators.expression.formulas import formulas_of
from operators.expression.grammar import parse
from operators.expression.program import metrics_of
from operators.expression.ranges import Ranges, verdict
from operators.expression.tree import Expr, ExpressionError, Name, is_temporal, walk
from rules.check import Known, RuleProblem, check_expression
from rules.group import when_scope
from rules.reported_values import parse_raised
from rules.spec import AbsenceRule, GroupRule, ReportedRule, Rule, SequenceRule, SeverityMap, Step

MOST_STEPS: Final = 16
_WIDTH: Final = {"device_id": 0, "hub_id": 1, "site_id": 2, "productId": 3}
_WHEN_RANGES: Final[Ranges] = {"share": (0.0, 1.0), "count": (0.0, None), "total": (0.0, None)}
_DECODED_ROLES: Final = ("telemetry", "control_request", "control_result", "provisioning_complete")


def _unfit(rule: Rule, fields: tuple[str, ...], why: str) -> Iterator[RuleProblem]:
    for field in fields:
        if getattr(rule, field):
            yield RuleProblem(field, f"does not fit a rule of type {rule.type}; {why}")


def _condition(field: str, text: str, rule: Rule, known: Known) -> Iterator[RuleProblem]:
    """A condition that readings evaluate."""
    wrong = list(check_expression(field, text, known.scopes(rule)))
    yield from wrong
    if not wrong and not metrics_of([parse(text)]) and not formulas_of(parse(text)):
        yield RuleProblem(field, "names no metric, so no reading evaluates it", 0, len(text))


def _steady(rule: Rule, *, metrics: bool) -> Iterator[RuleProblem]:
    """`where` of a rule whose raising is no condition of one reading: it is asked once, then."""
    tree = _parsed(rule.where)
    for node in walk(tree) if tree is not None else ():
        if is_temporal(node):
            yield RuleProblem(
                "where",
                f"cannot look at the past in a rule of type {rule.type}; use attributes and parameters",
                node.start,
                node.stop,
            )
        elif isinstance(node, Name) and node.root in ("", "metrics") and not metrics:
            yield RuleProblem(
                "where",
                f"names a metric, and a rule of type {rule.type} has none; use attributes and parameters",
                node.start,
                node.stop,
            )


def _parsed(text: str | None) -> Expr | None:
    try:
        return None if text is None else parse(text)
    except ExpressionError:
        return None  # told already


def _check_sequence(rule: Rule, known: Known) -> Iterator[RuleProblem]:
    assert isinstance(rule, SequenceRule)
    why = "leave it out, and let `within` of a last `not` step be the delay"
    yield from _unfit(rule, ("on_delay",), why)
    yield from _unfit(rule, ("off_delay", "deadband"), "leave it out")
    yield from _steady(rule, metrics=True)
    if not rule.steps:
        yield RuleProblem("steps", "names no step")
    if len(rule.steps) > MOST_STEPS:
        yield RuleProblem("steps", f"{len(rule.steps)} steps; at most {MOST_STEPS} are taken")
    waits = True  # the step before is a `not` step, or there is none
    for at, step in enumerate(rule.steps):
        if step is None:
            continue
        field = f"steps.{at}"
        if not isinstance(step, Step):
            yield from _condition(field, step, rule, known)
            waits = False
            continue
        if (step.condition is None) == (step.not_ is None):
            yield RuleProblem(field, "a step is a condition, or has one of 'condition' and 'not'")
            continue
        if step.within is not None and not at and step.not_ is None:
            yield RuleProblem(f"{field}.within", "the first step has none before it to count from")
        elif step.within is not None and step.within <= 0:
            yield RuleProblem(f"{field}.within", "must be more than 0s")
        if step.not_ is not None:
            if step.within is None:
                yield RuleProblem(f"{field}.within", "'within' is missing: for how long it must not hold")
            if waits:
                why = "follows another 'not' step" if at else "is the first step"
                yield RuleProblem(f"{field}.not", f"{why}; put a condition before it")
        text = step.not_ if step.not_ is not None else step.condition
        key = "not" if step.not_ is not None else "condition"
        yield from _condition(f"{field}.{key}", text or "", rule, known)
        waits = step.not_ is not None
    if rule.clear_condition is not None:
        yield from check_expression("clear_condition", rule.clear_condition, known.scopes(rule))


def _check_absence(rule: Rule, known: Known) -> Iterator[RuleProblem]:
    assert isinstance(rule, AbsenceRule)
    yield from _unfit(rule, ("off_delay",), "the next reading clears it; leave it out")
    yield from _steady(rule, metrics=False)
    if rule.for_ <= 0:
        yield RuleProblem("for", "must be more than 0s")
    if rule.of is not None:
        for scope in known.scopes(rule):
            if rule.of not in scope.metrics:
                mend = nearest(rule.of, scope.metrics)
                yield RuleProblem("of", f"no metric '{rule.of[:60]}' in {scope.owner}{mend}", 0, len(rule.of))


def _check_group(rule: Rule, known: Known) -> Iterator[RuleProblem]:
    assert isinstance(rule, GroupRule)
    yield from _condition("condition", rule.condition, rule, known)
    scope = when_scope()
    wrong = list(check_expression("when", rule.when, iter((scope,))))
    for one in wrong:
        mend = "; `when` has count, total and share" if one.text.startswith("no metric") else ""
        yield one._replace(text=f"{one.text}{mend}")
    when = _parsed(rule.when)
    for node in walk(when) if when is not None else ():
        if is_temporal(node):
            yield RuleProblem("when", "cannot look at the past; use on_delay", node.start, node.stop)
    if when is not None and not metrics_of([when]):
        yield RuleProblem("when", "names none of count, total and share", 0, len(rule.when))
    elif when is not None and not wrong and (holds := verdict(when, scope, _WHEN_RANGES)) is not None:
        told = "always holds" if holds else "never holds"
        yield RuleProblem("when", told, 0, len(rule.when), True)
    if known.shards > 1 and _WIDTH[rule.over] > _WIDTH[known.shards_by]:
        yield RuleProblem(
            "over",
            f"'{rule.over}' is wider than shards.by, which is {known.shards_by}: a shard would see a part of"
            f" the group; set shards.by to {rule.over if rule.over != 'productId' else 'site_id'}"
            f"{', or shards.count to 1' if rule.over != 'productId' else ' and group by it'}",
        )


def _check_reported(rule: Rule, known: Known) -> Iterator[RuleProblem]:
    assert isinstance(rule, ReportedRule)
    yield from _unfit(rule, ("on_delay", "off_delay"), "the device says when it is over; leave it out")
    yield from _steady(rule, metrics=False)
    if rule.role in _DECODED_ROLES:
        yield RuleProblem("role", f"frames of role '{rule.role}' mean something else; use alert_report")
    for field, text in (("code", rule.code), ("severity.from", _from(rule))):
        told = parse_path(text) if text is not None else ()
        if isinstance(told, str):
            yield RuleProblem(field, told)
    try:
        parse_raised(rule.raised)
    except ExpressionError as error:
        yield RuleProblem("raised", error.message, error.start, error.stop)


def _from(rule: ReportedRule) -> str | None:
    return rule.severity.from_ if isinstance(rule.severity, SeverityMap) else None


KIND_CHECKS: Final[dict[str, Callable[[Rule, Known], Iterator[RuleProblem]]]] = {
    "sequence": _check_sequence,
    "absence": _check_absence,
    "group": _check_group,
    "reported": _check_reported,
}
"""What is wrong with the keys of one kind of rule, by its `type`."""
