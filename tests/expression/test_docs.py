"""What docs/expressions.md shows is what the language takes."""

from __future__ import annotations

import re
from pathlib import Path

from operators.expression.canonical import canonical_text
from operators.expression.grammar import parse
from operators.expression.program import MetricType, Scope, check_condition, check_value, resolved
from operators.expression.tree import FUNCTIONS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "expressions.md").read_text()
METRICS: dict[str, MetricType] = {
    "tempC": "number",
    "pressure": "number",
    "vibration": "number",
    "valve": "string",
    "state": "string",
    "door": "boolean",
}
UNITS = {"tempC": "Cel", "pressure": "bar", "vibration": "mm/s"}
SCOPE = Scope("press-v1", METRICS, {"tempHigh": 80.0}, (), ("site_id",), UNITS)


def test_its_conditions_are_taken() -> None:
    conditions = re.findall(r'^condition: "([^"]+)"', PAGE, re.MULTILINE)
    assert len(conditions) == 4
    for text in conditions:
        assert check_condition(parse(text), SCOPE) == [], text


def test_its_formulas_are_taken() -> None:
    (reading, window) = re.findall(r'^formula: "([^"]+)"', PAGE, re.MULTILINE)
    assert check_value(parse(reading), SCOPE) == []
    over = Scope("press-v1", METRICS, window="1m", aggregates={"tempC": ("max", "mean")})
    assert check_value(parse(window, window="1m"), over) == []


def test_its_units_become_what_it_says() -> None:
    rows = re.findall(r"^\| `([^`]+)` \| [^|]*\| `([^`]+)`[^|]*\|$", PAGE, re.MULTILINE)
    assert len(rows) == 5
    for text, becomes in rows:
        assert canonical_text(resolved(parse(text), SCOPE)) == canonical_text(parse(becomes)), text


def test_every_function_stands_on_it() -> None:
    for name in FUNCTIONS:
        assert re.search(rf"\b{name}\b", PAGE), name
