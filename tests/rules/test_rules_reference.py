"""The rules stage against the plain reference: random rules and streams, every cut, ticks one by
one and compressed, snapshots in between."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.batch import (
    HISTORICAL,
    IN_ORDER,
    QUALITY_NAMES,
    REBASED,
    AlarmEvent,
    FrameBatch,
    ReadingBatch,
    Slice,
    Ticks,
)
from operators.devices import Devices
from operators.text import text_code
from rules.alarm import iso_ms
from rules.spec import RuleProduct, RulesSpec, ThresholdRule
from rules.step import RulesLogic
from tests.reference import rules as plain
from tests.reference.expression import text_of, value_of

SECOND = 1_000_000_000
MS = 1_000_000
START = 1_772_355_600
METRICS = {"a": "number", "b": "number", "mode": "string", "on": "boolean", "n": "integer"}
NAMES = ("press-01", "press-02", "press-03")


@dataclass
class Item:
    """A reading, or (reading None) a tick of the journal's clock."""

    reading: plain.Reading | None
    now: int


# -- what is drawn

value_of_metric = {
    "a": st.sampled_from([70.0, 79.0, 80.0, 81.0, 90.0]),
    "b": st.sampled_from([1.0, 2.5, 4.0]),
    "mode": st.sampled_from(["run", "idle"]),
    "on": st.booleans(),
    "n": st.integers(0, 3),
}
carried = st.fixed_dictionaries(
    {},
    optional={
        name: st.tuples(values, st.sampled_from(["good", "good", "good", "good", "uncertain", "bad"]))
        for name, values in value_of_metric.items()
    },
)

simple = st.sampled_from(
    [
        (">", ("name", "a"), ("number", 80.0)),
        (">=", ("name", "a"), ("number", 79.0)),
        ("<", ("name", "b"), ("number", 2.5)),
        ("==", ("name", "mode"), ("text", "run")),
        ("name", "on"),
        (">", ("+", ("name", "a"), ("name", "b")), ("name", "param.high")),
        ("==", ("name", "device.site_id"), ("text", "ulsan")),
        (">", ("name", "n"), ("number", 1.0)),
    ]
)
compound = st.one_of(
    simple,
    st.tuples(st.sampled_from(["and", "or"]), simple, simple),
    simple.map(lambda c: ("not", c)),
)
naming = compound.filter(lambda c: "device" not in text_of(c) or "a" in metrics_in(c) or "b" in metrics_in(c))


def metrics_in(node: Any) -> tuple[str, ...]:
    if node[0] == "name":
        return (node[1],) if node[1] in METRICS else ()
    found: dict[str, None] = {}
    for part in node[1:]:
        if isinstance(part, tuple):
            found.update(dict.fromkeys(metrics_in(part)))
    return tuple(found)


@dataclass
class Drawn:
    condition: Any
    clear: Any
    on_delay: int
    off_delay: int
    severity: str


drawn_rules = st.lists(
    st.builds(
        Drawn,
        naming,
        st.none() | naming,
        st.sampled_from([0, 0, 2, 5, 11]),
        st.sampled_from([0, 0, 3, 7]),
        st.sampled_from(["high", "low"]),
    ),
    min_size=1,
    max_size=4,
)
steps = st.lists(
    st.tuples(
        st.sampled_from(["reading"] * 8 + ["late", "historical", "rebased", "silence"]),
        st.integers(0, 2),  # device
        st.sampled_from([0, 0, 300, 1000, 1500, 4000, 9000]),  # ms since the item before
        st.sampled_from([0, 0, 0, 200, 2000]),  # how much the device's clock runs on, ms
        carried,
    ),
    max_size=40,
)


