"""Functions over a device's own past: the machine against the plain reference, for every cut."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from operators.batch import IN_ORDER, REBASED
from operators.expression.grammar import parse
from operators.expression.kernels import CHUNK, FALSE, PAGE, TRUE, UNKNOWN
from operators.expression.machine import Machine
from operators.expression.program import Scope, check_condition, compile_conditions
from operators.snapshot import pack, unpack
from operators.text import text_code
from tests.reference.expression import text_of
from tests.reference.temporal import Past

SCOPE = Scope(
    "press-v1",
    {"a": "number", "b": "number", "mode": "string", "on": "boolean"},
    {"limit": 80.0},
    (),
    {"site_id"},
)

some = st.sampled_from([0.0, -0.0, 0.1, 0.2, 0.3, 1.0, -7.25, 1e308, -1e308, 1e-300]) | st.floats(-100, 100)
durations = st.sampled_from([1, 999, 1000, 2500, 10_000, 60_000]).map(lambda ms: ("duration", ms))


def numbers(depth: int) -> st.SearchStrategy[tuple[Any, ...]]:
    leaf = st.sampled_from([("name", "a"), ("name", "b"), ("number", 2.5), ("name", "param.limit")])
    if depth == 0:
        return leaf
    below, test = numbers(depth - 1), conditions(depth - 1)
    call = st.just("call")
    return st.one_of(
        st.tuples(call, st.sampled_from(["rate", "delta", "prev", "abs"]), below),
        st.tuples(call, st.just("since"), test),
        st.tuples(
            call, st.sampled_from(["avg", "min", "max", "std", "sum", "count"]), below | test, durations
        ),
        st.tuples(call, st.just("count"), st.just(("name", "mode")), durations),
        st.tuples(st.sampled_from(["+", "-", "*", "/"]), below, below),
        st.tuples(call, st.just("if"), test, below, below),
        st.tuples(call, st.just("default"), below, below),
        leaf,
    )


def conditions(depth: int) -> st.SearchStrategy[tuple[Any, ...]]:
    leaf = st.sampled_from([("name", "on"), ("==", ("name", "mode"), ("text", "run"))])
    if depth == 0:
        return leaf
    below, number = conditions(depth - 1), numbers(depth - 1)
    call = st.just("call")
    return st.one_of(
        st.tuples(st.sampled_from(["<", ">=", "=="]), number, number),
        st.tuples(call, st.just("changed"), number | st.sampled_from([("name", "mode"), ("name", "on")])),
        st.tuples(call, st.just("held"), below, durations),
        st.tuples(call, st.just("prev"), below),
        st.just(("==", ("call", "prev", ("name", "mode")), ("name", "mode"))),
        st.tuples(st.sampled_from(["and", "or"]), below, below),
        below.map(lambda x: ("not", x)),
        leaf,
    )


reading = st.fixed_dictionaries(
    {
        "device": st.integers(0, 2),
        "step": st.sampled_from([1, 500, 1000, 1000, 2500, 9999]),
        "rebased": st.sampled_from([False] * 9 + [True]),
        "a": st.none() | some,
        "b": st.none() | some,
        "mode": st.none() | st.sampled_from(["run", "idle"]),
        "on": st.none() | st.booleans(),
    }
)


def with_times(readings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each device's own clock: its steps, and back by an hour where it is re-based."""
    clock = dict.fromkeys(range(3), 1_772_355_600_000)
    timed = []
    for one in readings:
        clock[one["device"]] += one["step"] - (3_600_000 if one["rebased"] else 0)
        timed.append({**one, "ms": clock[one["device"]]})
    return timed


def columns_of(machine: Machine, readings: list[dict[str, Any]]) -> None:
    columns = machine.room(len(readings))
    for at, column in enumerate(machine.program.columns):
        for row, one in enumerate(readings):
            value = one[column.name]
            columns[at, row] = (
                math.nan
                if value is None
                else float(text_code(value))
                if isinstance(value, str)
                else float(value)
            )


def run_cut(
    texts: list[str], numeric: list[str], readings: list[dict[str, Any]], cuts: list[int], most: int
) -> list[list[Any]]:
    """The values of conditions and numbers at every reading, with a snapshot at every cut."""
    program = compile_conditions(
        [parse(text) for text in texts],
        SCOPE,
        values=[parse(text) for text in numeric],
        max_samples=[most] * (len(texts) + len(numeric)),
    )
    machine = Machine(program)
    found: list[list[Any]] = []
    edges = sorted({0, len(readings), *(cut % (len(readings) + 1) for cut in cuts)})
    for start, stop in itertools.pairwise(edges):
        part = readings[start:stop]
        machine.grow(3)
        columns_of(machine, part)
        out = machine.run(
            len(part),
            local=np.array([one["device"] for one in part], np.int32),
            ts_ns=np.array([one["ms"] * 1_000_000 for one in part], np.int64),
            flags=np.array([IN_ORDER | (REBASED if one["rebased"] else 0) for one in part], np.uint8),
        )
        for row in range(len(part)):
            truth = [{TRUE: True, FALSE: False, UNKNOWN: None}[int(out[o, row])] for o in program.outputs]
            stored = [float(machine.values[v, row]) for v in program.value_outputs]
            found.append([*truth, *(None if value != value else value for value in stored)])
        kept = unpack(pack(machine.export(3)))
        machine = Machine(program)
        machine.load(kept, 3)
    return found


