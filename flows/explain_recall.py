"""What a device's last reading left, where that reading was not seen: from a snapshot of the flow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.explain_evaluation import Evaluation, samples_of_chain
from flows.explain_text import mapped
from operators.batch import QUALITY_NAMES
from operators.expression.kernels import NEVER
from operators.expression.machine import Machine
from operators.expression.program import compile_conditions
from operators.expression.tree import Bool, Call, Duration, Expr, Null, Number, is_temporal

if TYPE_CHECKING:
    from flows.explain import Probe


def recalled(probe: Probe, slot: int) -> Evaluation:
    """What a device's last reading left, worked out from the state: held values as they stand, and
    functions over the past from what they keep; those that compare with the value before the
    last are unknown."""
    index = probe.slots[slot]
    state, stale = probe.state, probe.spec.product.stale_after
    ts_ns, ingest_ns, position = (int(one) for one in state["last"][index])
    row = np.full((len(probe.program.columns), 1), np.nan)
    found = {}
    for j, metric in enumerate(probe.used.tolist()):
        value, code = float(state["held_value"][index, j]), int(state["held_quality"][index, j])
        age = ts_ns - int(state["held_ns"][index, j])
        if code >= 2 or (stale and age > stale):
            value, code = math.nan, code if code >= 2 else 3
        row[metric, 0] = value
        known = int(state["held_ns"][index, j]) != 0
        found[probe.metrics[metric]] = (value, QUALITY_NAMES[code], age / 1e9 if known else math.nan)
    for at, column in enumerate(probe.program.columns[len(probe.metrics) :], len(probe.metrics)):
        row[at, 0] = probe.input(column, slot, ts_ns)
    past = probe.machine.export(len(probe.slots))
    plain = {node: _remembered(probe, node, index, ts_ns, past, row) for node in probe.nodes}
    values = np.array([plain[node] for node in probe.nodes])
    return Evaluation(ts_ns, ingest_ns, position, values, found, True, *probe.asked(slot, ts_ns))


def _remembered(probe: Probe, node: Expr, index: int, ts_ns: int, past: Mapping[str, Any], row: Any) -> float:
    """The value of a node on one row of columns, functions over the past replaced by theirs."""

    def put(one: Expr) -> Expr:
        if isinstance(one, Call) and is_temporal(one):
            return _of_past(probe, one, index, ts_ns, past, row)
        return mapped(one, put)

    tree = put(node)
    if isinstance(tree, Null):
        return math.nan
    machine = Machine(compile_conditions([], probe.scope, probe.program.columns, values=[tree]))
    machine.run(1, row)
    return float(machine.values[machine.program.value_outputs[0], 0])


def _of_past(probe: Probe, node: Call, index: int, ts_ns: int, past: Mapping[str, Any], row: Any) -> Expr:
    kept = probe.kept(node, past)
    place = (node.start, node.stop)
    if kept is None or node.function in ("rate", "delta", "prev", "changed"):
        return Null(*place)
    if node.function in ("since", "held"):
        when, inner = int(kept["times"][0][index]), node.arguments[0]
        now = _remembered(probe, inner, index, ts_ns, past, row)
        if node.function == "since":
            unknown = when == NEVER or math.isnan(now)
            return Null(*place) if unknown else _number(node, (ts_ns - when) / 1e9)
        last = node.arguments[-1]
        assert isinstance(last, Duration)
        if math.isnan(now):
            return Null(*place)
        return Bool(*place, now != 0.0 and when != NEVER and ts_ns - when >= last.ns)
    return fold(node, [value for _, value in samples_of_chain(past, kept["chains"][index])])


def fold(node: Call, samples: Sequence[float]) -> Expr:
    """An aggregate of a duration's samples, from the oldest to the newest, as a literal."""
    if node.function == "count":
        return _number(node, float(len(samples)))
    if not samples:
        return Null(node.start, node.stop)
    if node.function in ("min", "max"):
        return _number(node, min(samples) if node.function == "min" else max(samples))
    total = 0.0
    for value in samples:
        total += value
    if node.function == "sum":
        return _number(node, total)
    mean = total / len(samples)
    if node.function == "avg":
        return _number(node, mean)
    squares = 0.0
    for value in samples:
        squares += (value - mean) * (value - mean)
    return _number(node, math.sqrt(squares / len(samples)))


def _number(node: Expr, value: float) -> Expr:
    return (
        Number(node.start, node.stop, value, repr(value))
        if math.isfinite(value)
        else Null(node.start, node.stop)
    )
