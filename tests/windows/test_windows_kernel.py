"""Windows against the plain reference: every cut, ticks spread or compressed, restored midway."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.contract.spec import Metric
from operators.devices import Devices
from operators.windows.spec import ProductWindows, Window, kept
from operators.windows.step import WindowsLogic
from tests.contract.slices import slice_of
from tests.reference.windows import windows as reference

SECOND = 1_000_000_000
T0 = 1_772_355_600 * SECOND
KINDS = {"note": "string", "a": "number", "b": "integer"}
METRICS = {name: Metric(name=name, type=kind) for name, kind in KINDS.items()}
ALL = ["count", "min", "max", "mean", "last", "std", "p50", "p95", "p99"]


@st.composite
def streams(draw):
    """Rows and ticks: ("row", reading with in_order) and ("tick", ns)."""
    newest, found, ingest = {}, [], T0
    for position in range(draw(st.integers(1, 40))):
        step = draw(st.sampled_from([0, 0, 1, 1, 2, 5, 17]))
        for _ in range(step):
            ingest += SECOND
            found.append(("tick", ingest))
        device = draw(st.sampled_from("xyz"))
        behind = draw(st.sampled_from([0, 0, 0, 1, 3, 6, 12, 25, -4, -30]))
        ts = ingest - behind * SECOND - draw(st.sampled_from([0, 0, 1, 999_999_999]))
        rebased = ts < newest.get(device, ts) and draw(st.integers(0, 5)) == 0
        in_order = rebased or device not in newest or ts > newest[device]
        if in_order:
            newest[device] = ts
        values, qualities = {}, {}
        for name, choice in (("a", [1.5, -2.25, 0.0, 1e6, 1e-9, 7.125]), ("b", [1, 2, -3])):
            how = draw(st.sampled_from(["good", "good", "good", "uncertain", "bad", "absent", "null"]))
            if how != "absent":
                values[name] = None if how == "null" else draw(st.sampled_from(choice))
            if how in ("uncertain", "bad"):
                qualities[name] = how
        found.append(
            (
                "row",
                {
                    "device": device,
                    "frame": position,
                    "position": position,
                    "ts": ts,
                    "ingest": ingest,
                    "in_order": in_order,
                    "flags": ("in_order",) * in_order,
                    "values": values,
                    "qualities": qualities,
                },
            )
        )
    return found


@st.composite
def wandering(draw):
    """The same of a device whose clock goes anywhere among a hundred windows, and its readings with it."""
    found, ingest, newest = [], T0, None
    for position in range(draw(st.integers(1, 60))):
        for _ in range(draw(st.sampled_from([0, 0, 0, 1, 30]))):
            ingest += SECOND
            found.append(("tick", ingest))
        ts = T0 + draw(st.integers(0, 99)) * draw(st.sampled_from([1, 5, 5])) * SECOND
        in_order = newest is None or ts > newest or draw(st.integers(0, 2)) > 0
        newest = ts if in_order else newest
        row = {"device": "x", "frame": position, "position": position, "ts": ts, "ingest": ingest}
        row |= {"values": {"a": draw(st.sampled_from([1.5, -2.25, 7.125]))}, "qualities": {}}
        row |= {"in_order": in_order}
        found.append(("row", row | {"flags": ("in_order",) * in_order}))
    return found


def compressed(events):
    """Only the last of consecutive ticks."""
    pairs = zip(events, [*events[1:], ("row", None)], strict=True)
    return [event for event, after in pairs if not (event[0] == "tick" and after[0] == "tick")]


def feed(logic, part, devices, late, ledger):
    """The slice of some events, processed; its late positions and its ledger are added to what there is."""
    rows, ticks = [], []
    for kind, what in part:
        if kind == "row":
            rows.append(what)
        else:
            ticks.append((len(rows), what))
    item = slice_of(rows, KINDS, devices, ticks=ticks)
    logic.process(item)
    late += (item.readings[0].seq[(item.readings[0].flags & 32) > 0] >> 16).tolist()
    for terms in item.ledger.values():
        for term, n in terms.items():
            ledger[term] = ledger.get(term, 0) + n
    return item


def run(window, events, cuts, restore_at=None):
    """(closed windows, late positions, ledger) with the rows cut into slices."""
    devices = Devices()
    specs = {"p": ProductWindows(METRICS, (window,))}
    logic = WindowsLogic(specs, devices)
    closed, late, ledger = [], [], {}
    at, cut = 0, 0
    while at < len(events):
        part = events[at : at + cuts[cut % len(cuts)]]
        at, cut = at + len(part), cut + 1
        item = feed(logic, part, devices, late, ledger)
        for batch in item.windows:
            closed += plain(batch, devices)
        if restore_at is not None and at >= restore_at:
            data, restore_at = logic.snapshot(), None
            logic = WindowsLogic(specs, devices)
            logic.restore(data)
    for batch in logic.close_all():
        closed += plain(batch, devices)
    return closed, late, ledger


def plain(batch, devices):
    names = list(KINDS)
    found = []
    for i in range(len(batch)):
        assert batch.count[i] == batch.good[i]
        cells = {"count": int(batch.count[i]), "bad": int(batch.bad[i])}
        for name, column in batch.aggregates.items():
            cells[name] = None if math.isnan(column[i]) else float(column[i])
        key = (devices.names[batch.device[i]], int(batch.start_ns[i]), int(batch.revision[i]))
        found.append((*key, int(batch.position[i]), names[batch.metric[i]], cells))
    return found


def key(line):
    return line[:3], line[4]


def assert_none_knows_less(closed):
    """Revisions of a window count from 1, each once, and none has lost a value of the one before."""
    known = {}
    for device, start, revision, _, metric, cells in sorted(closed, key=key):
        before = known.get((device, start, metric), (0, 0))
        counted = cells["count"] + cells["bad"]
        assert revision == before[0] + 1
        assert counted >= before[1]
        known[device, start, metric] = (revision, counted)


@settings(deadline=None, max_examples=160, derandomize=True)
@given(
    st.one_of(streams(), wandering()),
    st.lists(st.integers(1, 9), min_size=1, max_size=4),
    st.integers(0, 60),
    st.sampled_from([(10, 0, 0), (10, 3, 0), (10, 12, 0), (10, 0, 25), (5, 7, 11), (60, 5, 3600)]),
)
def test_kernel_equals_reference_for_every_cut(events, cuts, restore_at, times):
    length, lateness, correct_within = (n * SECOND for n in times)
    window = Window(every=f"{times[0]}s", lateness=lateness, correct_within=correct_within, aggregates=ALL)
    rows = [
        (kind, what)
        if kind == "tick"
        else (kind, what | {"values": {n: (v, usable(what, n)) for n, v in what["values"].items()}})
        for kind, what in events
    ]
    found = list(
        reference(
            rows,
            length=length,
            lateness=lateness,
            correct_within=correct_within,
            metrics=["a", "b"],
            places=kept(window),
            end_of_time=True,
        )
    )
    expected = sorted(
        (
            (device, start, revision, position, metric, cells)
            for _, device, start, revision, position, metrics in (f for f in found if f[0] == "closed")
            for metric, cells in metrics.items()
        ),
        key=key,
    )
    expected_late = [f[1] for f in found if f[0] == "late"]
    closed, late, ledger = run(window, events, cuts, restore_at)
    assert sorted(closed, key=key) == expected
    assert late == expected_late
    assert_none_knows_less(closed)
    rows_in = sum(kind == "row" for kind, _ in events)
    assert ledger.get("readings_late", 0) == len(late)
    assert ledger.get("readings_accepted", 0) == rows_in - len(late)
    again, late_again, _ = run(window, compressed(events), [1000])
    assert (sorted(again, key=key), late_again) == (expected, late)


def usable(row, name):
    return row["values"][name] is not None and row["qualities"].get(name) != "bad"


@pytest.mark.parametrize("n", [2000])
def test_quantiles_stay_within_one_percent_and_the_cap_holds(n):
    """A device whose values span forty decades: more buckets than a sketch keeps."""
    window = Window(every="30m", aggregates=["p50", "p95", "p99"])
    random = np.random.default_rng(7)
    values = np.exp(random.uniform(-45, 45, n)) * random.choice([-1.0, 1.0], n)
    values[:50] = 0.0
    start = T0 // (1800 * SECOND) * 1800 * SECOND
    events = [
        (
            "row",
            {
                "device": "x",
                "frame": i,
                "position": i,
                "ts": start + i,
                "ingest": start + i,
                "in_order": True,
                "flags": ("in_order",),
                "values": {"a": float(v)},
                "qualities": {},
            },
        )
        for i, v in enumerate(values)
    ]
    closed, _, _ = run(window, events, [700])
    cells = next(line[5] for line in closed if line[4] == "a")
    rows = [("row", w | {"values": {"a": (w["values"]["a"], True)}}) for _, w in events]
    found = list(
        reference(
            rows,
            length=1800 * SECOND,
            lateness=0,
            correct_within=0,
            metrics=["a"],
            places=1,
            end_of_time=True,
        )
    )
    expected = found[-1][5]["a"]
    assert {name: cells[name] for name in ("p50", "p95", "p99")} == {
        name: expected[name] for name in ("p50", "p95", "p99")
    }
    for name, q in (("p95", 0.95), ("p99", 0.99)):
        exact = np.quantile(values, q, method="lower")
        assert abs(cells[name] - exact) <= 0.01 * abs(exact) * (1 + 1e-9)


def test_a_backlog_between_two_live_readings_leaves_their_window_whole():
    """Three readings of an hour ago re-base the device's clock; the next live one is in order again."""
    seconds = [10, -3600, -3599, -3598, 50, 70]
    events = []
    for position, after in enumerate(seconds):
        ts = T0 + after * SECOND
        row = {"device": "x", "frame": position, "position": position, "ts": ts, "ingest": T0 + 60 * SECOND}
        row |= {"values": {"a": float(position)}, "qualities": {}, "in_order": position not in (1, 2)}
        events.append(("row", row | {"flags": ("in_order",) * row["in_order"]}))
    closed, late, _ = run(Window(every="1m", aggregates=["count", "mean"]), events, [2])
    lines = [(line[1] - T0, line[2], line[5]["count"]) for line in closed if line[4] == "a"]
    assert lines == [(-3600 * SECOND, 1, 1), (0, 1, 2), (60 * SECOND, 1, 1)]
    assert late == [1, 2]
