"""Rules that look at the past, through the whole rules stage: held values, bad quality, readings out
of order and historical ones, several of a device in one slice, for every cut and over snapshots."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from operators.devices import Devices
from operators.expression.program import MetricType
from rules.spec import RuleProduct, RulesSpec, ThresholdRule
from rules.step import RulesLogic
from tests.contract.slices import slice_of
from tests.expression.test_temporal import conditions
from tests.reference.expression import text_of
from tests.reference.temporal import Past

SECOND = 1_000_000_000
T0_MS = 1_772_355_600_000
STALE_MS = 6000
KINDS: dict[str, MetricType] = {"a": "number", "b": "number", "mode": "string", "on": "boolean"}
DEVICES = ("p1", "p2")

values = {
    "a": st.sampled_from([None, 0.0, 1.0, 2.5, 80.0, -7.25]),
    "b": st.sampled_from([None, 0.1, 2.5]),
    "mode": st.sampled_from([None, "run", "idle"]),
    "on": st.sampled_from([None, True, False]),
}
one_reading = st.fixed_dictionaries(
    {
        "device": st.sampled_from(DEVICES),
        "step": st.sampled_from([500, 1000, 2500, 7000]),
        "flags": st.sampled_from(
            [("in_order",)] * 6 + [("in_order", "rebased"), ("in_order", "historical"), ()]
        ),
        "values": st.fixed_dictionaries({}, optional=values),
        "bad": st.sampled_from([None, None, None, "a", "on"]),
    }
)


def made(readings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    clock = dict.fromkeys(DEVICES, T0_MS)
    found = []
    for frame, one in enumerate(readings):
        at = clock[one["device"]] + one["step"]
        if "rebased" in one["flags"]:
            at -= 3_600_000
        if one["flags"]:
            clock[one["device"]] = at
        else:
            at -= 2 * one["step"]
        bad = {one["bad"]: "bad"} if one["bad"] in one["values"] else {}
        found.append(
            {**one, "frame": frame, "ts": at * 1_000_000, "ingest": at * 1_000_000, "qualities": bad}
        )
    return found


def names_in(tree: Any) -> set[str]:
    if not isinstance(tree, tuple):
        return set()
    if tree[0] == "name":
        return {tree[1]} & set(KINDS)
    return set().union(*(names_in(part) for part in tree))


def expected(trees: list[Any], readings: list[dict[str, Any]]) -> list[tuple[str, str, str, int]]:
    """(device, rule, transition, time in ms) of every raise and return to normal."""
    found = []
    past = {device: Past(trees) for device in DEVICES}
    held: dict[str, dict[str, tuple[Any, int]]] = {device: {} for device in DEVICES}
    active: set[tuple[str, int]] = set()
    for one in readings:
        if "in_order" not in one["flags"] or "historical" in one["flags"]:
            continue
        device, ms = one["device"], one["ts"] // 1_000_000
        names: dict[str, Any] = {"param.limit": 80.0}
        for name in KINDS:
            if name in one["values"]:
                value = None if name in one["qualities"] else one["values"][name]
                held[device][name] = (value, ms)
            value, since = held[device].get(name, (None, ms))
            if "rebased" in one["flags"] and since > ms:
                since = ms
                held[device][name] = (value, since)
            names[name] = None if ms - since > STALE_MS else value
        told = past[device].read(ms, names, rebased="rebased" in one["flags"])
        for number, (tree, truth) in enumerate(zip(trees, told, strict=True)):
            if not names_in(tree) & set(one["values"]):
                continue
            key = (device, number)
            if truth is True and key not in active:
                active.add(key)
                found.append((device, f"r{number}", "raised", ms))
            elif truth is False and key in active:
                active.discard(key)
                found.append((device, f"r{number}", "cleared", ms))
    return found


def logic_of(trees: list[Any]) -> RulesLogic:
    rules = [
        ThresholdRule(ruleId=f"r{at}", productId="p", condition=text_of(tree), severity="low", version="1")
        for at, tree in enumerate(trees)
    ]
    product = RuleProduct("p", KINDS, {"limit": 80.0}, STALE_MS * 1_000_000)
    devices = Devices()
    for device in DEVICES:
        devices.add(device, "p", "")
    return RulesLogic(RulesSpec("line", {"p": product}, rules), devices)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.lists(conditions(3).filter(names_in), min_size=1, max_size=4),
    st.lists(one_reading, max_size=30),
    st.sets(st.integers(0, 30), max_size=4),
)
def test_rules_over_the_past_equal_the_reference_for_every_cut(
    trees: list[Any], readings: list[dict[str, Any]], cuts: set[int]
) -> None:
    readings = made(readings)
    logic = logic_of(trees)
    found = []
    edges = sorted({0, len(readings), *(cut for cut in cuts if cut < len(readings))})
    for start, stop in pairwise(edges):
        item = slice_of(readings[start:stop], KINDS, logic.devices)
        logic.process(item)
        for alarm in item.alarms:
            data = alarm.event["data"]
            if data["transition"] in ("raised", "cleared") and data["ruleId"] != "device-clock":
                found.append((data["device_id"], data["ruleId"], data["transition"], data["event_time"]))
        fresh = logic_of(trees)
        fresh.restore(logic.snapshot())
        logic = fresh
    wanted = [(*one[:3], _iso(one[3])) for one in expected(trees, readings)]
    assert sorted(found) == sorted(wanted)


def _iso(ms: int) -> str:
    return datetime.fromtimestamp(ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{ms % 1000:03d}Z"
