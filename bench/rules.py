"""Question: how many rule evaluations a second does the rules stage make on one core, in a quiet
plant and with conditions true in 5 % of the rows?

Input: one product of 4 metrics, 1,000 devices, 20 threshold rules with a 10 s on-delay, readings of
1 s in slices of 10,000 rows. Quiet: no condition is ever true. 5 %: in every rule's metric one device
in twenty lies beyond its bound, 10 minutes long and then another, so that delays run and 2,000 alarms
are raised and 1,000 cleared over the 15 minutes measured. One evaluation is one rule on one reading;
the time is that of the whole stage, lines of events included (they are most of it where
alarms change often: see `seconds_an_event`). Kernels and memory are as in a flow that runs.

Floors (an issue later than this file): 2e9 quiet, 5e8 with 5 %.
"""

from __future__ import annotations

import time

import numpy as np

from connectors.memory import settle_memory
from operators.batch import IN_ORDER, Float64, FrameBatch, ReadingBatch, Slice, Ticks
from operators.devices import Devices
from operators.jit import warm_up
from operators.spec import SECOND
from rules.spec import RuleProduct, RulesSpec, ThresholdRule
from rules.step import RulesLogic

DEVICES = 1000
RULES = 20
SECONDS_A_SLICE = 10
METRICS = ("tempC", "rpm", "vibration", "pressure")
_START = 1_772_355_600 * SECOND


def _logic() -> RulesLogic:
    devices = Devices()
    for at in range(DEVICES):
        devices.add(f"press-{at:04d}", "press-v1", "")
    rules = [
        ThresholdRule(
            ruleId=f"high-{at}",
            productId="press-v1",
            condition=f"{METRICS[at % 4]} > {80 + at // 4}",
            on_delay=10 * SECOND,
            severity="high",
        )
        for at in range(RULES)
    ]
    product = RuleProduct("press-v1", dict.fromkeys(METRICS, "number"))
    return RulesLogic(RulesSpec("bench", {"press-v1": product}, rules), devices)


def _slice(number: int, values: Float64) -> Slice:
    rows = DEVICES * SECONDS_A_SLICE
    seconds = np.repeat(np.arange(SECONDS_A_SLICE, dtype=np.int64), DEVICES) + number * SECONDS_A_SLICE
    times = _START + seconds * SECOND
    first = number * rows
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
        Ticks(
            np.arange(1, SECONDS_A_SLICE + 1, dtype=np.int64) * DEVICES,
            _START + (np.arange(1, SECONDS_A_SLICE + 1) + number * SECONDS_A_SLICE) * SECOND,
        ),
    )
    return Slice(number, first + rows, FrameBatch.none(), readings=[batch])


def _values(number: int, share: float) -> Float64:
    """Metrics of one slice: 20..70, and 100 where a device lies beyond every bound."""
    rng = np.random.default_rng(number)
    values = rng.uniform(20.0, 70.0, (len(METRICS), DEVICES * SECONDS_A_SLICE))
    group = number * SECONDS_A_SLICE // 600
    beyond = (
        np.arange(DEVICES) % round(1 / share) == group % round(1 / share)
        if share
        else np.zeros(DEVICES, bool)
    )
    values[:, np.tile(beyond, SECONDS_A_SLICE)] = 100.0
    return values


def _measure(share: float, slices: int = 90) -> dict[str, float]:
    logic = _logic()
    logic.process(_slice(0, _values(0, 0.0)))
    seconds, busy, events = [], 0.0, 0
    for number in range(1, slices + 1):
        item = _slice(number, _values(number, share))
        began = time.perf_counter()
        logic.process(item)
        seconds.append(time.perf_counter() - began)
        if item.alarms:
            busy += seconds[-1]
            events += len(item.alarms)
    evaluations = DEVICES * SECONDS_A_SLICE * RULES
    middle = sorted(seconds)[slices // 2]
    return {
        "evaluations_per_second": evaluations * slices / sum(seconds),
        "evaluations_per_second_median_slice": evaluations / middle,
        "events": events,
        "seconds_an_event": busy / events if events else 0.0,
    }


def run() -> dict[str, object]:
    """Evaluations a second of the stage, quiet and with 5 % of the conditions true."""
    warm_up()
    settle_memory()
    return {"quiet": _measure(0.0), "five_percent": _measure(0.05)}
