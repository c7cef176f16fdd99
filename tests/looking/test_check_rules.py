"""`penstock check --rules`: what each rule became."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from flows.check_command import check
from flows.check_rules import duration

BASE = Path(__file__).resolve().parents[1] / "golden" / "base"
RULES = """
ruleId: span
productId: press-v1
type: limit
of: tempC
limits: {HH: 95, H: param.tempHigh, L: 5}
deadband: 2
severity: {HH: critical, H: high, L: low}
suppressed_by: hot
max_shelve: 8h
latch: true
escalate: [{after: 5m, unless: acknowledged, severity: critical}]
---
ruleId: hot
productId: press-v1
type: threshold
condition: "metrics.tempC>(param.tempHigh)+10 and(tempC < 200 or not tempC == 7)"
on_delay: 90s
off_delay: 1500ms
severity: medium
acknowledge: none
mode: shadow
"""


@pytest.fixture
def plant(tmp_path: Path) -> Path:
    shutil.copytree(BASE, tmp_path, dirs_exist_ok=True)
    for old in (tmp_path / "rules").glob("*.yaml"):
        old.unlink()
    (tmp_path / "rules").mkdir(exist_ok=True)
    (tmp_path / "rules" / "made.yaml").write_text(RULES)
    return tmp_path


def rules(plant: Path) -> dict[str, dict[str, Any]]:
    result = CliRunner().invoke(check, [str(plant), "--json"], catch_exceptions=False)
    told = json.loads(result.stdout)
    assert told["ok"], told["problems"]
    return {rule["ruleId"]: rule for rule in told["rules"]}


def test_a_threshold(plant: Path) -> None:
    hot = rules(plant)["hot"]
    told = {one["what"]: one["canonical"] for one in hot["expressions"]}
    assert told == {
        "condition": "tempC > param.tempHigh + 10 and (tempC < 200 or not tempC == 7)",
        "clear": "not (tempC > param.tempHigh + 10 and (tempC < 200 or not tempC == 7))",
    }
    assert hot["severity"] == {"all": {"name": "medium", "number": 500}}
    assert hot["acknowledge"] == {"all": False}
    assert (hot["on_delay"], hot["off_delay"], hot["mode"]) == ("90s", "1500ms", "shadow")


def test_limits(plant: Path) -> None:
    span = rules(plant)["span"]
    told = {one["what"]: one["canonical"] for one in span["expressions"]}
    assert told == {
        "condition HH": "tempC > 95",
        "clear HH": "not tempC > 95 - 2.0",
        "condition H": "tempC > param.tempHigh",
        "clear H": "not tempC > param.tempHigh - 2.0",
        "condition L": "tempC < 5",
        "clear L": "not tempC < 5 + 2.0",
    }
    assert span["severity"]["HH"] == {"name": "critical", "number": 900}
    assert span["severity"]["L"] == {"name": "low", "number": 300}
    assert span["acknowledge"] == {"HH": True, "H": True, "L": False}
    assert span["suppressed_by"] == {
        "HH": [],
        "H": ["span/HH"],
        "L": [],
    }  # a live rule is not suppressed by a shadow
    assert span["escalate"] == [{"after": "5m", "unless": "acknowledged", "severity": "critical"}]
    assert (span["latch"], span["max_shelve"]) == (True, "8h")


def test_what_is_printed(plant: Path) -> None:
    result = CliRunner().invoke(check, [str(plant), "--rules"], catch_exceptions=False)
    lines = [line.rstrip() for line in result.stdout.splitlines()]
    at = next(number for number, line in enumerate(lines) if line.startswith("hot "))
    assert lines[at : at + 3] == [
        "hot             medium 500  threshold",
        "condition       tempC > param.tempHigh + 10 and (tempC < 200 or not tempC == 7)",
        "clear           not (tempC > param.tempHigh + 10 and (tempC < 200 or not tempC == 7))",
    ]
    assert "delays          on_delay 90s, off_delay 1500ms" in lines
    assert "mode            shadow: recorded, nobody is told" in lines
    quiet = CliRunner().invoke(check, [str(plant)], catch_exceptions=False)
    assert "on_delay" not in quiet.stdout


@pytest.mark.parametrize(
    ("ns", "told"),
    [
        (0, "0s"),
        (1_500_000_000, "1500ms"),
        (90_000_000_000, "90s"),
        (3_600_000_000_000, "1h"),
        (500, "5e-07s"),
    ],
)
def test_durations(ns: int, told: str) -> None:
    assert duration(ns) == told
