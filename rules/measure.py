"""What rules did and cost, for metrics alone: nothing of it reaches an output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(slots=True)
class RuleMeasure:
    """One rule on one product's devices. active_ns: time in alarm of occurrences that have cleared.
    sampled: readings, since the start of this process, at which the condition was looked at, of which
    it was unknown at `unknown`. overflows: how often a duration of it had more samples than are kept
    (`operators.expression.program.MAX_SAMPLES`)."""

    evaluations: int
    raised: int = 0
    cleared: int = 0
    active_ns: int = 0
    sampled: int = 0
    unknown: int = 0
    overflows: int = 0


class Measured(NamedTuple):
    """rules: by ruleId and productId. product_seconds: what conditions of thresholds and limits cost, by
    product: they are one program that shares sub-expressions, so there is no cost of one rule.
    kind_seconds: by evaluator. Both since the start of this process."""

    rules: Mapping[tuple[str, str], RuleMeasure]
    product_seconds: Mapping[str, float]
    kind_seconds: Mapping[str, float]
