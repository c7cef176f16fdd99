"""The grammar: what it takes, and what it refuses, with the place."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.expression.grammar import parse
from operators.expression.tree import (
    Binary,
    Call,
    Compare,
    Duration,
    ExpressionError,
    Logic,
    Name,
    Number,
    Unary,
    walk,
)


def refusal(text: str) -> tuple[str, int, int]:
    with pytest.raises(ExpressionError) as caught:
        parse(text)
    return caught.value.message, caught.value.start, caught.value.stop


def test_precedence() -> None:
    assert parse("a or b and not c == -d ** 2 * 3 + 1") == parse(
        "a or (b and (not (c == (((-(d ** 2)) * 3) + 1))))"
    )
    assert parse("2 ** 3 ** 2 > a") == parse("2 ** (3 ** 2) > a")
    assert parse("a - b - c > 0") == parse("(a - b) - c > 0")


def test_names() -> None:
    tree = parse("온도 > param.`a-b` and metrics.`x.y` < _z and device.site_id == 'x'")
    names = [(node.root, node.parts) for node in walk(tree) if isinstance(node, Name)]
    assert names == [
        ("", ("온도",)),
        ("param", ("a-b",)),
        ("metrics", ("x.y",)),
        ("", ("_z",)),
        ("device", ("site_id",)),
    ]


def test_places_are_characters_of_the_text() -> None:
    tree = parse("  a >\n (b + 1) ")
    assert isinstance(tree, Compare)
    assert isinstance(tree.right, Binary)
    assert (tree.left.start, tree.left.stop) == (2, 3)
    assert (tree.right.start, tree.right.stop) == (8, 13)


def test_calls_and_durations() -> None:
    held = parse("held(a > 3, 10s)")
    assert isinstance(held, Call)
    assert held.arguments[1] == Duration(0, 0, 10_000_000_000, 0, "")
    month = parse("avg(a, 2mo) > 1")
    assert isinstance(month, Compare)
    mean = parse("window.`1m`.mean(tempC)")
    assert isinstance(mean, Call)
    assert mean.target == Name(0, 0, "window", ("1m",), "")


def test_logic_is_flat() -> None:
    tree = parse(" and ".join(["a"] * 300))
    assert isinstance(tree, Logic)
    assert len(tree.operands) == 300


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("5 bar", "bar"),
        ("5 [degF]", "[degF]"),
        ("3000 {rev}/min", "{rev}/min"),
        ("20 mm/s", "mm/s"),
        ("2 m3/h", "m3/h"),
        ("1 `J/(kg.K)`", "J/(kg.K)"),
        ("9.81 `m.s-2`", "m.s-2"),
        ("5", ""),
    ],
)
def test_a_unit_stands_behind_a_number(text: str, unit: str) -> None:
    tree = parse(text)
    assert isinstance(tree, Number)
    assert (tree.unit, tree.start, tree.stop) == (unit, 0, len(text))
    assert parse(f"{text} + a and b") == parse(f"(({text}) + a) and b")


def test_a_unit_leaves_durations_and_words_alone() -> None:
    tree = parse("held(a > 5 bar and b > 3, 10s) or c % 3 == 2")
    assert [node.unit for node in walk(tree) if isinstance(node, Number)] == ["bar", "", "", ""]


def test_numbers() -> None:
    for text, value in (("0x10", 16.0), ("1e3", 1000.0), (".5", 0.5), ("3.", 3.0), ("0367", 367.0)):
        tree = parse(text)
        assert isinstance(tree, Number)
        assert tree.value == value
    assert isinstance(parse("-1"), Unary)


@pytest.mark.parametrize(
    ("text", "message", "start", "stop"),
    [
        ("", "the expression is empty", 0, 1),
        ("a >", "the expression ends where a value is expected", 2, 3),
        ("a > 5 bar 3", "'3' is not expected here", 10, 11),
        ("a > 5 °C", "a unit is written as UCUM has it, e.g. Cel, um, Ohm", 6, 7),
        (
            "a > 5bar",
            "'5bar' is no duration (those end in ms, s, m, h, d or mo); a unit stands behind a blank: "
            "'5 bar'",
            4,
            8,
        ),
        ("a > 10s", "the duration '10s' can only be the last argument of a function over time", 4, 7),
        ("a = 3", "'=' is no operator; write '==' to compare", 2, 3),
        ("a && b", "'&&' is no operator; write 'and'", 2, 4),
        ("!a", "'!' is no operator; write 'not'", 0, 1),
        ("1 < a < 3", "comparisons do not chain; write 'a < b and b < c'", 6, 7),
        ("abs(1, 2) > a", "abs() takes 1 argument, not 2", 0, 9),
        ("if(a, b) > 1", "if() takes 3 arguments, not 2", 0, 8),
        ("min(a) > 1", "min() takes at least 2 arguments, not 1", 0, 6),
        ("held(a, 3)", "held() takes a duration such as 5m as its last argument", 8, 9),
        ("flor(a) > 1", "no function 'flor'; did you mean 'floor'?", 0, 4),
        ("(a > 1", "this '(' is never closed", 0, 1),
        ("a > 1)", "')' is not expected here", 5, 6),
        ("mode == 'run", "the text that begins here has no closing '", 8, 12),
        ("metric.a > 1", "nothing is called 'metric.'; did you mean 'metrics'?", 0, 8),
        ("a.b.c > 1", "nothing is called 'a.'; a name with a dot stands whole in backticks", 0, 5),
        ("a § b", "'§' means nothing here", 2, 3),
        ("1e999 > a", "the number is too large", 0, 5),
        ("1 / 0 > a", "this is no finite number", 0, 5),
    ],
)
def test_refusals(text: str, message: str, start: int, stop: int) -> None:
    assert refusal(text) == (message, start, stop)


HOSTILE = [
    "x.__class__",
    "__import__('os').system('true')",
    "().__class__.__bases__",
    "'{0.__class__}'.format(a)",
    "9**9**9",
    "9**9**9**9**9**9 > a",
    "-" * 100_000 + "a",
    "-" * 8000 + "a",
    "not " * 2000 + "a",
    "(" * 4000 + "a" + ")" * 4000,
    "abs(" * 1000 + "a" + ")" * 1000,
    "a" + " + a" * 2000,
    "a" + " ** a" * 1000,
    "1" * 5000,
    "0x" + "f" * 5000,
    "a" * 1_000_000,
    "a > 1 and " * 100_000 + "a",
    "'" * 8191,
    "`" * 8191,
    "lambda: 1",
    "a if b else c",
    "[1, 2]",
    "{'a': 1}",
    "a; b",
    "a := 3",
    "a @ b",
    "\x00",
    "a\u202eb > \ud800",
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_is_refused_with_its_place(text: str) -> None:
    _, start, stop = refusal(text)
    assert 0 <= start < stop <= len(text) + 1


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.text(alphabet="ab1.5 ()+-*/<>=!'`,\"andortif%&|\n", max_size=60))
def test_any_text_is_taken_or_refused(text: str) -> None:
    try:
        tree = parse(text)
    except ExpressionError as error:
        place = (error.start, error.stop)
    else:
        place = (tree.start, tree.stop)
        assert all(0 <= node.start < node.stop <= len(text) for node in walk(tree))
    assert place[0] < place[1]
