"""Expressions and messages that mean harm: refused at their place, and not evaluated."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows.plant_reader import load_plant, read_folder

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "base"
LONG = 1 << 20

# text, column on the line, and what is told
HOSTILE = {
    "attribute": (
        "tempC.__class__ > 3",
        0,
        "nothing is called 'tempC.'; a name with a dot stands whole in backticks",
    ),
    "dunder": ("__import__('os').system('id') > 0", 0, "no function '__import__'"),
    "dunder name": ("__builtins__ > 0", 0, "no metric '__builtins__' in press-v1"),
    "subscript": ("tempC[0] > 3", 5, "'[' is not expected here"),
    "lambda": ("(lambda: 1)() > 0", 7, "':' is not expected here"),
    "format string": ("f'{tempC}' == 'x'", 1, "''{tempC}'' is not expected here"),
    "power": ("9**9**9 > tempC", 0, "this is no finite number"),
    "assignment": ("tempC := 3", 6, "':' is not expected here"),
    "statement": ("tempC > 3; import os", 9, "';' is not expected here"),
    "huge literal": ("tempC > 1" + "0" * 5_000, 8, "a number of more than 400 characters"),
    "huge exponent": ("tempC > 1e999999999", 8, "the number is too large"),
    "minus signs": (
        "-" * 100_000 + "tempC > 0",
        8192,
        "an expression of 100009 characters; at most 8192 are taken",
    ),
    "minus signs that fit": ("-" * 8_000 + "tempC > 0", None, "nested deeper than 48 levels"),
    "nots": ("not " * 2_000 + "tempC > 0", None, "nested deeper than 48 levels"),
    "brackets": ("(" * 4_000 + "tempC" + ")" * 4_000, None, "nested deeper than 48 levels"),
    "calls": ("abs(" * 1_600 + "tempC" + ")" * 1_600, None, "nested deeper than 48 levels"),
    "a long chain": ("tempC" + " + tempC" * 1_000 + " > 0", None, ""),
    "a megabyte": (
        "tempC > 0 or " * (LONG // 13) + "tempC > 1",
        8192,
        f"an expression of {LONG // 13 * 13 + 9} characters; at most 8192 are taken",
    ),
    "a megabyte of one name": (
        "x" * LONG + " > 0",
        8192,
        f"an expression of {LONG + 4} characters; at most 8192 are taken",
    ),
    "a megabyte of text": (
        "'" + "x" * LONG + "' == 'y'",
        8192,
        f"an expression of {LONG + 9} characters; at most 8192 are taken",
    ),
}

HOSTILE_MESSAGES = {
    "attribute": ("{tempC.__class__}", 0, "no metric 'tempC.__class__' in press-v1"),
    "dunder": ("{__class__}", 0, "no metric '__class__' in press-v1"),
    "index": ("{tempC[0]}", 0, "no metric 'tempC[0]' in press-v1"),
    "position": ("{0}", 0, "no metric '0' in press-v1"),
    "conversion": ("{tempC!r}", 0, "no metric 'tempC!r' in press-v1"),
    "wide": ("{tempC:999999999f}", 0, "'999999999f' is no number format; write for example {tempC:.1f}"),
    "format of a format": ("{tempC:{tempC}}", 0, "a single '{'; write '{{' for a brace"),
    "a megabyte": ("x" * LONG, 2000, f"a message of {LONG} characters; at most 2000 are taken"),
    "braces": ("{" * 1_001, 1_000, "a single '{'; write '{{' for a brace"),
}


def problems(key: str, text: str) -> list[str]:
    condition = "" if key == "condition" else 'condition: "tempC > 3"\n'
    rule = "ruleId: r\nproductId: press-v1\ntype: threshold\n"
    rule += f"{key}: {json.dumps(text)}\n{condition}severity: high\n"
    files = read_folder(GOLDEN) | {"rules/temp.yaml": rule.encode()}
    plant, found = load_plant(files, {})
    assert plant is None
    return found.render().splitlines()


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("key", ["condition", "clear_condition", "where"])
def test_a_hostile_expression_is_refused_at_its_place(name: str, key: str) -> None:
    text, at, told = HOSTILE[name]
    lines = problems(key, text)
    place, _, rest = lines[0].partition("  ")
    file, line, column = place.split(":")
    assert (file, line) == ("rules/temp.yaml", "4")
    assert at is None or int(column) == len(key) + 4 + at  # `key: "` stands before it
    assert rest.startswith(f"r.{key}: {told}")
    assert all(len(one) < 1000 for one in lines)
    assert len(lines) <= 12


@pytest.mark.parametrize("name", HOSTILE_MESSAGES)
def test_a_hostile_message_is_refused_at_its_place(name: str) -> None:
    text, at, told = HOSTILE_MESSAGES[name]
    lines = problems("message", text)
    assert lines[0].startswith(f"rules/temp.yaml:4:{len('message') + 4 + at}  r.message: {told}")
    assert all(len(one) < 1000 for one in lines)
