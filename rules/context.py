"""What every evaluator of rules is built from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

from operators.devices import Devices
from operators.master import DeviceRow
from operators.parameters import Parameters
from rules.alarm import AlarmRule
from rules.check import number_of, samples_of
from rules.spec import RulesSpec
from rules.tables import alarm_rules

_SET: Final = "set"  # in a sample row: the cell that an operator fills


class Cells:
    """How many cells of each column of devices.csv are filled, and how many hold a number: what samples
    say changes where a count comes from nothing or goes to it. Rows of the past count as well."""

    def __init__(self, rows: Iterable[Mapping[str, str]]) -> None:
        self._counts: Counter[tuple[str, bool]] = Counter()
        for row in rows:
            self._add(row, 1)

    def _add(self, row: Mapping[str, str], by: int) -> None:
        for name, cell in row.items():
            if cell:
                self._counts[name, False] += by
                if number_of(cell) is not None:
                    self._counts[name, True] += by

    def move(self, rows: Sequence[DeviceRow]) -> bool:
        """Rows have changed; False where samples of them all would say something else than before."""
        names = {name for one in rows for name in (*(one.before or ()), *one.after)}
        places = [(name, number) for name in sorted(names) for number in (False, True)]
        there = [self._counts[place] > 0 for place in places]
        for one in rows:
            for row in (one.before or {}, *(past.row for past in one.past_before)):
                self._add(row, -1)
            for row in (one.after, *(past.row for past in one.past_after)):
                self._add(row, 1)
        return there == [self._counts[place] > 0 for place in places]


@dataclass(slots=True, eq=False)
class Context:
    """samples: `check.samples_of` the attributes, and what operators have set: such a parameter is no
    constant to the programs any more, for any device. alarms: (ruleId, part) -> what the lifecycle
    knows of it."""

    spec: RulesSpec
    devices: Devices
    parameters: Parameters
    samples: Mapping[str, Mapping[str, str]]
    cells: Cells
    alarms: Mapping[tuple[str, str], AlarmRule]

    @classmethod
    def of(cls, spec: RulesSpec, devices: Devices, parameters: Parameters) -> Context:
        samples = samples_of(spec.attributes, spec.columns, spec.joined.former())
        for name in sorted(parameters.names()):
            samples["filled"][name] = samples["filled"].get(name) or _SET
        alarms = {(rule.ruleId, rule.part): rule for rule in alarm_rules(spec, samples)}
        cells = Cells(chain(spec.attributes.values(), spec.joined.former()))
        return cls(spec, devices, parameters, samples, cells, alarms)
