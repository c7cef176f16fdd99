"""`penstock test`: the live engine over the tests of a plant."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from flows.test_command import test as run_tests

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = [ROOT / "examples" / "press-line", ROOT / "examples" / "machine-temperature"]


def run(folder: Path, *options: str) -> Result:
    return CliRunner().invoke(
        run_tests, [str(folder), *options], standalone_mode=False, catch_exceptions=False
    )


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_the_examples_pass_their_tests(example: Path) -> None:
    result = run(example, "--json")
    assert result.return_value == 0, result.stdout
    assert json.loads(result.stdout)["ok"]


@pytest.fixture
def plant(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "tests" / "golden" / "base", tmp_path, dirs_exist_ok=True)
    (tmp_path / "tests").mkdir()
    return tmp_path


def test_what_differs_is_shown(plant: Path) -> None:
    (plant / "tests" / "hot.yaml").write_text(
        """
name: too hot
readings:
  - {at: "2026-03-01T09:00:00Z", device: press-01, metrics: {tempC: 70}}
  - {at: +5s, device: press-01, metrics: {tempC: 90}}
  - {at: +9s, device: press-01, metrics: {tempC: 60}}
expect:
  alarms:
    - {ruleId: temp-high, device_id: press-02, transition: raised, at: +4s}
  rejects: 2
  readings: 4
"""
    )
    result = run(plant)
    assert result.return_value == 1
    assert result.stdout.splitlines() == [
        "FAIL  tests/hot.yaml  too hot",
        "      alarms: 0 of 1 as expected, 2 came",
        "        expected                          | got",
        "      ! raised   temp-high  press-02  +4s | raised   temp-high  press-01  +5s"
        " | <- device_id 'press-01' instead of 'press-02', at +5s instead of +4s",
        "      !                                   | cleared  temp-high  press-01  +9s | <- too many",
        "      rejects: expected 2, got 0",
        "      readings: expected 4 accepted, got 3",
        "0 of 1 passed",
    ]


def test_a_recording_as_input(plant: Path) -> None:
    lines = [
        {
            "ingest_ts": 1772355600000 + n * 1000,
            "source": "line1",
            "topic": "devices/press-01",
            "payload": text,
        }
        for n, text in enumerate(['{"data": {"metrics": {"tempC": 90}}}', "not json"])
    ]
    (plant / "tests" / "hot.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (plant / "tests" / "hot.yaml").write_text(
        "name: recorded\nfile: hot.jsonl\n"
        "expect: {alarms: [{transition: raised}], rejects: [{reason: malformed}]}\n"
    )
    assert run(plant).stdout.splitlines() == ["ok    tests/hot.yaml  recorded", "1 of 1 passed"]
    (plant / "tests" / "hot.yaml").write_text("name: away\nfile: ../../x.jsonl\nexpect: {}\n")
    assert "no file tests/../../x.jsonl in the plant" in run(plant).stdout
