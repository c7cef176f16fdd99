"""Units in expressions: literals are converted, clashes refused; what a UCUM text is worth."""

from __future__ import annotations

import subprocess
import sys

import pytest

from operators.expression.canonical import canonical_text
from operators.expression.grammar import parse
from operators.expression.program import Scope, check_condition, resolved
from operators.expression.ucum import UnitError, unit_of

UNITS = {
    "tempC": "Cel",
    "tempK": "K",
    "tempF": "[degF]",
    "pBar": "bar",
    "pKpa": "kPa",
    "vibration": "mm/s",
    "speed": "m/s",
    "rpm": "{rev}/min",
    "hum": "%{RH}",
    "noise": "dB",
}
SCOPE = Scope("press-v1", dict.fromkeys([*UNITS, "plain"], "number"), {"high": 80.0}, (), (), UNITS)


@pytest.mark.parametrize(
    ("text", "becomes"),
    [
        ("tempC > 350 K", "(tempC > 76.85)"),
        ("350 K < tempC", "(76.85 < tempC)"),
        ("tempC > -5 K", "(tempC > -278.15)"),
        ("tempC < 0x10 K", "(tempC < -257.15)"),
        ("tempK > 80 Cel", "(tempK > 353.15)"),
        ("tempF > 100 Cel", "(tempF > 212.0)"),
        ("pBar > 500 kPa", "(pBar > 5.0)"),
        ("pKpa > 0.1 bar", "(pKpa > 10.0)"),
        ("vibration > 1 m/s", "(vibration > 1000.0)"),
        ("rpm > 50 Hz", "(rpm > 3000.0)"),
        ("noise > 85 dB", "(noise > 85.0)"),
        # differences have no zero of their own
        ("delta(tempC) > 5 K", "(delta(tempC) > 5.0)"),
        ("std(tempC, 1m) > 9 [degF]", "(std(tempC, 60000000000ns) > 5.0)"),
        ("tempC - prev(tempC) > 5 K", "((tempC - prev(tempC)) > 5.0)"),
        ("rate(tempC) > 60 Cel/min", "(rate(tempC) > 1.0)"),
        ("100 - tempC > 5 K", "((100.0 - tempC) > 5.0)"),
        ("tempC - 5 Cel > 350 K", "((tempC - 5.0) > 76.85)"),
        # units go through functions and arithmetic
        ("abs(vibration) >= 0.5 m/s", "(abs(vibration) >= 500.0)"),
        ("max(pBar, 300 kPa) > 4 bar", "(max(pBar, 3.0) > 4.0)"),
        ("if(plain > 1, pBar, 300 kPa) > 4", "(if((plain > 1.0), pBar, 3.0) > 4.0)"),
        ("speed * 3 s > 0.02 km", "((speed * 3.0) > 20.0)"),
        ("sqrt(speed * speed) > 36 km/h", "(sqrt((speed * speed)) > 10.0)"),
        ("avg(tempC, 5m) > 350 K", "(avg(tempC, 300000000000ns) > 76.85)"),
        ("since(tempC > 80) > 5 min", "(since((tempC > 80.0)) > 300.0)"),
        ("5 bar > 300 kPa", "(5.0 > 3.0)"),
        # what has no unit fits anything
        ("tempC > param.high - 5", "(tempC > (param.high - 5.0))"),
        (
            "clamp(100 - (tempC - 60) * 2 - vibration * 10, 0, 100) < 50",
            "(clamp(((100.0 - ((tempC - 60.0) * 2.0)) - (vibration * 10.0)), 0.0, 100.0) < 50.0)",
        ),
    ],
)
def test_literals_are_converted(text: str, becomes: str) -> None:
    assert check_condition(parse(text), SCOPE) == []
    assert canonical_text(resolved(parse(text), SCOPE)) == becomes


_ALONE = "could be converted to; write the number alone"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("tempC > 5 bar", "'tempC' is in Cel and '5 bar' in bar; these have no common unit"),
        ("tempC > vibration", "'tempC' is in Cel and 'vibration' in mm/s; these have no common unit"),
        ("rate(pBar) > 1 bar", "'rate(pBar)' is in bar/s and '1 bar' in bar; these have no common unit"),
        ("noise > 85 %{RH}", None),
        ("noise > hum", "'noise' is in dB and 'hum' in %{RH}; these have no common unit"),
        ("pBar > pKpa", "'pBar' is in bar and 'pKpa' in kPa; write 'pKpa * 0.01' for the second"),
        ("pBar + pKpa > 3", "'pBar' is in bar and 'pKpa' in kPa; write 'pKpa * 0.01' for the second"),
        ("tempC > tempK", "'tempC' is in Cel and 'tempK' in K; write 'tempK * 1 - 273.15' for the second"),
        (
            "tempC - 5 K > 3",
            "'5 K' may be a temperature or a difference of two here; write the number alone, in Cel",
        ),
        ("plain > 5 bar", f"'plain' has no unit that '5 bar' {_ALONE}"),
        ("param.high > 5 bar", f"'param.high' has no unit that '5 bar' {_ALONE}"),
        ("vibration * 2 > 5 mm/s", f"'(vibration * 2.0)' has no unit that '5 mm/s' {_ALONE}"),
        ("tempC > 5 kpa", "'kpa' is no UCUM unit; write 'kPa'"),
        ("rpm > 5 rpm", "'rpm' is no UCUM unit; write '{rev}/min'"),
    ],
)
def test_clashes_are_refused(text: str, told: str | None) -> None:
    if told is None:
        with pytest.raises(Exception, match="not expected here"):
            parse(text)
        return
    assert [problem.message for problem in check_condition(parse(text), SCOPE)] == [told]


def test_what_is_written_for_the_second_is_taken() -> None:
    for text in ("pBar > pKpa * 0.01", "tempC > tempK * 1 - 273.15"):
        assert check_condition(parse(text), SCOPE) == []


def test_the_place_is_the_comparison() -> None:
    (problem,) = check_condition(parse("plain > 1 and tempC > 5 bar"), SCOPE)
    assert (problem.start, problem.stop) == (14, 27)


def test_a_long_chain_is_no_trouble() -> None:
    text = " + ".join(["pBar"] * 150) + " > 300 kPa"
    assert check_condition(parse(text), SCOPE) == []


@pytest.mark.parametrize(
    ("text", "mend"),
    [
        ("kWh", "; write 'kW.h'"),
        ("°C", "; write 'Cel'"),
        ("Celsius", "; did you mean 'Cel'?"),
        ("", "; units are e.g. Cel, bar, mm/s, {rev}/min, and what UCUM lacks stands in braces"),
    ],
)
def test_a_text_that_is_no_unit(text: str, mend: str) -> None:
    with pytest.raises(UnitError) as caught:
        unit_of(text)
    assert str(caught.value) == f"'{text}' is no UCUM unit{mend}"


def test_units_that_were_met_before_cost_no_library() -> None:
    unit_of("kPa")
    code = (
        "import sys; from operators.expression.ucum import unit_of; "
        "assert unit_of('kPa').scale == 1000; print('pint' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "False\n"
