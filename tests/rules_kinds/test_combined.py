"""Sequence, group and reported rules through the rules stage: for every cut, over snapshots and
over the same plant applied again."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from rules.alarm import iso_ms
from rules.spec import GroupRule, ReportedRule, Rule, SequenceRule, SeverityMap, Step
from tests.reference import group as plain_group
from tests.reference import sequence as plain_sequence
from tests.rules_kinds.stage import (
    SECOND,
    START,
    Frame,
    Item,
    Tick,
    logic,
    run,
    slices,
    spec_of,
    ticked,
    told,
)

LISTED = {
    "d1": {"productId": "p", "hub_id": "h1"},
    "d2": {"productId": "q", "hub_id": "h1"},
    "d3": {"productId": "p", "hub_id": "h2"},
    "d4": {"productId": "p"},
    "d5": {"productId": "p", "hub_id": "h1", "status": "retired"},
}
PRODUCTS = ("p", "q")
RULES: list[Rule] = [
    SequenceRule(
        ruleId="seq",
        productId=["p", "q"],
        steps=["a > 5", Step(not_="b > 5", within=3 * SECOND), Step(condition="a > 5", within=4 * SECOND)],
        severity="low",
        version="1",
    ),
    GroupRule(
        ruleId="group",
        productId=["p", "q"],
        over="hub_id",
        condition="a > 5",
        when="share >= 0.5",
        on_delay=2 * SECOND,
        off_delay=3 * SECOND,
        severity="low",
        version="2",
    ),
    ReportedRule(
        ruleId="rep",
        productId="p",
        role="alert_report",
        code="code",
        raised="on == 1",
        severity=SeverityMap(from_="level", map={"3": "critical"}),
        version="3",
    ),
]

value = st.sampled_from([(1.0, "good"), (9.0, "good"), (9.0, "uncertain"), (0.0, "bad")])
steps = st.lists(
    st.tuples(
        st.sampled_from(["reading"] * 6 + ["report"]),
        st.sampled_from(list(LISTED)),
        st.sampled_from([0, 300, 1000, 2500]),
        st.sampled_from([0, 0, -700, 400]),
        st.fixed_dictionaries({}, optional={"a": value, "b": value}),
        st.booleans(),
    ),
    max_size=30,
)


def stream(drawn: list[Any]) -> list[Item]:
    items: list[Item] = []
    now = START + SECOND // 5
    newest: dict[str, int] = {}
    for kind, name, gap, ahead, values, on in drawn:
        now += gap * 1_000_000
        time = max(now + ahead * 1_000_000, newest.get(name, 0) + 1)
        newest[name] = time
        report = {"code": "E7", "on": int(on), "level": 3} if kind == "report" else None
        items.append(Frame(name, time, now, values, product=LISTED[name]["productId"], report=report))
    return ticked(items, beyond=8)


def truth(values: dict[str, tuple[float, str]], metric: str) -> bool | None:
    known, how = values.get(metric, (0.0, "absent"))
    return known > 5 if how in ("good", "uncertain") else None


def reference(items: list[Item]) -> list[tuple[str, str, str, str]]:
    """Sequence and group; reports are counted on one hand."""
    steps = [
        plain_sequence.Step(0),
        plain_sequence.Step(1, True, 3 * SECOND),
        plain_sequence.Step(0, False, 4 * SECOND),
    ]
    sequence = plain_sequence.Engine(plain_sequence.Rule(steps), SECOND)
    group = plain_group.Engine(
        lambda count, total, share: None if share is None else share >= 0.5, 2 * SECOND, 3 * SECOND, SECOND
    )
    held: dict[str, dict[str, tuple[float, str]]] = {}
    for item in items:
        if isinstance(item, Tick):
            sequence.tick(item.now)
            group.tick(item.now)
        elif isinstance(item, Frame) and item.report is None:
            now = held.setdefault(item.device, {})
            now.update(item.values)
            truths = [truth(now, "a"), truth(now, "b")]
            sequence.reading(item.device, item.time, item.ingest, truths, bool(item.values), False)
            row = LISTED[item.device]
            if "a" in item.values and row.get("hub_id") and "status" not in row:
                group.reading(f"hub:{row['hub_id']}", item.device, item.time, item.ingest, truths[0])
    found = [(f"{name}/seq", kind, iso_ms(at), iso_ms(onset)) for name, kind, at, onset, _ in sequence.events]
    found += [
        (f"{name}/group", kind, iso_ms(at), iso_ms(onset)) for name, kind, at, onset, *_ in group.events
    ]
    return sorted(found, key=lambda one: one[0])


@settings(max_examples=120, deadline=None, derandomize=True)
@given(steps, st.sets(st.integers(0, 60), max_size=6))
def test_equal_the_references_for_every_cut(drawn: list[Any], cuts: set[int]) -> None:
    items = stream(drawn)
    whole = run(logic(RULES, LISTED, PRODUCTS), items, [], PRODUCTS)
    assert [one for one in told(whole) if "/rep/" not in one[0]] == reference(items)
    assert run(logic(RULES, LISTED, PRODUCTS), items, sorted(cuts), PRODUCTS) == whole
    assert run(logic(RULES, LISTED, PRODUCTS), items, range(len(items)), PRODUCTS) == whole


@settings(max_examples=60, deadline=None, derandomize=True)
@given(steps, st.sets(st.integers(0, 60), max_size=4))
def test_go_on_over_snapshots_and_over_the_same_plant_applied(drawn: list[Any], cuts: set[int]) -> None:
    items = stream(drawn)
    undisturbed = run(logic(RULES, LISTED, PRODUCTS), items, [], PRODUCTS)
    for again in (False, True):
        events, stage = [], logic(RULES, LISTED, PRODUCTS)
        for one in slices(items, sorted(cuts), stage.devices, PRODUCTS):
            stage.process(one)
            events += one.alarms
            if again:
                stage.apply(spec_of(RULES, LISTED, PRODUCTS))
            else:
                fresh = logic(RULES, LISTED, PRODUCTS)
                fresh.restore(stage.snapshot())
                stage = fresh
        assert events == undisturbed


def test_a_report_raises_by_its_code_and_level() -> None:
    def report(at: int, code: str, on: int, level: int, *, late: bool = False) -> Frame:
        now = START + at * SECOND
        time = now - (3600 if late else 0) * SECOND
        return Frame("d1", time, now, report={"code": code, "on": on, "level": level})

    frames = [
        report(0, "E7", 1, 3),
        report(1, "E7", 1, 3),  # said already
        report(2, "E8", 1, 9),  # a level that the rule does not name
        report(3, "E9", 1, 3, late=True),  # historical
        report(4, "E7", 0, 3),
    ]
    events = run(logic(RULES, LISTED, PRODUCTS), list(frames), [], PRODUCTS)
    assert [
        (one.event["subject"], data["transition"], data["severity"], data["event_time"])
        for one in events
        if (data := one.event["data"])["transition"] != "closed"
    ] == [
        ("d1/rep/E7", "raised", "critical", iso_ms(START)),
        ("d1/rep/E8", "raised", "medium", iso_ms(START + 2 * SECOND)),
        ("d1/rep/E7", "cleared", "critical", iso_ms(START + 4 * SECOND)),
    ]
    assert events[0].event["data"]["evidence"]["values"] == {"code": "E7", "on": 1, "level": 3}


def test_a_group_names_no_device_and_counts_its_members() -> None:
    frames = [
        Frame(name, START + at, START + at, {"a": (9.0, "good")}, product=LISTED[name]["productId"])
        for at, name in enumerate(("d1", "d2", "d5"))
    ]
    events = run(logic(RULES, LISTED, PRODUCTS), ticked(frames, beyond=4), [], PRODUCTS)
    data = events[0].event["data"]
    assert events[0].event["subject"] == "hub:h1/group"
    assert (data["device_id"], data["hub_id"], data["site_id"]) == (None, "h1", None)
    assert data["evidence"]["values"] == {"count": 2, "total": 2, "share": 1.0}
    assert data["evidence"]["position"] == 2  # the last frame before the tick that found it
