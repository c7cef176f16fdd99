"""A product's contract as the tables that `kernels.check_contract` reads."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from operators.batch import Bytes, Float64, Int32, Int64
from operators.contract.kernels import CLAMP, MARK_BAD, REJECT
from operators.contract.spec import Metric, ProductContract
from operators.text import text_code

_KINDS = {"number": 0, "integer": 1, "boolean": 2, "string": 3}
_ACTIONS = {"reject": REJECT, "bad": MARK_BAD, "clamp": CLAMP}
NOT_REQUIRED = 3


class Tables(NamedTuple):
    """Arguments of the kernel, in its order; shapes are in its docstring."""

    kinds: Bytes
    actions: Bytes
    lower: Float64
    upper: Float64
    max_step: Float64
    step_column: Int32
    allowed_from: Int32
    allowed: Float64
    times: Int64


def build_tables(product: ProductContract) -> Tables:
    """The tables of one product."""
    metrics = list(product.metrics.values())
    allowed: list[float] = []
    allowed_from = [0]
    steps = 0
    step_column = []
    for metric in metrics:
        allowed += [_code(item) for item in metric.values or ()]
        allowed_from.append(len(allowed))
        step_column.append(steps if metric.max_step is not None else -1)
        steps += metric.max_step is not None
    bounds = [metric.range or (None, None) for metric in metrics]
    stamp = product.contract.timestamp
    return Tables(
        kinds=np.array([_KINDS[metric.type] for metric in metrics], np.uint8),
        actions=np.ascontiguousarray(np.array([_actions(m) for m in metrics], np.uint8).reshape(-1, 5).T),
        lower=np.array([-np.inf if low is None else low for low, _ in bounds], np.float64),
        upper=np.array([np.inf if high is None else high for _, high in bounds], np.float64),
        max_step=np.array([np.inf if m.max_step is None else m.max_step for m in metrics], np.float64),
        step_column=np.array(step_column, np.int32),
        allowed_from=np.array(allowed_from, np.int32),
        allowed=np.array(allowed, np.float64),
        times=np.array(
            [stamp.max_future, stamp.max_age, product.live_within, _ACTIONS[stamp.on_breach]], np.int64
        ),
    )


def _code(item: str | int | float | bool) -> float:
    return float(text_code(item)) if isinstance(item, str) else float(item)


def _actions(metric: Metric) -> tuple[int, int, int, int, int]:
    """Actions by check: type, required, range, step, values. A bound to clamp to exists for range
    and step alone; the other checks of a metric that says `clamp` do as they do by default."""
    asked = metric.on_breach
    harsh = MARK_BAD if asked == "bad" else REJECT
    bounded = _ACTIONS[asked or "bad"]
    listed = REJECT if asked == "reject" else MARK_BAD
    return harsh, harsh if metric.required else NOT_REQUIRED, bounded, bounded, listed
