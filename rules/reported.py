"""Rules of type reported: alarms that the device raises itself, and tells of in frames of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from operators.batch import HISTORICAL, LIVE_REFERENCE, SEQ_PER_FRAME, Report, Slice
from operators.decode.json_spec import Path, parse_path
from operators.decode.reports import value_at
from operators.expression.tree import Expr
from rules.alarm import AlarmRule, Evidence
from rules.check import scope_of
from rules.context import Context
from rules.device_facts import DeviceFacts
from rules.gate import Gate
from rules.place import AT_ROW, CLEARED, RAISED, Place, Transition
from rules.reported_values import parse_raised, paths_of, truth
from rules.spec import ReportedRule, Severity, SeverityMap
from rules.tables import meaning

LONGEST_CODE: Final = 128
_DEFAULT: Final[Severity] = "medium"


@dataclass(slots=True, eq=False)
class _Rule:
    rule: ReportedRule
    alarm: AlarmRule
    code: Path
    raised: Expr
    paths: dict[str, Path]  # what evidence shows
    severity: Path | None
    gates: dict[str, Gate]  # by product


class ReportedRules:
    """The evaluator of reported rules (`rules.place.Evaluator`)."""

    own_rules: Sequence[AlarmRule] = ()

    def __init__(self, context: Context) -> None:
        spec, alarms, samples = context.spec, context.alarms, context.samples
        facts = DeviceFacts(context)
        self.spec, self.facts = spec, facts
        columns = {name for row in samples.values() for name in row}
        self.rules: list[_Rule] = []
        for rule in spec.rules:
            if isinstance(rule, ReportedRule):
                code, raised = _path(rule.code), parse_raised(rule.raised)
                severity = _path(rule.severity.from_) if isinstance(rule.severity, SeverityMap) else None
                paths = {rule.code: code, **paths_of(raised)}
                if isinstance(rule.severity, SeverityMap) and severity is not None:
                    paths[rule.severity.from_] = severity
                gates = {
                    name: Gate(rule, name, scope_of(spec.products[name], columns, samples), facts)
                    for name in rule.products
                }
                self.rules.append(_Rule(rule, alarms[rule.ruleId, ""], code, raised, paths, severity, gates))
        self.parts: dict[tuple[str, str], AlarmRule] = {}  # ruleId, code
        self.active: dict[tuple[str, str, str], int] = {}  # ruleId, device, code -> onset
        self.newest: dict[tuple[str, str, str], int] = {}  # the same -> event time of the newest report
        self.evaluations: dict[str, int] = {}

    def run(self, item: Slice) -> list[Transition]:
        found: list[Transition] = []
        for report in item.reports:
            product = self.spec.products.get(report.productId)
            if product is None or _is_historical(report, product.live_within):
                continue
            for one in self.rules:
                if one.rule.role == report.role and report.productId in one.gates:
                    made = self._report(one, report)
                    if made is not None:
                        found.append(made)
        return found

    def _report(self, one: _Rule, report: Report) -> Transition | None:
        said, code = truth(one.raised, report.data), _text(value_at(report.data, one.code))
        if said is None or not code:
            return None
        rule_id = one.rule.ruleId
        self.evaluations[rule_id] = self.evaluations.get(rule_id, 0) + 1
        key = (rule_id, report.device_id, code)
        if report.ts_ns < self.newest.get(key, report.ts_ns):
            return None  # told late: what came after it is known already
        onset = self.active.get(key)
        if said:
            self.newest[key] = report.ts_ns
        else:  # what is over needs no memory, but for a later report of before
            self.newest.pop(key, None)
        if said == (onset is not None):
            return None
        values = {name: _plain(value_at(report.data, path)) for name, path in one.paths.items()}
        if said:
            if not one.gates[report.productId].opens(report.device_id, report.ts_ns, {}, report.hub_id):
                return None
            onset = self.active[key] = report.ts_ns
        else:
            onset = self.active.pop(key)
        alarm = self.parts.get((rule_id, code))
        if alarm is None:
            alarm = self.parts[rule_id, code] = replace(one.alarm, part=code)
        return Transition(
            Place(report.position * SEQ_PER_FRAME, AT_ROW, 0, 0, -1, alarm.rank),
            self.facts.subject(
                alarm, report.device_id, report.productId, hub_id=report.hub_id, at_ns=report.ts_ns
            ),
            RAISED if said else CLEARED,
            report.ts_ns,
            onset,
            Evidence(one.rule.raised, values, "good", report.position, report.ingest_ns),
            self.facts.lookup(report.device_id, report.productId, {}, report.hub_id, at_ns=report.ts_ns),
            _severity(one, report.data) if said else None,
        )

    def settle(self, item: Slice) -> None:
        pass

    def counters(self) -> Mapping[str, int]:
        return self.evaluations

    def _keys(self) -> dict[str, str]:
        zone = self.spec.timezone
        return {
            one.rule.ruleId: msgspec.json.encode(meaning(one.rule, zone), order="sorted").decode()
            for one in self.rules
        }

    def export(self) -> dict[str, Any]:
        return {
            "rules": self._keys(),
            "active": [[*key, onset] for key, onset in sorted(self.active.items())],
            "newest": [[*key, ts_ns] for key, ts_ns in sorted(self.newest.items())],
            "evaluations": self.evaluations,
        }

    def load(self, kept: Mapping[str, Any]) -> None:
        same = {name for name, key in self._keys().items() if kept["rules"].get(name) == key}
        self.active = {(r, d, c): onset for r, d, c, onset in kept["active"] if r in same}
        self.newest = {(r, d, c): ts_ns for r, d, c, ts_ns in kept["newest"] if r in same}
        self.evaluations = {r: count for r, count in kept["evaluations"].items() if r in same}


def _is_historical(report: Report, live_within: int) -> bool:
    if report.flags & HISTORICAL:
        return True
    return not report.flags & LIVE_REFERENCE and report.ts_ns < report.ingest_ns - live_within


def _path(text: str) -> Path:
    path = parse_path(text)
    assert not isinstance(path, str)
    return path


def _plain(value: Any) -> str | float | bool | None:
    return value if isinstance(value, str | int | float) else None


def _text(value: Any) -> str:
    """A code or level as a text: a whole number without a fraction, `true` and `false` as JSON has them."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value == int(value) and abs(value) < 1e15:
        value = int(value)
    return str(value)[:LONGEST_CODE].replace("/", "_") if isinstance(value, str | int | float) else ""


def _severity(one: _Rule, data: Any) -> Severity:
    """The severity that the report has; medium for a level that the rule does not name."""
    if not isinstance(one.rule.severity, SeverityMap) or one.severity is None:
        return one.rule.severity_of()
    return one.rule.severity.map.get(_text(value_at(data, one.severity)), _DEFAULT)
