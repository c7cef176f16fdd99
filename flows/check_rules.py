"""What each rule became: its conditions spelled out, defaults filled in, and for how many devices.

`penstock check --rules` prints it, and `--json` always has it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

from rich.table import Table

from flows import specs
from flows.alarm_tables import coloured
from flows.explain_expressions import Expression, expressions_of
from flows.explain_text import written
from flows.look_tables import shown, table
from flows.plant_file import Plant
from operators.expression.tree import Name, walk
from operators.spec import DAY, HOUR, MILLISECOND, MINUTE, SECOND
from rules.alarm import AlarmRule
from rules.check import samples_of, scope_of
from rules.spec import SEVERITY_NUMBERS, AbsenceRule, GroupRule, ReportedRule, Rule, SequenceRule
from rules.tables import alarm_rules

_UNITS: Final = ((DAY, "d"), (HOUR, "h"), (MINUTE, "m"), (SECOND, "s"), (MILLISECOND, "ms"))


def duration(ns: int) -> str:
    """`90s`, `5m`, `1h`: the largest unit of which it is a whole number."""
    for unit, name in _UNITS:
        if ns and ns % unit == 0:
            return f"{ns // unit}{name}"
    return f"{ns / SECOND:g}s" if ns else "0s"


def rules_told(plant: Plant) -> list[dict[str, Any]]:
    """Every rule as JSON tells it, in the order of the files."""
    spec = specs.rules(plant)
    samples = samples_of(spec.attributes, spec.columns)
    columns = {name for row in samples.values() for name in row}
    scopes = {name: scope_of(product, columns, samples) for name, product in spec.products.items()}
    alarms = {(alarm.ruleId, alarm.part): alarm for alarm in alarm_rules(spec, samples)}
    devices = Counter(row["productId"] for row in plant.master.devices.values())
    return [
        _told(rule, plant, expressions_of(rule, scopes[rule.products[0]]), alarms, devices)
        for rule in plant.rules
    ]


def _told(
    rule: Rule,
    plant: Plant,
    expressions: list[Expression],
    alarms: Mapping[tuple[str, str], AlarmRule],
    devices: Mapping[str, int],
) -> dict[str, Any]:
    parts = {part: alarms[rule.ruleId, part] for part in rule.parts}
    return {
        "ruleId": rule.ruleId,
        "type": rule.type,
        "rule_version": rule.version,
        "mode": rule.mode,
        "products": {name: devices.get(name, 0) for name in rule.products},
        "expressions": [
            {"what": one.what, "text": one.text, "canonical": written(one.tree), "default": one.default}
            for one in expressions
        ],
        "raises": raises(rule),
        "parameters": _parameters(expressions, rule, plant),
        "severity": {
            part or "all": {"name": alarm.severity, "number": SEVERITY_NUMBERS[alarm.severity]}
            for part, alarm in parts.items()
        },
        "acknowledge": {part or "all": alarm.to_acknowledge(alarm.severity) for part, alarm in parts.items()},
        "on_delay": duration(rule.on_delay),
        "off_delay": duration(rule.off_delay),
        "latch": rule.latch,
        "max_shelve": None if rule.max_shelve is None else duration(rule.max_shelve),
        "suppressed_by": {part or "all": list(alarm.suppressors) for part, alarm in parts.items()},
        "schedule": [{"cron": one.cron, "for": duration(one.for_)} for one in rule.schedules],
        "escalate": [
            {"after": duration(one.after), "unless": one.unless, "severity": one.severity}
            for one in rule.escalate
        ],
    }


def raises(rule: Rule) -> str | None:
    """What raises a rule that is no condition of one device's readings; None where it is."""
    if isinstance(rule, AbsenceRule):
        return f"no {rule.of or 'reading'} for {duration(rule.for_)}"
    if isinstance(rule, GroupRule):
        return f"of the devices of one {rule.over}: {rule.when}"
    if isinstance(rule, SequenceRule):
        return f"{len(rule.steps)} steps one after the other"
    if isinstance(rule, ReportedRule):
        return f"the device reports it (role {rule.role}): {rule.raised}"
    return None


def _parameters(expressions: Iterable[Expression], rule: Rule, plant: Plant) -> list[dict[str, Any]]:
    """Each parameter: what it is by default in each product, and how many devices have their own."""
    names = {
        node.parts[0]: None
        for one in expressions
        for node in walk(one.tree)
        if isinstance(node, Name) and node.root == "param"
    }
    rows = [row for row in plant.master.devices.values() if row["productId"] in rule.products]
    return [
        {
            "name": name,
            "defaults": {one: plant.products[one].params.get(name) for one in rule.products},
            "own": sum(bool(row.get(name)) for row in rows),
        }
        for name in names
    ]


def rule_tables(told: Iterable[Mapping[str, Any]]) -> list[Any]:
    """The rules for people: a small table each."""
    found: list[Any] = []
    for one in told:
        found += ["", _rule_table(one)]
    return found


def _rule_table(one: Mapping[str, Any]) -> Table:
    rows = [(word, text) for word, text in _lines(one) if text]
    severities = list(one["severity"].values())
    made = table([one["ruleId"], one["type"]], rows)
    made.columns[0].style = "bold"
    if len({severity["name"] for severity in severities}) == 1:
        made.columns[1].header = (
            coloured(severities[0]["name"]) + f" {severities[0]['number']}  {one['type']}"
        )
    return made


def _lines(one: Mapping[str, Any]) -> list[tuple[str, str]]:
    lines = [("raises on", one["raises"] or "")]
    lines += [(each["what"], each["canonical"]) for each in one["expressions"]]
    for parameter in one["parameters"]:
        values = ", ".join(
            dict.fromkeys(
                "no default" if value is None else shown(value) for value in parameter["defaults"].values()
            )
        )
        own = f"; {parameter['own']} devices have their own" if parameter["own"] else ""
        lines.append((f"param.{parameter['name']}", values + own))
    severities = one["severity"]
    if len({severity["name"] for severity in severities.values()}) > 1:
        told = (f"{part} {each['name']} {each['number']}" for part, each in severities.items())
        lines.append(("severity", ", ".join(told)))
    delays = [f"{word} {one[word]}" for word in ("on_delay", "off_delay") if one[word] != "0s"]
    lines.append(("delays", ", ".join(delays) or "none"))
    by_hand = set(one["acknowledge"].values())
    asked = [part for part, asked in one["acknowledge"].items() if asked]
    lines.append(
        (
            "acknowledge",
            ("required" if by_hand == {True} else f"required of {', '.join(asked)}") if asked else "none",
        )
    )
    lines.append(("latch", "until reset" if one["latch"] else ""))
    lines.append(("max_shelve", one["max_shelve"] or ""))
    for part, names in one["suppressed_by"].items():
        lines.append((f"{part} suppressed_by" if part != "all" else "suppressed_by", ", ".join(names)))
    lines.append(("schedule", "; ".join(f"{each['cron']} for {each['for']}" for each in one["schedule"])))
    lines += [("escalate", _step(step)) for step in one["escalate"]]
    lines.append(("mode", "shadow: recorded, nobody is told" if one["mode"] == "shadow" else ""))
    devices = (f"{name} ({count} device{'s' * (count != 1)})" for name, count in one["products"].items())
    lines.append(("products", ", ".join(devices)))
    return lines


def _step(step: Mapping[str, Any]) -> str:
    unless = f" unless {step['unless']}" if step["unless"] else ""
    return f"after {step['after']}{unless}: {step['severity'] or 'the same severity'}"
