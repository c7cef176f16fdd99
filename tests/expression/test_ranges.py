"""Whether a condition can hold at all, given the contract's ranges."""

from __future__ import annotations

import pytest

from operators.expression.grammar import parse
from operators.expression.program import MetricType, Scope, resolved
from operators.expression.ranges import verdict

METRICS: dict[str, MetricType] = {
    **dict.fromkeys(("tempC", "rpm", "free"), "number"),
    **dict.fromkeys(("mode", "name"), "string"),
}
VALUES = {"mode": ["idle", "run"]}
SCOPE = Scope("p", METRICS, {"high": 80.0}, (), (), {"tempC": "Cel"}, values=VALUES)
RANGES = {"tempC": (-40.0, 150.0), "rpm": (0.0, 6000.0)}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("tempC > 150", False),
        ("tempC > 500 K", False),
        ("tempC >= -40", True),
        ("tempC > param.high", None),
        ("prev(tempC) > 150", False),
        ("delta(tempC) > 190", False),
        ("delta(tempC) > 189", None),
        ("abs(delta(rpm)) <= 6000", True),
        ("delta(free) > 1e300", None),
        ("rate(tempC) > 1000", None),
        ("avg(tempC, 5m) > 150", False),
        ("max(tempC, 5m) - min(tempC, 5m) > 190", False),
        ("std(tempC, 5m) < 0", False),
        ("sum(rpm, 5m) < 0", False),
        ("sum(tempC, 5m) < 0", None),
        ("count(free, 5m) < 0", False),
        ("since(tempC > 80) < 0", False),
        ("held(tempC > 150, 5s)", False),
        ("held(tempC >= -40, 5s)", None),
        ("changed(tempC)", None),
        ("not held(tempC > 150, 5s) or changed(rpm)", True),
        ("tempC == 151", False),
        ("tempC != 151", True),
        ("tempC == 150", None),
        ("mode == 'stop'", False),
        ("'stop' != mode", True),
        ("mode == 'run'", None),
        ("name == 'stop'", None),
    ],
)
def test_never_and_always(text: str, holds: bool | None) -> None:
    assert verdict(resolved(parse(text), SCOPE), SCOPE, RANGES) is holds
