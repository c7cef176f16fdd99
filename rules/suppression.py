"""Which alarm suppresses which: the order of rules, and what is wrong with it.

Rules are ranked so that one that suppresses comes before those that it suppresses; otherwise they
keep the order of the files. Of a limit rule HH stands before H, and LL before L.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from operators.document import nearest
from rules.check import RuleProblem
from rules.spec import Rule


def ranked(rules: Sequence[Rule]) -> list[Rule]:
    """The rules, each after all that suppress it; of those that may come next the first in the
    files does. Rules of a cycle, which no sound plant has, come last."""
    known = {rule.ruleId for rule in rules}
    done: set[str] = set()
    waiting = list(rules)
    found: list[Rule] = []
    while waiting:
        ready = [rule for rule in waiting if all(one in done or one not in known for one in rule.suppressors)]
        if not ready:
            return [*found, *waiting]
        found += ready
        done.update(rule.ruleId for rule in ready)
        waiting = [rule for rule in waiting if rule.ruleId not in done]
    return found


def check_suppression(
    rules: Sequence[Rule], declared: Mapping[str, object]
) -> list[tuple[Rule, RuleProblem]]:
    """Rules with a `suppressed_by` that names no rule, the rule itself, or goes round in a circle.
    declared: every ruleId that stands in a file."""
    by_name = {rule.ruleId: rule for rule in rules}
    found: list[tuple[Rule, RuleProblem]] = []
    for rule in rules:
        for at, name in enumerate(rule.suppressors):
            field = f"suppressed_by.{at}"
            if name not in declared:
                found.append((rule, RuleProblem(field, f"no rule '{name}'{nearest(name, declared)}")))
            elif name == rule.ruleId:
                found.append((rule, RuleProblem(field, "a rule cannot suppress itself")))
            elif (way := _way_back(rule.ruleId, name, by_name)) is not None:
                circle = " -> ".join((*way, rule.ruleId))
                found.append((rule, RuleProblem(field, f"goes round in a circle: {circle}; remove one")))
    return found


def _way_back(target: str, start: str, rules: Mapping[str, Rule]) -> list[str] | None:
    """The names from `target` over `start` to what is suppressed by `target` again."""
    ways = [[target, start]]
    seen = {start}
    while ways:
        way = ways.pop()
        rule = rules.get(way[-1])
        for name in rule.suppressors if rule is not None else ():
            if name == target:
                return way
            if name not in seen:
                seen.add(name)
                ways.append([*way, name])
    return None
