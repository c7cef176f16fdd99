"""The lifecycle of alarms against a plain reference: random rules of every shape, random histories of
readings, ticks and operators' actions, for every cut of the input and over snapshots."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.batch import (
    IN_ORDER,
    QUALITY_NAMES,
    REBASED,
    AlarmEvent,
    Control,
    FrameBatch,
    ReadingBatch,
    Slice,
    Ticks,
)
from operators.devices import Devices
from rules.alarm import iso_ms
from rules.spec import (
    Escalation,
    LimitRule,
    Limits,
    LimitSeverity,
    Rule,
    RuleProduct,
    RulesSpec,
    Schedule,
    ThresholdRule,
)
from rules.step import RulesLogic
from tests.reference import alarms as plain
from tests.reference.expression import text_of, value_of

SECOND = 1_000_000_000
MS = 1_000_000
START = 1_772_355_600  # 2026-03-01T09:00:00Z
METRICS = ("a", "b")
NAMES = ("press-01", "press-02")
SITES = {"press-01": "ulsan", "press-02": "busan"}
FACTS = {name: {"device.site_id": site} for name, site in SITES.items()}


@dataclass
class Drawn:
    """A rule as both sides read it."""

    condition: Any
    clear: Any
    where: Any
    window: bool  # the first 20 s of each minute
    severity: str
    on_delay: int
    off_delay: int
    acknowledge: str | None
    latch: bool
    max_shelve: int | None
    steps: tuple[tuple[int, bool, str | None], ...]
    suppressed: int  # bits of the rules before it
    shadow: bool


@dataclass
class Did:
    """An operator's action; `which` counts back over the occurrences so far."""

    name: str
    which: int
    until: int | None
    alarm_id: tuple[str, int] = ("", 0)


@dataclass
class Item:
    now: int
    reading: plain.Reading | None = None
    did: Did | None = None  # neither: a tick
    before: int = 0  # position of the last frame so far


# -- what is drawn

comparison = st.sampled_from(
    [
        (">", ("name", "a"), ("number", 80.0)),
        ("<", ("name", "a"), ("number", 75.0)),
        (">", ("name", "b"), ("number", 2.0)),
    ]
)
condition = comparison | st.tuples(st.sampled_from(["and", "or"]), comparison, comparison)
where = st.sampled_from(
    [None, None, ("==", ("name", "device.site_id"), ("text", "ulsan")), ("<", ("name", "b"), ("number", 4.0))]
)
step = st.tuples(st.sampled_from([1000, 3000]), st.booleans(), st.sampled_from(["critical", None, "high"]))
drawn_rule = st.builds(
    Drawn,
    condition,
    st.sampled_from([None, None, ("<", ("name", "a"), ("number", 79.0))]),
    where,
    st.sampled_from([False, False, True]),
    st.sampled_from(["critical", "high", "low", "info"]),
    st.sampled_from([0, 0, 2000, 5000]),
    st.sampled_from([0, 0, 3000]),
    st.sampled_from([None, None, "none", "required"]),
    st.sampled_from([False, False, True]),
    st.sampled_from([None, 4000, 20_000]),
    st.lists(step, max_size=2).map(tuple),
    st.integers(0, 7),
    st.sampled_from([False, False, False, True]),
)
limits = st.none() | st.tuples(st.sampled_from([0.0, 2.0]), st.sampled_from([0, 2000]), st.booleans())
carried = st.fixed_dictionaries(
    {},
    optional={
        "a": st.tuples(
            st.sampled_from([60.0, 74.0, 79.5, 81.0, 95.0]), st.sampled_from(["good", "good", "good", "bad"])
        ),
        "b": st.tuples(
            st.sampled_from([1.0, 3.0, 5.0]), st.sampled_from(["good", "good", "uncertain", "bad"])
        ),
    },
)
did = st.builds(
    Did,
    st.sampled_from(
        [
            *("ack", "ack", "reset", "shelve", "shelve", "unshelve", "suppress", "unsuppress"),
            *("out_of_service", "in_service"),
        ]
    ),
    st.integers(0, 3),
    st.sampled_from([None, -1000, 1500, 4000, 30_000]),
)
history = st.lists(
    st.tuples(
        st.sampled_from(["reading"] * 6 + ["did"] * 3 + ["rebased", "silence"]),
        st.integers(0, 1),
        st.sampled_from([0, 0, 300, 1000, 2500, 7000]),
        carried,
        did,
    ),
    max_size=45,
)