def stream(drawn: list[Any]) -> list[Item]:
    """Readings and a tick at every whole second, as a journal would hold them."""
    items: list[Item] = []
    now, position = START * 1000 + 500, 0
    newest: dict[str, int] = {}
    for kind, device, gap, ahead, values in drawn:
        later = now + gap + (25_000 if kind == "silence" else 0)
        items += [Item(None, second * 1000) for second in range(now // 1000 + 1, later // 1000 + 1)]
        now = later
        name = NAMES[device]
        if kind == "silence":
            continue
        if gap or not items or items[-1].reading is None:  # else one more reading of the same frame
            position += 1
        time = max(now + ahead, newest.get(name, 0) + 1)
        if kind == "late":
            time = newest.get(name, now) - 100
        if kind == "rebased":
            time = newest.get(name, now) - 3000
        reading = plain.Reading(
            name,
            time,
            now,
            position,
            values,
            in_order=kind != "late",
            historical=kind == "historical",
            rebased=kind == "rebased",
        )
        if kind in ("reading", "rebased"):
            newest[name] = time
        items.append(Item(reading, now))
    return items


# -- both sides


def reference(items: list[Item], rules: list[Drawn], stale: int | None) -> list[plain.Event]:
    def condition(tree: Any) -> plain.Condition:
        return lambda values: value_of(tree, values)

    made = []
    for at, rule in enumerate(rules):
        clear = ("not", rule.condition) if rule.clear is None else rule.clear
        used = dict.fromkeys(metrics_in(rule.condition) + (metrics_in(rule.clear) if rule.clear else ()))
        made.append(
            plain.Rule(
                f"rule-{at}",
                tuple(used),
                metrics_in(rule.condition),
                condition(rule.condition),
                condition(clear),
                rule.on_delay * 1000,
                rule.off_delay * 1000,
                rule.severity == "high",
            )
        )
    engine = plain.Engine(made, stale, 1000)
    inner = engine.now
    own = {"press-01": 82.0, "press-02": 81.0, "press-03": 81.0}

    def now(device: Any) -> Any:  # parameters and attributes are values that never change
        found = inner(device)
        if device.last is not None:
            name = device.last.device
            found["param.high"] = (own[name], "good")
            found["device.site_id"] = (
                {"press-01": "ulsan", "press-02": None, "press-03": "busan"}[name],
                "good",
            )
        return found

    engine.now = now  # type: ignore[method-assign]  # the reference knows metrics only
    for item in items:
        if item.reading is None:
            engine.tick(item.now)
        else:
            engine.reading(item.reading)
    return engine.events


def logic(rules: list[Drawn], stale: int | None) -> RulesLogic:
    devices = Devices()
    for name in NAMES:
        devices.add(name, "press-v1", "")
    attributes = {
        "press-01": {"site_id": "ulsan", "high": "82"},
        "press-02": {"site_id": "", "high": ""},
        "press-03": {"site_id": "busan", "high": ""},
    }
    product = RuleProduct("press-v1", METRICS, {"high": 81.0}, (stale or 0) * MS)  # type: ignore[arg-type]
    made = [
        ThresholdRule(
            ruleId=f"rule-{at}",
            productId="press-v1",
            condition=text_of(rule.condition),
            clear_condition=None if rule.clear is None else text_of(rule.clear),
            on_delay=rule.on_delay * SECOND,
            off_delay=rule.off_delay * SECOND,
            severity=rule.severity,  # type: ignore[arg-type]
            version=f"v{at}",
        )
        for at, rule in enumerate(rules)
    ]
    return RulesLogic(RulesSpec("press-line", {"press-v1": product}, made, attributes), devices)


def number(value: Any, quality: str) -> float:
    if quality == "bad":
        return math.nan
    return float(text_code(value)) if isinstance(value, str) else float(value)


def batch_of(items: list[Item]) -> ReadingBatch:
    """Items as one batch, ticks placed among the rows."""
    readings = [item.reading for item in items if item.reading is not None]
    n = len(readings)
    value = np.full((len(METRICS), n), np.nan)
    quality = np.full((len(METRICS), n), 3, np.uint8)
    texts = {}
    for row, reading in enumerate(readings):
        for name, (what, how) in reading.values.items():
            value[list(METRICS).index(name), row] = number(what, how)
            quality[list(METRICS).index(name), row] = QUALITY_NAMES.index(how)
            if isinstance(what, str):
                texts[text_code(what)] = what
    tick_rows, tick_ns, row = [], [], 0
    for item in items:
        if item.reading is None:
            tick_rows.append(row)
            tick_ns.append(item.now * MS)
        else:
            row += 1
    flags = [
        (IN_ORDER if r.in_order else 0) | (HISTORICAL if r.historical else 0) | (REBASED if r.rebased else 0)
        for r in readings
    ]
    return ReadingBatch(
        "press-v1",
        np.array([NAMES.index(r.device) for r in readings], np.int32),
        np.array([r.time * MS for r in readings], np.int64),
        value,
        quality,
        np.array([r.position << 16 for r in readings], np.uint64),
        np.array([r.ingest * MS for r in readings], np.int64),
        np.array(flags, np.uint8),
        np.zeros(n, np.int32),
        texts,
        Ticks(np.array(tick_rows, np.int64), np.array(tick_ns, np.int64)),
    )


def slice_of(items: list[Item]) -> Slice:
    return Slice(1, 0, FrameBatch.none(), readings=[batch_of(items)])


def compressed(items: list[Item]) -> list[Item]:
    """Of ticks with no reading between, the last alone."""
    return [
        item
        for item, after in zip(items, [*items[1:], None], strict=False)
        if item.reading is not None or after is None or after.reading is not None
    ]


def run(stage: RulesLogic, items: list[Item], size: int) -> list[AlarmEvent]:
    events: list[AlarmEvent] = []
    for at in range(0, len(items), size):
        item = slice_of(items[at : at + size])
        stage.process(item)
        events += [event for event in item.alarms if event.ruleId != "device-clock"]  # of its own test
    return events


def told(event: AlarmEvent) -> tuple[Any, ...]:
    data = event.event["data"]
    evidence = data["evidence"]
    return (
        event.position, event.event["subject"], int(event.sequence) & 0xFFFF, data["transition"],
        data["onset_time"], data["event_time"], data["ingest_time"], evidence["values"], evidence["quality"],
    )  # fmt: skip


def expected(event: plain.Event) -> tuple[Any, ...]:
    return (
        event.position, event.subject, event.n, event.transition, iso_ms(event.onset * MS),
        iso_ms(event.time * MS), iso_ms(event.ingest * MS), event.values, event.quality,
    )  # fmt: skip


def in_order(events: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return sorted(events, key=lambda event: event[:3])


@settings(max_examples=100, deadline=None, derandomize=True)
@given(drawn_rules, steps, st.sampled_from([None, None, 3000, 10_000]), st.integers(1, 9))
def test_the_stage_equals_the_reference_for_every_cut(
    rules: list[Drawn], drawn: list[Any], stale: int | None, cut: int
) -> None:
    rules = [rule for rule in rules if metrics_in(rule.condition)]
    if not rules:
        return
    items = stream(drawn)
    wanted = in_order([expected(event) for event in reference(items, rules, stale)])
    for size in (1, cut, len(items) or 1):
        found = run(logic(rules, stale), items, size)
        assert in_order([told(event) for event in found]) == wanted
    fewer = compressed(items)
    found = run(logic(rules, stale), fewer, cut)
    assert in_order([told(event) for event in found]) == wanted


@settings(max_examples=40, deadline=None, derandomize=True)
@given(drawn_rules, steps, st.integers(0, 60), st.integers(1, 9))
def test_a_restored_stage_goes_on_bit_for_bit(
    rules: list[Drawn], drawn: list[Any], at: int, cut: int
) -> None:
    rules = [rule for rule in rules if metrics_in(rule.condition)]
    if not rules:
        return
    items = stream(drawn)
    undisturbed = run(logic(rules, 5000), items, cut)
    first = logic(rules, 5000)
    before = run(first, items[:at], cut)
    second = logic(rules, 5000)
    second.restore(first.snapshot())
    after = run(second, items[at:], cut)
    key = lambda event: (event.position, event.event["subject"], event.sequence)  # noqa: E731
    assert sorted(before + after, key=key) == sorted(undisturbed, key=key)
    assert second.export_active() == [
        data for data in second.export_active() if data["transition"] != "closed"
    ]


def test_sequences_rise_for_every_subject() -> None:
    rules = [Drawn((">", ("name", "a"), ("number", 80.0)), None, 2, 3, "high")]
    drawn = [("reading", at % 2, 1000, 0, {"a": (90.0 if at % 5 < 3 else 70.0, "good")}) for at in range(60)]
    seen: dict[str, str] = {}
    for event in run(logic(rules, None), stream(drawn), 7):
        subject = event.event["subject"]
        assert event.sequence > seen.get(subject, "")
        seen[subject] = event.sequence
    assert len(seen) == 2


def test_more_events_than_the_table_holds() -> None:
    rules = [Drawn((">", ("name", "a"), ("number", 80.0)), None, delay, 0, "low") for delay in (0, 1)]
    drawn = [("reading", 0, 1000, 0, {"a": (90.0 if at % 2 else 70.0, "good")}) for at in range(300)]
    items = stream(drawn)
    whole = run(logic(rules, None), items, len(items))
    tight = logic(rules, None)
    tight.thresholds.products["press-v1"].events = np.zeros((4, 9), np.int64)
    assert run(tight, items, len(items)) == whole
    assert len(whole) > 400
    assert tight.counters() == {
        "rule-0": {"evaluations": 300, "raised": 150, "cleared": 149},
        "rule-1": {"evaluations": 300, "raised": 149, "cleared": 149},
    }