def exact(values: list[Any]) -> list[Any]:
    return [value.hex() if isinstance(value, float) else value for value in values]


@settings(max_examples=120, deadline=None, derandomize=True)
@given(
    st.lists(conditions(3), min_size=1, max_size=3),
    st.lists(numbers(3), min_size=1, max_size=3),
    st.lists(reading, min_size=1, max_size=40),
    st.lists(st.integers(0, 40), max_size=4),
    st.sampled_from([1, 2, 5, 4096]),
)
def test_the_past_equals_the_reference_for_every_cut(
    tests: list[Any], values: list[Any], readings: list[dict[str, Any]], cuts: list[int], most: int
) -> None:
    readings = with_times(readings)
    found = run_cut(
        [text_of(tree) for tree in tests], [text_of(tree) for tree in values], readings, cuts, most
    )
    past = {device: Past([*tests, *values], most) for device in range(3)}
    for one, told in zip(readings, found, strict=True):
        names = {**one, "param.limit": 80.0}
        expected = past[one["device"]].read(one["ms"], names, rebased=one["rebased"])
        numeric = [None if value is None else float(value) for value in expected[len(tests) :]]
        assert exact(told) == exact([*expected[: len(tests)], *numeric])


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.lists(st.floats(-1e3, 1e3) | st.none(), min_size=1, max_size=3 * PAGE), st.integers(1, 70))
@example([0.1] * (2 * PAGE + 1), 3)
def test_folds_run_from_oldest_to_newest(numbers: list[float | None], seconds: int) -> None:
    """Each second a value; samples fill several pages and leave them again."""
    readings = [
        {"device": 0, "ms": 1000 * at, "rebased": False, "a": value, "b": None, "mode": None, "on": None}
        for at, value in enumerate(numbers)
    ]
    trees = [
        ("call", kind, ("name", "a"), ("duration", 1000 * seconds))
        for kind in ("count", "sum", "avg", "min", "max", "std")
    ]
    found = run_cut([], [text_of(tree) for tree in trees], readings, [7, 20], 4096)
    past = Past(trees)
    for at, (one, told) in enumerate(zip(readings, found, strict=True)):
        assert exact(told) == exact(past.read(1000 * at, one))


def by_seconds(text: str, values: list[Any], name: str = "a") -> list[Any]:
    """The value of one expression, a reading each second."""
    readings = [
        {"device": 0, "ms": 1000 * at, "rebased": False, "a": None, "b": 1.0, "mode": None, "on": None}
        | {name: value}
        for at, value in enumerate(values)
    ]
    return [told[0] for told in run_cut([], [text], readings, [], 4096)]


def test_each_function_by_hand() -> None:
    assert by_seconds("rate(a)", [1.0, 3.0, None, 4.0, 4.0]) == [None, 2.0, None, 0.5, 0.0]
    assert by_seconds("delta(a)", [1.0, 3.0, None, 4.0]) == [None, 2.0, None, 1.0]
    assert by_seconds("prev(a)", [1.0, 3.0, None, 4.0]) == [None, 1.0, 3.0, 3.0]
    assert by_seconds("changed(a)", [1.0, 1.0, None, 2.0]) == [None, 0.0, None, 1.0]
    assert by_seconds("changed(mode)", ["run", "run", "idle"], "mode") == [None, 0.0, 1.0]
    assert by_seconds("since(a > 2)", [1.0, 3.0, 1.0, None, 1.0]) == [None, 0.0, 1.0, None, 3.0]
    assert by_seconds("held(a > 2, 2s)", [3.0, 3.0, 3.0, 1.0, 3.0]) == [0.0, 0.0, 1.0, 0.0, 0.0]
    # unknown stops the clock from that reading to the next known one, as it stops a delay's
    assert by_seconds("held(a > 2, 2s)", [3.0, 3.0, None, None, 3.0, 3.0]) == [0.0, 0.0, None, None, 1.0, 1.0]
    assert by_seconds("avg(a, 2s)", [1.0, 3.0, None, None, 5.0]) == [1.0, 2.0, 3.0, None, 5.0]
    assert by_seconds("count(a, 2s)", [1.0, 3.0, None, None]) == [1.0, 2.0, 1.0, 0.0]
    assert by_seconds("sum(a > 2, 3s)", [1.0, 3.0, 3.0, 3.0]) == [0.0, 1.0, 2.0, 3.0]
    assert by_seconds("max(a, 2s) - min(a, 2s)", [1.0, 3.0, 2.0]) == [0.0, 2.0, 1.0]
    assert by_seconds("std(a, 10s)", [1.0, 3.0, 5.0]) == [0.0, 1.0, math.sqrt(8 / 3)]


