"""Events that are written a batch at a time are, byte for byte, those that are written one by one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.batch import Control, Slice
from operators.devices import Devices
from operators.state.references import flag_bits
from rules import event_kernels, plain_events
from rules.alarm import iso_ms
from rules.lifecycle_table import ACTIONS
from rules.spec import Escalation, LimitRule, Limits, RuleProduct, RulesSpec, ThresholdRule
from rules.step import RulesLogic
from tests.rules_kinds.stage import SECOND, START, Frame, slices, ticked

METRICS: dict[str, Any] = {"a": "number", "b": "integer"}
DEVICES = ("p1", "p2", 'q"\\3', "übung-4", "q5", "p6")
PRODUCTS = ("p", "q")


def _rule(ruleId: str, condition: str, **keys: Any) -> ThresholdRule:
    given = {"productId": ["p", "q"], "severity": "high", "version": "0123456789ab"}
    return ThresholdRule(**(given | {"ruleId": ruleId, "condition": condition} | keys))


RULES = (
    _rule("high", "a > 50"),
    _rule("closes itself", "a > 40 or b > 5", severity="info", message="{device_id}: {a:.1f}, {b}"),
    _rule('delay "é"', "a > 45", on_delay=2 * SECOND, off_delay=SECOND, severity="low", message="{ruleId}"),
    _rule("latched", "b > 4", latch=True, message="{a} at {device.site_id}"),
    _rule("told", "b > 6", message="{transition}: {severity}", productId="p"),
    _rule("hidden", "b > 3", mode="shadow"),
    _rule("rises", "a > 60", escalate=[Escalation(after=3 * SECOND, severity="critical")], productId="q"),
    _rule("under", "a > 20", suppressed_by="high", productId="p"),
    LimitRule(ruleId="limits", productId="q", of="a", limits=Limits(HH=80, H=55, L=5), severity="medium"),
)


def _stage(seed: int = 0) -> RulesLogic:
    """Where nothing escalates, most slices have no timers, which go one by one."""
    devices = Devices()
    sites = ("", "s1")
    attributes: dict[str, Mapping[str, str]] = {
        name: {"site_id": sites[at % 2]} for at, name in enumerate(DEVICES)
    }
    for at, name in enumerate(DEVICES):
        devices.add(name, PRODUCTS[at % 2], "hub-1" if at < 2 else "")
    products = {name: RuleProduct(name, METRICS) for name in PRODUCTS}
    return RulesLogic(
        RulesSpec(
            'plant "x"', products, [one for one in RULES if seed % 3 == 0 or not one.escalate], attributes
        ),
        devices,
    )


def _items(seed: int) -> list[Frame | Any]:
    """Readings of all devices, many of which raise or clear many rules at once."""
    rng = np.random.default_rng(seed)
    items: list[Any] = []
    level = 60.0
    for second in range(12):
        level = rng.choice([3.0, 30.0, 52.5, 70.0, 1e16]) if rng.random() < 0.6 else level
        for at, name in enumerate(DEVICES):
            if rng.random() < 0.2:
                continue
            values = {"a": (float(level + at), "good"), "b": (float(rng.integers(0, 9)), "uncertain")}
            if rng.random() < 0.2:
                values.pop("b" if rng.random() < 0.7 else "a")
            time = START + second * SECOND + int(rng.integers(0, 10**9))
            ingest = START + second * SECOND + at * 1_500_000
            items.append(Frame(name, time, ingest, values, PRODUCTS[at % 2]))
    return ticked(items, beyond=5)


def _told(item: Slice) -> list[Any]:
    """All that an output gets of the events of a slice, each also as who looks at it sees it."""
    for one in item.alarms:
        event = one.event
        data = event["data"]
        assert (one.transition, one.subject) == (data["transition"], event["subject"])
        if one.brief is not None:
            of = (data["device_id"], data["productId"], flag_bits(data["state"]))
            assert one.brief[2:] == of
    events = [
        (one.position, one.device, one.ruleId, one.sequence, one.shadow, one.line) for one in item.alarms
    ]
    return [events, [(one.position, one.line) for one in item.intervals], item.answers]


def _state(stage: RulesLogic) -> Any:
    for standing in stage.alarms.standings.values():
        assert standing.data is not None  # taken from its line
    return stage.alarms.export()


@pytest.mark.parametrize("seed", range(16))
def test_in_batches_and_one_by_one(seed: int) -> None:
    rng = np.random.default_rng(1000 + seed)
    cuts = rng.integers(1, 80, int(rng.integers(0, 8))).tolist()
    batched, single = _stage(seed), _stage(seed)
    for number, item in enumerate(slices(_items(seed), cuts, batched.devices, PRODUCTS)):
        items = []
        for stage, fewest in ((batched, 1), (single, 10**9)):
            copy = Slice(
                item.last_entry, item.position, item.frames, item.control, item.sources, item.readings
            )
            with patch.object(plain_events, "FEWEST", fewest):
                stage.process(copy)
            items.append(copy)
        assert _told(items[0]) == _told(items[1])
        assert all(one.brief is None for one in items[1].alarms)
        names = sorted(single.alarms.by_id)
        assert sorted(batched.alarms.by_id) == names
        if names and rng.random() < 0.7:
            told = {
                "kind": "alarm",
                "id": "1",
                "by": "kim",
                "action": str(rng.choice(ACTIONS)),
                "alarm_id": str(rng.choice(names)),
                "until_ms": (START + 20 * SECOND) // 1_000_000,
            }
            acted = []
            for stage in (batched, single):
                at_ns = START + (number + 1) * SECOND
                acted.append(Slice(0, item.position, item.frames, Control("action", at_ns, told)))
                acted[-1].frames = item.frames.none()
                stage.process(acted[-1])
            assert _told(acted[0]) == _told(acted[1])
        if rng.random() < 0.5:  # what one has written the other goes on from
            snapshots = [stage.snapshot() for stage in (single, batched)]
            batched, single = _stage(seed), _stage(seed)
            for stage, snapshot in zip((batched, single), snapshots, strict=True):
                stage.restore(snapshot)
    assert _state(batched) == _state(single)


def test_most_of_them_are_written_in_batches() -> None:
    """The test above would be true of a stage that writes none so."""
    stage = _stage(1)
    found = [
        one for item in slices(_items(1), [30], stage.devices, PRODUCTS) for one in _process(stage, item)
    ]
    in_batches = [one.transition for one in found if one.brief is not None]
    assert len(in_batches) > len(found) / 2
    assert set(in_batches) == {"raised", "cleared", "closed"}


def _process(stage: RulesLogic, item: Slice) -> Any:
    with patch.object(plain_events, "FEWEST", 1):
        stage.process(item)
    return item.alarms


@given(text=st.binary(max_size=300))
@settings(deadline=None)  # the first one loads the kernel
def test_hashes_are_those_of_the_standard(text: bytes) -> None:
    room, out = np.zeros(len(text) + 72, np.uint8), np.zeros(32, np.uint8)
    room[: len(text)] = np.frombuffer(text, np.uint8)
    event_kernels.sha256(room, len(text), event_kernels.K, np.empty(72, np.uint32), out, 0)
    assert bytes(out).decode() == hashlib.sha256(text).hexdigest()[:32]


@given(ns=st.integers(0, 2**63 - 1))
@settings(deadline=None)
def test_times_are_cut_down_to_milliseconds(ns: int) -> None:
    out = np.zeros(24, np.uint8)
    event_kernels.stamp(out, 0, ns)
    assert bytes(out).decode() == iso_ms(ns)