def stream(drawn: list[Any]) -> list[Item]:
    """Readings, actions, and a tick at every whole second, as a journal would hold them."""
    items: list[Item] = []
    now, position = START * 1000 + 500, 0
    newest: dict[str, int] = {}
    for kind, device, gap, values, action in drawn:
        later = now + gap + (15_000 if kind == "silence" else 0)
        items += [
            Item(second * 1000, before=position) for second in range(now // 1000 + 1, later // 1000 + 1)
        ]
        now, name = later, NAMES[device]
        if kind == "did":
            until = None if action.until is None else now + action.until
            items.append(Item(now, did=replace(action, until=until), before=position))
        if kind in ("reading", "rebased"):
            if not items or items[-1].reading is None or gap:  # else one more of the same frame
                position += 1
            time = max(now, newest.get(name, 0) + 1) if kind == "reading" else newest.get(name, now) - 3000
            newest[name] = time
            reading = plain.Reading(name, time, now, position, values, kind == "rebased")
            items.append(Item(now, reading, before=position))
    return items


# -- both sides


def truth(tree: Any) -> plain.Truth:
    return lambda values: value_of(tree, values)


def metrics_in(*trees: Any) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for tree in trees:
        if tree is not None and tree[0] == "name" and tree[1] in METRICS:
            found[tree[1]] = None
        for part in tree[1:] if tree is not None else ():
            if isinstance(part, tuple):
                found.update(dict.fromkeys(metrics_in(part)))
    return tuple(found)


def suppressors(rules: list[Drawn], at: int, reverse: bool) -> tuple[str, ...]:
    """Rules before it (or, reversed, behind it), so that there is no circle."""
    others = range(at + 1, len(rules)) if reverse else range(at)
    return tuple(f"r{other}" for other in others if rules[at].suppressed >> (other % 3) & 1)


def to_acknowledge(severity: str, acknowledge: str | None) -> bool:
    if severity == "info":
        return False
    return severity in ("critical", "high", "medium") if acknowledge is None else acknowledge == "required"


def steps_of(drawn: Drawn) -> tuple[plain.Step, ...]:
    at, found = 0, []
    for after, unless, severity in drawn.steps:
        at += after
        found.append(plain.Step(at, unless, severity))
    return tuple(found)


def reference(rules: list[Drawn], limit: Any, reverse: bool) -> plain.Engine:
    made = [
        plain.Alarm(
            f"r{at}",
            "",
            metrics_in(rule.condition, rule.where, rule.clear),
            metrics_in(rule.condition),
            truth(rule.condition),
            truth(("not", rule.condition) if rule.clear is None else rule.clear),
            (lambda values: True) if rule.where is None else truth(rule.where),
            (lambda now: (now // 1000) % 60 < 20) if rule.window else (lambda now: True),
            rule.severity,
            rule.on_delay,
            rule.off_delay,
            to_acknowledge(rule.severity, rule.acknowledge),
            rule.latch,
            rule.max_shelve,
            steps_of(rule),
            suppressors(rules, at, reverse),
            rule.shadow,
        )
        for at, rule in enumerate(rules)
    ]
    if limit is not None:
        deadband, on_delay, latch = limit
        for part, sign, bound in (("HH", ">", 90.0), ("H", ">", 80.0), ("LL", "<", 70.0), ("L", "<", 75.0)):
            back = bound - deadband if sign == ">" else bound + deadband
            made.append(
                plain.Alarm(
                    "lim",
                    part,
                    ("a",),
                    ("a",),
                    truth((sign, ("name", "a"), ("number", bound))),
                    truth(("not", (sign, ("name", "a"), ("number", back)))),
                    lambda values: True,
                    lambda now: True,
                    {"HH": "critical", "H": "high", "LL": "high", "L": "low"}[part],
                    on_delay,
                    0,
                    part != "L",
                    latch,
                    None,
                    (),
                    {"H": ("lim/HH",), "L": ("lim/LL",)}.get(part, ()),
                )
            )
    return plain.Engine(made, list(NAMES), FACTS)


def spec(rules: list[Drawn], limit: Any, reverse: bool) -> RulesSpec:
    made: list[Rule] = [
        ThresholdRule(
            ruleId=f"r{at}",
            productId="press-v1",
            condition=text_of(rule.condition),
            clear_condition=None if rule.clear is None else text_of(rule.clear),
            where=None if rule.where is None else text_of(rule.where),
            schedule=Schedule(cron="* * * * *", for_=20 * SECOND) if rule.window else None,
            severity=rule.severity,  # type: ignore[arg-type]
            on_delay=rule.on_delay * MS,
            off_delay=rule.off_delay * MS,
            acknowledge=rule.acknowledge,  # type: ignore[arg-type]
            latch=rule.latch,
            max_shelve=None if rule.max_shelve is None else rule.max_shelve * MS,
            escalate=[
                Escalation(
                    after=step.after * MS,
                    unless="acknowledged" if step.unless_acknowledged else None,
                    severity=step.severity,  # type: ignore[arg-type]
                )
                for step in steps_of(rule)
            ],
            suppressed_by=list(suppressors(rules, at, reverse)),
            mode="shadow" if rule.shadow else "live",
        )
        for at, rule in enumerate(rules)
    ]
    if limit is not None:
        deadband, on_delay, latch = limit
        made.append(
            LimitRule(
                ruleId="lim",
                productId="press-v1",
                of="a",
                limits=Limits(HH=90.0, H=80.0, L=75.0, LL=70.0),
                severity=LimitSeverity(HH="critical", H="high", L="low", LL="high"),
                deadband=deadband,
                on_delay=on_delay * MS,
                latch=latch,
            )
        )
    product = RuleProduct("press-v1", dict.fromkeys(METRICS, "number"))
    attributes = {name: {"site_id": site} for name, site in SITES.items()}
    return RulesSpec("press-line", {"press-v1": product}, made, attributes)  # type: ignore[arg-type]


def logic(plant: RulesSpec) -> RulesLogic:
    devices = Devices()
    for name in NAMES:
        devices.add(name, "press-v1", "")
    return RulesLogic(plant, devices)


def run_reference(engine: plain.Engine, items: list[Item]) -> None:
    """All items; actions learn here which occurrence they are about."""
    for item in items:
        if item.reading is not None:
            engine.reading(item.reading)
        elif item.did is None:
            engine.tick(item.now)
        else:
            raised = [one for one in engine.events if one["transition"] == "raised"]
            subject, onset = "nobody/r0", 0
            if raised:
                one = raised[-1 - item.did.which % len(raised)]
                subject, onset = one["subject"], one["onset"]
            item.did.alarm_id = (subject, onset)
            engine.action(
                plain.Action(
                    item.did.name, (subject, onset), "kim", "because", item.did.until, item.now, item.before
                )
            )


def slice_of(items: list[Item]) -> Slice:
    """Items without actions as one slice, its ticks placed among frames and rows."""
    readings = [item.reading for item in items if item.reading is not None]
    n = len(readings)
    value = np.full((len(METRICS), n), np.nan)
    quality = np.full((len(METRICS), n), 3, np.uint8)
    seq = np.zeros(n, np.uint64)
    positions: list[int] = []
    for row, reading in enumerate(readings):
        for name, (number, how) in reading.values.items():
            value[METRICS.index(name), row] = np.nan if how == "bad" else number
            quality[METRICS.index(name), row] = QUALITY_NAMES.index(how)
        index = sum(before.position == reading.position for before in readings[:row])
        seq[row] = (reading.position << 16) + index
        if not positions or positions[-1] != reading.position:
            positions.append(reading.position)
    rows, frames, tick_rows, tick_frames, tick_ns = 0, 0, [], [], []
    for item in items:
        if item.reading is not None:
            rows += 1
            frames = positions.index(item.reading.position) + 1
        else:
            tick_rows.append(rows)
            tick_frames.append(frames)
            tick_ns.append(item.now * MS)
    none = np.empty(0, np.int64)
    batch = ReadingBatch(
        "press-v1",
        np.array([NAMES.index(r.device) for r in readings], np.int32),
        np.array([r.time * MS for r in readings], np.int64),
        value,
        quality,
        seq,
        np.array([r.ingest * MS for r in readings], np.int64),
        np.array([IN_ORDER | (REBASED if r.rebased else 0) for r in readings], np.uint8),
        np.zeros(n, np.int32),
        {},
        Ticks(np.array(tick_rows, np.int64), np.array(tick_ns, np.int64)),
    )
    stamps = {reading.position: reading.ingest for reading in readings}
    frame_batch = FrameBatch(
        none.astype(np.uint8),
        np.zeros(len(positions), np.int64),
        np.zeros(len(positions), np.int64),
        np.zeros(len(positions), np.int32),
        (),
        np.array([stamps[position] * MS for position in positions], np.int64),
        np.array(positions, np.int64),
        np.zeros(len(positions), np.uint8),
        Ticks(np.array(tick_frames, np.int64), np.array(tick_ns, np.int64)),
    )
    return Slice(1, items[-1].before + 1, frame_batch, readings=[batch])


def action_slice(item: Item) -> Slice:
    did = item.did
    assert did is not None
    subject, onset = did.alarm_id
    rule = subject.split("/")[1]
    name = hashlib.sha256(f"{rule}\x1f{subject}\x1f{onset}".encode()).hexdigest()[:32]
    data = {
        "id": "0" * 32,
        "kind": "alarm",
        "action": did.name,
        "alarm_id": name,
        "by": "kim",
        "why": "because",
        "until_ms": did.until,
    }
    return Slice(1, item.before + 1, FrameBatch.none(), Control("action", item.now * MS, data))


def slices(items: list[Item], size: int) -> list[Slice]:
    made: list[Slice] = []
    waiting: list[Item] = []
    for item in items:
        if item.did is not None:
            made += [slice_of(waiting)] if waiting else []
            made.append(action_slice(item))
            waiting = []
            continue
        waiting.append(item)
        if len(waiting) >= size:
            made.append(slice_of(waiting))
            waiting = []
    return made + ([slice_of(waiting)] if waiting else [])


def run(stage: RulesLogic, items: list[Item], size: int) -> tuple[list[AlarmEvent], list[dict[str, Any]]]:
    events: list[AlarmEvent] = []
    answers: list[dict[str, Any]] = []
    for item in slices(items, size):
        stage.process(item)
        # a clock that steps is an alarm of its own, and another test's
        events += [event for event in item.alarms if event.ruleId != "device-clock"]
        answers += item.answers
    return events, answers


def told(event: AlarmEvent) -> dict[str, Any]:
    data = event.event["data"]
    assert event.position == data["evidence"]["position"] == int(event.sequence) >> 16
    return {
        "position": event.position,
        "subject": event.event["subject"],
        "n": int(event.sequence) & 0xFFFF,
        "transition": data["transition"],
        "severity": data["severity"],
        "onset": data["onset_time"],
        "time": data["event_time"],
        "ingest": data["ingest_time"],
        "actor": data["actor"],
        "comment": data["comment"],
        "state": data["state"],
        "values": data["evidence"]["values"],
        "quality": data["evidence"]["quality"],
        "shadow": event.shadow,
    }


def expected(event: dict[str, Any]) -> dict[str, Any]:
    until = event["state"]["shelved_until"]
    return event | {
        "onset": iso_ms(event["onset"] * MS),
        "time": iso_ms(event["time"] * MS),
        "ingest": iso_ms(event["ingest"] * MS),
        "state": event["state"] | {"shelved_until": None if until is None else iso_ms(until * MS)},
    }


def fewer_ticks(items: list[Item]) -> list[Item]:
    """Of ticks with nothing between, the last alone."""
    return [
        item
        for item, after in zip(items, [*items[1:], None], strict=False)
        if item.reading or item.did or after is None or after.reading or after.did
    ]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(drawn_rule, min_size=1, max_size=3), limits, st.booleans(), history, st.integers(1, 9))
def test_the_lifecycle_equals_the_reference_for_every_cut(
    rules: list[Drawn], limit: Any, reverse: bool, drawn: list[Any], cut: int
) -> None:
    items = stream(drawn)
    engine = reference(rules, limit, reverse)
    run_reference(engine, items)
    wanted = [expected(event) for event in engine.events]
    plant = spec(rules, limit, reverse)
    for size, given_items in ((1, items), (cut, items), (1000, items), (cut, fewer_ticks(items))):
        events, answers = run(logic(plant), given_items, size)
        assert [told(event) for event in events] == wanted
        assert [answer["accepted"] for answer in answers] == [one["accepted"] for one in engine.answers]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(drawn_rule, min_size=1, max_size=3), limits, history, st.integers(0, 60), st.integers(1, 9))
def test_a_restored_lifecycle_goes_on_bit_for_bit(
    rules: list[Drawn], limit: Any, drawn: list[Any], at: int, cut: int
) -> None:
    items = stream(drawn)
    run_reference(reference(rules, limit, False), items)
    plant = spec(rules, limit, False)
    whole, answers = run(logic(plant), items, cut)
    first, second = logic(plant), logic(plant)
    before, said = run(first, items[:at], cut)
    second.restore(first.snapshot())
    after, said_then = run(second, items[at:], cut)
    assert before + after == whole
    assert said + said_then == answers
    assert second.export_active() == [one for one in second.export_active() if one["transition"] != "closed"]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(drawn_rule, min_size=1, max_size=3), limits, history, st.integers(0, 60), st.integers(1, 9))
def test_a_plant_that_means_the_same_changes_nothing(
    rules: list[Drawn], limit: Any, drawn: list[Any], at: int, cut: int
) -> None:
    """Other messages, another rule, a metric more: everything goes on as if nothing had been applied."""
    items = stream(drawn)
    run_reference(reference(rules, limit, False), items)
    plant = spec(rules, limit, False)
    whole, answers = run(logic(plant), items, cut)
    stage = logic(plant)
    before, said = run(stage, items[:at], cut)
    changed = spec(rules, limit, False)
    for one in changed.rules:
        one.message = "{device_id} {transition}"
    more = ThresholdRule(ruleId="more", productId="press-v1", condition="a > 1e9", severity="low")
    stage.apply(replace(changed, rules=[more, *changed.rules]))
    clock = items[at - 1].now if 0 < at <= len(items) else START * 1000
    position = items[min(at, len(items)) - 1].before + 1 if items else 0
    item = Slice(1, position, slice_of([Item(clock)]).frames, Control("plant", clock * MS, {"sha256": "x"}))
    stage.process(item)
    assert item.alarms == []
    after, said_then = run(stage, items[at:], cut)
    assert [told(event) for event in before + after] == [told(event) for event in whole]
    assert said + said_then == answers
