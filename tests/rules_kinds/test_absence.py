"""Absence rules through the rules stage, against the plain reference."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from operators.batch import Control
from rules.alarm import iso_ms
from rules.spec import AbsenceRule
from tests.reference import absence as plain
from tests.rules_kinds.stage import SECOND, START, Frame, Item, Tick, logic, run, spec_of, ticked, told

NAMES = ("d1", "d2", "d3")
LISTED = {
    "d1": {"productId": "p", "status": "in_service"},
    "d2": {"productId": "p"},
    "d3": {"productId": "p", "status": "maintenance"},
    "d4": {"productId": "p"},  # never heard
}


def rules(wait: int) -> list[AbsenceRule]:
    return [
        AbsenceRule(ruleId="any", productId="p", for_=wait * SECOND, severity="low", version="1"),
        AbsenceRule(ruleId="of-a", productId="p", for_=wait * SECOND, of="a", severity="low", version="2"),
    ]


steps = st.lists(
    st.tuples(
        st.sampled_from(
            ["reading"] * 8 + ["rebased", "late", "historical", "connected", "disconnected", "started"]
        ),
        st.integers(0, 2),  # device
        st.sampled_from([0, 200, 1000, 2500, 7000]),  # ms since the item before
        st.sampled_from([0, 0, -400, 700]),  # its clock, ms
        st.sampled_from(["good", "uncertain", "bad", None]),  # quality of a
        st.sampled_from(["line1", "line1", "line2"]),
    ),
    max_size=25,
)


def stream(drawn: list[Any]) -> list[Item]:
    items: list[Item] = []
    now = START + SECOND // 5
    newest: dict[str, int] = {}
    for kind, device, gap, ahead, quality, source in drawn:
        now += gap * 1_000_000
        if kind in ("connected", "disconnected"):
            items.append(Control(kind, now, {"source": source}))
            continue
        if kind == "started":
            items.append(Control(kind, now, {"clean": True}))
            continue
        name = NAMES[device]
        time = max(now + ahead * 1_000_000, newest.get(name, 0) + 1)
        if kind in ("rebased", "late"):
            time = newest.get(name, now) - 3 * SECOND
        if kind not in ("late", "historical"):
            newest[name] = time
        items.append(
            Frame(
                name, time, now, {} if quality is None else {"a": (1.0, quality)}, source=source,
                historical=kind == "historical", rebased=kind == "rebased", in_order=kind != "late",
            )
        )  # fmt: skip
    return ticked(items, beyond=9)


def reference(items: list[Item], wait: int) -> list[tuple[str, str, str, str]]:
    found = []
    for rule, of_metric in (("any", False), ("of-a/a", True)):
        listed = {name: row.get("status", "in_service") == "in_service" for name, row in LISTED.items()}
        engine = plain.Engine(wait * SECOND, SECOND, of_metric, listed)
        clock = 0
        for item in items:
            if isinstance(item, Tick):
                engine.tick(item.now)
                clock = item.now
            elif isinstance(item, Control):
                if item.kind == "started":
                    engine.restarted(clock or item.at_ns)
                else:
                    engine.control(item.data["source"], item.kind == "connected", item.at_ns)
                clock = item.at_ns
            else:
                engine.begin(item.ingest)
                clock = item.ingest
                if item.in_order and not item.historical:
                    usable = item.values.get("a", (0, ""))[1] in ("good", "uncertain")
                    engine.reading(item.device, item.time, item.ingest, item.source, usable, item.rebased)
        found += [
            (f"{name}/{rule}", kind, iso_ms(at), iso_ms(onset)) for name, kind, at, onset in engine.events
        ]
    return sorted(found, key=lambda one: one[0])


@settings(max_examples=150, deadline=None, derandomize=True)
@given(steps, st.sampled_from([2, 5]), st.sets(st.integers(0, 60), max_size=6))
def test_equals_the_reference_for_every_cut(drawn: list[Any], wait: int, cuts: set[int]) -> None:
    items = stream(drawn)
    wanted = reference(items, wait)
    whole = run(logic(rules(wait), LISTED), items, [])
    assert [one for one in told(whole) if "device-clock" not in one[0]] == wanted
    assert run(logic(rules(wait), LISTED), items, sorted(cuts)) == whole
    assert run(logic(rules(wait), LISTED), items, range(len(items))) == whole


@settings(max_examples=60, deadline=None, derandomize=True)
@given(steps, st.integers(0, 40))
def test_a_restored_stage_goes_on_and_so_does_one_with_the_same_plant_applied(
    drawn: list[Any], at: int
) -> None:
    items = stream(drawn)
    undisturbed = run(logic(rules(3), LISTED), items, [at])
    for again in (False, True):
        events, stage = [], logic(rules(3), LISTED)
        from tests.rules_kinds.stage import slices

        for one in slices(items, [at], stage.devices):
            stage.process(one)
            events += one.alarms
            if again:
                stage.apply(spec_of(rules(3), LISTED))
            else:
                fresh = logic(rules(3), LISTED)
                fresh.restore(stage.snapshot())
                stage = fresh
        assert events == undisturbed


def test_a_device_that_was_never_heard_is_told_with_the_frame_before() -> None:
    items = ticked([Frame("d1", START, START, {"a": (1.0, "good")})], beyond=8)
    events = [e for e in run(logic(rules(5)[:1], LISTED), items, []) if e.device == "d4"]
    assert [one.event["data"]["transition"] for one in events] == ["raised"]
    data = events[0].event["data"]
    assert (data["onset_time"], data["event_time"]) == (iso_ms(START), iso_ms(START + 5 * SECOND))
    assert data["evidence"] == {
        "expression": "no reading for 5s", "values": {}, "quality": "absent", "position": 0
    }  # fmt: skip


def test_a_rule_that_a_changed_plant_brings_waits_from_then_on() -> None:
    stage = logic([], LISTED)
    early = ticked([Frame("d1", START, START, {"a": (1.0, "good")})], beyond=20)
    assert run(stage, early, []) == []
    stage.apply(spec_of(rules(5)[:1], LISTED))
    now = START + 21 * SECOND
    later = ticked([Control("plant", now, {"sha256": "", "files": {}})], beyond=10)
    wanted = [(f"{name}/any", "raised", iso_ms(now + 5 * SECOND), iso_ms(now)) for name in ("d1", "d2", "d4")]
    assert told(run(stage, later, [])) == wanted
