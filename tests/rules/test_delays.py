"""Blocks of running delays: given to devices with a rule that is not idle, and taken back."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.batch import IN_ORDER, Slice
from operators.devices import Devices
from operators.spec import SECOND
from rules.spec import RuleProduct, RulesSpec, ThresholdRule
from rules.step import RulesLogic
from tests.contract.slices import slice_of

T0 = 1_772_355_600 * SECOND
RULES = [
    ThresholdRule(ruleId="at-once", productId="p", condition="v > 1", severity="low"),
    ThresholdRule(
        ruleId="delayed",
        productId="p",
        condition="v > 2",
        severity="low",
        on_delay=2 * SECOND,
        off_delay=SECOND,
    ),
]


def made(frame: int, values: list[tuple[int, int]], devices: Devices) -> Slice:
    rows = [
        {
            "device": f"d{device}",
            "frame": frame + at,
            "ts": T0 + (frame + at) * SECOND,
            "ingest": T0 + (frame + at) * SECOND,
            "flags": ("in_order",),
            "values": {"v": value},
            "qualities": {},
        }
        for at, (device, value) in enumerate(values)
    ]
    return slice_of(rows, {"v": "number"}, devices)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 4)), min_size=1, max_size=120), st.integers(1, 50)
)
def test_a_device_has_a_block_while_a_rule_of_it_is_not_idle(values, cut):
    devices = Devices()
    logic = RulesLogic(RulesSpec("works", {"p": RuleProduct("p", {"v": "number"})}, RULES), devices)
    for start in range(0, len(values), cut):
        item = made(start, values[start : start + cut], devices)
        assert all((batch.flags & IN_ORDER).all() for batch in item.readings)
        logic.process(item)
        delays = logic.thresholds.products["p"].delays
        running = ((delays.phase & 3) != 0).sum(axis=0)
        assert delays.running.tolist() == running.tolist()
        assert ((delays.block >= 0) == (running > 0)).all()
        assert delays.busy.tolist() == ((delays.phase & 3) != 0).sum(axis=1).tolist()
        held = delays.block[delays.block >= 0].tolist()
        free = delays.free[: int(delays.free_count[0])].tolist()
        assert sorted(held + free) == list(range(len(delays.pool)))
        restored = RulesLogic(logic.spec, devices)
        restored.restore(logic.snapshot())
        logic = restored
    assert np.unique(delays.block[delays.block >= 0]).size == (delays.block >= 0).sum()
