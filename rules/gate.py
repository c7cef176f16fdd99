"""`where` and `schedule` of rules whose raising is not a condition of one reading: asked once, when
such a rule would raise. What is kept from raising by them stays silent until it clears."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from operators.expression.grammar import parse
from operators.expression.kernels import TRUE
from operators.expression.machine import Machine
from operators.expression.program import Scope, compile_conditions
from operators.text import text_code
from rules.device_facts import DeviceFacts
from rules.schedule import Windows
from rules.spec import Rule


class Gate:
    """Whether a rule may raise for a device of one product."""

    def __init__(self, rule: Rule, productId: str, scope: Scope, facts: DeviceFacts) -> None:
        schedules = rule.schedules
        self.windows = Windows.of(schedules, facts.spec.timezone) if schedules else None
        self.productId = productId
        self.facts = facts
        self.machine: Machine | None = None
        if rule.where is not None:
            self.machine = Machine(compile_conditions([parse(rule.where)], scope))

    def opens(
        self, device: str, time_ns: int, values: Mapping[str, Any], hub_id: str = "", *, unheard: bool = False
    ) -> bool:
        """time_ns: event time of the raise; `values`: of the metrics, as the device's last reading left
        them."""
        if self.windows is not None and not self.windows.covers(np.array([time_ns], np.int64))[0]:
            return False
        if self.machine is None:
            return True
        columns = self.machine.room(1)
        lookup = self.facts.lookup(device, self.productId, values, hub_id, unheard=unheard, at_ns=time_ns)
        for at, column in enumerate(self.machine.program.columns):
            value = lookup(column.root, column.name)
            columns[at, 0] = (
                math.nan if value is None else text_code(value) if isinstance(value, str) else float(value)
            )
        return bool(np.asarray(self.machine.run(1, columns))[self.machine.program.outputs[0], 0] == TRUE)
