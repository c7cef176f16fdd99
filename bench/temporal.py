"""Question: how many evaluations a second of rules that look at a device's past does one core make?

Input: one product of 20 metrics, 1,000 devices, 20 rules, readings of 1 s in slices of 10,000 rows, no
condition true. `delta`: each rule has `delta(m) > 80` of a metric of its own, so that none shares its
state with another; `rate`, `held` alike (`held(m > 80, 10s)`); `avg_1m`: `avg(m, 1m) > 80`, folded anew
over 60 samples at each row. One evaluation is one rule on one reading; the time is that of the whole
stage. `state_bytes_a_device`: what the past costs a device and rule, samples included. Kernels are warm.

Floor: 2e8 with `delta`.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from operators.batch import IN_ORDER, FrameBatch, ReadingBatch, Slice, Ticks
from operators.devices import Devices
from operators.spec import SECOND
from rules.spec import RuleProduct, RulesSpec, ThresholdRule
from rules.step import RulesLogic

DEVICES = 1000
RULES = 20
SECONDS_A_SLICE = 10
METRICS = tuple(f"m{at}" for at in range(RULES))
_START = 1_772_355_600 * SECOND


def _logic(condition: Callable[[str], str]) -> RulesLogic:
    devices = Devices()
    for at in range(DEVICES):
        devices.add(f"press-{at:04d}", "press-v1", "")
    rules = [
        ThresholdRule(ruleId=f"past-{name}", productId="press-v1", condition=condition(name), severity="high")
        for name in METRICS
    ]
    product = RuleProduct("press-v1", dict.fromkeys(METRICS, "number"))
    return RulesLogic(RulesSpec("bench", {"press-v1": product}, rules), devices)


def _slice(number: int) -> Slice:
    rows = DEVICES * SECONDS_A_SLICE
    seconds = np.repeat(np.arange(SECONDS_A_SLICE, dtype=np.int64), DEVICES) + number * SECONDS_A_SLICE
    times = _START + seconds * SECOND
    first = number * rows
    values = np.random.default_rng(number).uniform(20.0, 70.0, (len(METRICS), rows))
    batch = ReadingBatch(
        "press-v1",
        np.tile(np.arange(DEVICES, dtype=np.int32), SECONDS_A_SLICE),
        times,
        values,
        np.zeros(values.shape, np.uint8),
        (np.arange(first, first + rows, dtype=np.uint64) << np.uint64(16)),
        times,
        np.full(rows, IN_ORDER, np.uint8),
        np.zeros(rows, np.int32),
        {},
        Ticks.none(),
    )
    return Slice(number, first + rows, FrameBatch.none(), readings=[batch])


def _measure(condition: Callable[[str], str], warm: int, slices: int) -> dict[str, float]:
    logic = _logic(condition)
    for number in range(warm):
        logic.process(_slice(number))
    seconds = []
    for number in range(warm, warm + slices):
        item = _slice(number)
        began = time.perf_counter()
        logic.process(item)
        seconds.append(time.perf_counter() - began)
    evaluations = DEVICES * SECONDS_A_SLICE * RULES
    return {
        "evaluations_per_second": evaluations * slices / sum(seconds),
        "evaluations_per_second_median_slice": evaluations / sorted(seconds)[slices // 2],
        "state_bytes_a_device": logic.thresholds.products["press-v1"].machine.past_bytes() / DEVICES / RULES,
    }


def run() -> dict[str, object]:
    """Evaluations a second by function."""
    return {
        "delta": _measure(lambda name: f"delta({name}) > 80", 2, 60),
        "rate": _measure(lambda name: f"rate({name}) > 80", 2, 60),
        "held": _measure(lambda name: f"held({name} > 80, 10s)", 2, 60),
        "avg_1m": _measure(lambda name: f"avg({name}, 1m) > 80", 7, 10),
    }
