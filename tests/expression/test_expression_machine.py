"""Programs of the column machine against the plain reference, and the types it refuses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.expression.grammar import parse
from operators.expression.kernels import CHUNK, FALSE, TRUE, UNKNOWN
from operators.expression.machine import Machine
from operators.expression.program import Scope, check_condition, compile_conditions
from operators.expression.tree import ExpressionError
from operators.text import text_code
from tests.reference.expression import text_of, value_of

SCOPE = Scope(
    "press-v1",
    {"a": "number", "b": "number", "n": "integer", "mode": "string", "on": "boolean"},
    {"limit": 80.0, "own": None, "kind": "hot"},
    {"kind"},
    {"site_id"},
)

plain = st.floats(-1e6, 1e6).map(lambda x: round(x, 3)) | st.integers(-20, 300).map(float)
awkward = st.floats(allow_nan=False, allow_infinity=False)
small_whole = st.integers(0, 70).map(float)


def numbers(depth: int) -> st.SearchStrategy[tuple[Any, ...]]:
    leaf = st.one_of(
        plain.map(lambda x: ("number", abs(x))),
        small_whole.map(lambda x: ("number", x)),
        st.sampled_from(["a", "b", "n", "metrics.a", "param.limit", "param.own"]).map(lambda n: ("name", n)),
    )
    if depth == 0:
        return leaf
    below = numbers(depth - 1)
    return st.one_of(
        leaf,
        below.map(lambda x: ("minus", x)),
        st.tuples(st.sampled_from(["+", "-", "*", "/", "%", "**"]), below, below),
        st.tuples(
            st.just("call"),
            st.sampled_from(["min", "max", "pow", "default", "bitand", "bitor", "bitxor", "shl", "shr"]),
            below,
            below,
        ),
        st.tuples(
            st.just("call"),
            st.sampled_from(["abs", "sqrt", "exp", "log", "log10", "floor", "ceil", "popcount"]),
            below,
        ),
        st.tuples(st.just("call"), st.just("clamp"), below, below, below),
        st.tuples(st.just("call"), st.just("if"), conditions(depth - 1), below, below),
        conditions(depth - 1).map(lambda c: ("+", c, ("number", 1.0))),
    )


def conditions(depth: int) -> st.SearchStrategy[tuple[Any, ...]]:
    leaf = st.one_of(
        st.just(("name", "on")),
        st.booleans().map(lambda b: ("bool", b)),
        st.tuples(
            st.sampled_from(["==", "!="]),
            st.sampled_from([("name", "mode"), ("name", "device.site_id"), ("name", "param.kind")]),
            st.sampled_from([("text", "run"), ("text", "it's"), ("name", "mode"), ("null",)]),
        ),
    )
    if depth == 0:
        return leaf
    below, number = conditions(depth - 1), numbers(depth - 1)
    return st.one_of(
        leaf,
        st.tuples(st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), number, number),
        st.tuples(st.sampled_from(["==", "!="]), number, st.just(("null",))),
        st.tuples(st.sampled_from(["==", "!="]), below, below),
        below.map(lambda x: ("not", x)),
        st.tuples(st.sampled_from(["and", "or"]), below, below, below),
        st.tuples(st.just("call"), st.just("if"), below, below, below),
        st.tuples(st.just("call"), st.just("default"), below, below),
    )


row = st.fixed_dictionaries(
    {
        "a": st.none() | plain | awkward,
        "b": st.none() | plain | small_whole,
        "n": st.none() | small_whole,
        "mode": st.none() | st.sampled_from(["run", "idle", "it's"]),
        "on": st.none() | st.booleans(),
        "param.own": st.none() | plain,
        "device.site_id": st.none() | st.sampled_from(["run", "ulsan"]),
    }
)


def column_value(value: Any) -> float:
    if value is None:
        return math.nan
    return float(text_code(value)) if isinstance(value, str) else float(value)


def run(texts: list[str], rows: list[dict[str, Any]]) -> list[list[int]]:
    """The trit of every expression for every row, by the machine."""
    program = compile_conditions([parse(text) for text in texts], SCOPE)
    machine = Machine(program)
    columns = machine.room(len(rows))
    for at, column in enumerate(program.columns):
        name = column.name if column.root == "metrics" else f"{column.root}.{column.name}"
        columns[at, : len(rows)] = [column_value(row[name]) for row in rows]
    results = machine.run(len(rows))
    for output in program.outputs:
        assert machine.any_true[output] == int((results[output, : len(rows)] == TRUE).any())
    return [results[output, : len(rows)].tolist() for output in program.outputs]


def names_of(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "metrics.a": row["a"], "param.limit": 80.0, "param.kind": "hot"}


def has_own_refusal(text: str) -> bool:
    """Whether the grammar refuses it for being a constant that is no finite number."""
    try:
        parse(text)
    except ExpressionError as error:
        return error.message == "this is no finite number"
    return False


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(conditions(3), min_size=1, max_size=5), st.lists(row, min_size=1, max_size=8))
def test_conditions_equal_the_reference(trees: list[Any], rows: list[dict[str, Any]]) -> None:
    trees = [tree for tree in trees if not has_own_refusal(text_of(tree))]
    if not trees:
        return
    found = run([text_of(tree) for tree in trees], rows)
    for tree, trits in zip(trees, found, strict=True):
        expected = [value_of(tree, names_of(row)) for row in rows]
        told = [UNKNOWN if value is None else TRUE if value else FALSE for value in expected]
        assert trits == told, text_of(tree)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(numbers(3), row)
def test_numbers_are_the_references_to_the_last_bit(tree: Any, row: dict[str, Any]) -> None:
    if has_own_refusal(text_of(tree)):
        return
    value = value_of(tree, names_of(row))
    text = f"({text_of(tree)}) == " + ("null" if value is None else f"({float(value)!r})")
    assert run([text], [row]) == [[TRUE]]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.integers(-(10**9), 10**9), st.integers(0, 6))
def test_round_is_half_away_from_zero_on_the_decimal(whole: int, digits: int) -> None:
    x = whole / 10 ** (digits + 1)
    expected = value_of(("call", "round", ("number", x), ("number", digits)), {})
    row = {"a": x, "b": expected, "n": None, "mode": None, "on": None, "param.own": None}
    assert run([f"round(a, {digits}) == b"], [row]) == [[TRUE]]


def test_round_of_known_cases() -> None:
    cases = [
        (4.475, 2, 4.48),
        (-4.475, 2, -4.48),
        (0.5, 0, 1.0),
        (2.5, 0, 3.0),
        (0.49999999999999994, 0, 0.0),
    ]
    for x, digits, expected in cases:
        row = {"a": x, "b": expected, "n": None, "mode": None, "on": None, "param.own": None}
        assert run([f"round(a, {digits}) == b"], [row]) == [[TRUE]], x


def test_rows_beyond_a_chunk() -> None:
    rows = CHUNK * 2 + 5
    program = compile_conditions([parse("a > 3 and a + 1 < 10"), parse("not (a > 3)")], SCOPE)
    machine = Machine(program)
    values = np.arange(rows) % 11.0
    machine.room(rows)[0, :rows] = values
    results = machine.run(rows)
    assert (results[program.outputs[0], :rows] == np.where((values > 3) & (values + 1 < 10), 1, 2)).all()
    assert (results[program.outputs[1], :rows] == np.where(values > 3, 2, 1)).all()


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.lists(
        st.sampled_from([-math.inf, -5.0, -0.0, 0.0, 5e-324, 1.0, 1.5, 7.0, math.inf, math.nan, -math.nan]),
        min_size=1,
        max_size=6,
    ),
    st.lists(st.sampled_from([-6.0, -5.0, 0.0, 1.0, 1.25, 7.0, 8.0]), min_size=1, max_size=4, unique=True),
)
def test_many_bounds_of_one_metric(values: list[float], bounds: list[float]) -> None:
    """Where all rows lie on one side of a bound, none of them is looked at; it shows nowhere."""
    plainly: dict[str, Any] = {
        "<": lambda x, y: x < y,
        "<=": lambda x, y: x <= y,
        ">": lambda x, y: x > y,
        ">=": lambda x, y: x >= y,
        "==": lambda x, y: x == y,
        "!=": lambda x, y: x != y,
    }
    told = [(op, bound) for op in plainly for bound in bounds]
    program = compile_conditions([parse(f"a {op} {bound}") for op, bound in told], SCOPE)
    machine = Machine(program)
    for repeated in (1, CHUNK, 12 * CHUNK):  # of one value a chunk has nothing but that
        rows = np.repeat(np.array(values), repeated)
        machine.room(len(rows))[0, : len(rows)] = rows
        results = machine.run(len(rows))
        for output, (op, bound) in zip(program.outputs, told, strict=True):
            trits = [UNKNOWN if x != x else TRUE if plainly[op](x, bound) else FALSE for x in values]
            assert (results[output, : len(rows)] == np.repeat(np.array(trits, np.uint8), repeated)).all()
            assert machine.any_true[output] == (TRUE in trits)


def test_equal_parts_are_computed_once() -> None:
    one = compile_conditions([parse("a * 2 + b > 3")], SCOPE)
    many = compile_conditions([parse(f"a * 2 + b > {limit}") for limit in (3, 4, 5)], SCOPE)
    assert len(many.code) == len(one.code) + 2
    assert compile_conditions([parse("a > 1"), parse("metrics.a > 1.0")], SCOPE).rows == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("tempc > 3", "no metric 'tempc' in press-v1"),
        ("moed == 'run'", "no metric 'moed' in press-v1; did you mean 'mode'?"),
        ("a > param.limt", "no parameter 'limt' in press-v1; did you mean 'limit'?"),
        ("device.site == 'x'", "no column 'site' in devices.csv; did you mean 'site_id'?"),
        ("a", "this is a number where a condition is expected; compare it with something"),
        ("mode", "this is a text where a condition is expected; compare it with something"),
        ("a and b > 1", "this is a number where a condition is expected; compare it with something"),
        ("mode > 'x'", "texts have no order; '>' takes numbers"),
        ("mode == 3", "this is a number where a text is expected"),
        ("a + mode > 3", "this is a text where a number is expected"),
        ("if(on, a, 'x') == 'x'", "this is a number where a text is expected"),
        ("round(a, b) > 3", "round() takes a whole number from 0 to 15 as its number of digits"),
        ("formula.`health` > 3", "no formula 'health' for press-v1"),
        ("frame.port == 1", "'frame.port' is known only while a frame is decoded"),
    ],
)
def test_what_a_condition_may_not_say(text: str, told: str) -> None:
    problems = check_condition(parse(text), SCOPE)
    assert [problem.message for problem in problems] == [told]


def test_every_unknown_name_is_told_with_its_place() -> None:
    problems = check_condition(parse("x > 3 and a > param.y or on"), SCOPE)
    assert [(problem.start, problem.stop) for problem in problems] == [(0, 1), (14, 21)]
