"""What every evaluator of rules is built from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from operators.devices import Devices
from operators.parameters import Parameters
from rules.alarm import AlarmRule
from rules.check import samples_of
from rules.spec import RulesSpec
from rules.tables import alarm_rules


@dataclass(slots=True, eq=False)
class Context:
    """samples: `check.samples_of` the attributes. alarms: (ruleId, part) -> what the lifecycle knows
    of it."""

    spec: RulesSpec
    devices: Devices
    parameters: Parameters
    samples: Mapping[str, Mapping[str, str]]
    alarms: Mapping[tuple[str, str], AlarmRule]

    @classmethod
    def of(cls, spec: RulesSpec, devices: Devices, parameters: Parameters) -> Context:
        samples = samples_of(spec.attributes)
        alarms = {(rule.ruleId, rule.part): rule for rule in alarm_rules(spec, samples)}
        return cls(spec, devices, parameters, samples, alarms)