def test_both_branches_of_an_if_look_at_every_reading() -> None:
    assert by_seconds("if(a > 2, delta(a), 0)", [1.0, 2.0, 5.0]) == [0.0, 0.0, 3.0]


def test_more_samples_than_are_kept_are_unknown_and_counted() -> None:
    program = compile_conditions([parse("avg(a, 10s) > 0 and b > 0"), parse("b > 0")], SCOPE, max_samples=[3])
    assert program.limits == ((0,), ())
    machine = Machine(program)
    machine.grow(1)
    ms = np.array([0, 1, 2, 3, 4, 10_003, 10_004, 10_005], np.int64)
    machine.room(len(ms))[:] = 1.0
    flags = np.full(len(ms), IN_ORDER, np.uint8)
    out = machine.run(len(ms), local=np.zeros(len(ms), np.int32), ts_ns=ms * 1_000_000, flags=flags)
    # at 10,003 ms the interval (3, 10,003] holds 4 and 10,003 alone
    assert out[program.outputs[0], : len(ms)].tolist() == [1, 1, 1, 0, 0, 1, 1, 1]
    assert machine.overflows() == [2, 0]


def test_equal_parts_share_their_samples() -> None:
    program = compile_conditions(
        [
            parse("avg(a, 5m) > 1 and max(a, 5m) < 9"),
            parse("std(metrics.a, 300s) > 2"),
            parse("avg(a, 1m) > 0"),
        ],
        SCOPE,
    )
    assert len(program.spans) == 2
    assert program.limits == ((0,), (0,), (1,))
    assert len(compile_conditions([parse("delta(a) > 1 or changed(a) or prev(a) == 0")], SCOPE).past) == 1


def test_a_changed_program_keeps_the_operations_that_are_the_same() -> None:
    def machine_of(*texts: str) -> Machine:
        return Machine(compile_conditions([], SCOPE, values=[parse(text) for text in texts]))

    def read(machine: Machine, second: int, a: float) -> list[float]:
        machine.grow(1)
        machine.room(1)[:, 0] = a
        machine.run(
            1,
            local=np.zeros(1, np.int32),
            ts_ns=np.array([second * 10**9]),
            flags=np.full(1, IN_ORDER, np.uint8),
        )
        return [float(machine.values[row, 0]) for row in machine.program.value_outputs]

    before = machine_of("delta(a)", "sum(a, 10s)", "delta(a * 2)")
    read(before, 0, 1.0)
    read(before, 1, 5.0)
    after = machine_of("sum( metrics.a , 10000ms)", "prev(a)", "prev(a * 3)", "sum(a, 9s)")
    after.load(unpack(pack(before.export(1))), 1)
    told = read(after, 2, 7.0)
    assert told[:2] == [13.0, 5.0]
    assert math.isnan(told[2])
    assert told[3] == 7.0


def test_rows_beyond_a_chunk_and_a_growing_pool() -> None:
    rows = 2 * CHUNK + 77
    devices = 50
    program = compile_conditions([], SCOPE, values=[parse("sum(a, 100s)"), parse("delta(a)")])
    machine = Machine(program)
    machine.grow(devices)
    local = (np.arange(rows) % devices).astype(np.int32)
    ts = (np.arange(rows, dtype=np.int64) // devices) * 10**9
    a = np.random.default_rng(1).normal(size=rows)
    machine.room(rows)[0, :rows] = a
    machine.run(rows, local=local, ts_ns=ts, flags=np.full(rows, IN_ORDER, np.uint8))
    for device in (0, 17, 49):
        own = a[local == device].tolist()
        past = Past([("call", "sum", ("name", "a"), ("duration", 100_000)), ("call", "delta", ("name", "a"))])
        expected = [past.read(1000 * at, {"a": value}) for at, value in enumerate(own)]
        told = machine.values[:2, :rows][:, local == device].T.tolist()
        assert [exact([None if x != x else x for x in line]) for line in told] == [
            exact(line) for line in expected
        ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("avg(a, 1mo) > 3", "a month has no fixed length; write days, e.g. 30d"),
        ("held(on, 2mo)", "a month has no fixed length; write days, e.g. 60d"),
        ("rate(mode) > 3", "this is a text where a number is expected"),
        ("avg(mode, 5m) > 3", "this is a text where a number is expected"),
        ("since(a) > 3", "this is a number where a condition is expected; compare it with something"),
        ("held(a, 5s)", "this is a number where a condition is expected; compare it with something"),
        ("changed(c)", "no metric 'c' in press-v1"),
        (
            "window.`1m`.mean(a) > 3",
            "the results of windows stand in AAS mappings alone; write avg(x, 1m) for a value over the last "
            "minute",
        ),
    ],
)
def test_what_a_function_over_time_may_not_say(text: str, told: str) -> None:
    assert [problem.message for problem in check_condition(parse(text), SCOPE)] == [told]
