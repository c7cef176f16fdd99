"""What every evaluator of rules is built from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from operators.devices import Devices
from operators.parameters import Parameters
from rules.alarm import AlarmRule
from rules.check import samples_of
from rules.spec import RulesSpec
from rules.tables import alarm_rules

_SET: Final = "set"  # in a sample row: the cell that an operator fills


@dataclass(slots=True, eq=False)
class Context:
    """samples: `check.samples_of` the attributes, and what operators have set: such a parameter is no
    constant to the programs any more, for any device. alarms: (ruleId, part) -> what the lifecycle
    knows of it."""

    spec: RulesSpec
    devices: Devices
    parameters: Parameters
    samples: Mapping[str, Mapping[str, str]]
    alarms: Mapping[tuple[str, str], AlarmRule]

    @classmethod
    def of(cls, spec: RulesSpec, devices: Devices, parameters: Parameters) -> Context:
        samples = samples_of(spec.attributes, spec.columns)
        for name in sorted(parameters.names()):
            samples["filled"][name] = samples["filled"].get(name) or _SET
        alarms = {(rule.ruleId, rule.part): rule for rule in alarm_rules(spec, samples)}
        return cls(spec, devices, parameters, samples, alarms)
