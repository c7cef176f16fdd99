"""Formulas, the past and units from the plant folder to alarms and to the AAS HTTP API."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from litestar.testing import TestClient

from flows.server import make_app
from tests.server.looked_at import FRAMES, PRESS_LINE, START_MS, make_data
from tests.server.test_looking import BASE, encoded

FORMULAS = """
formulaId: over-heated
productId: press-v1
formula: "max(tempC - param.tempHigh, 0)"
---
formulaId: steady
productId: press-v1
formula: "std(tempC, 10s) < 3 K and formula.`over-heated-twice` > 0"
---
formulaId: over-heated-twice
productId: press-v1
formula: "formula.`over-heated` * 2"
---
formulaId: spread
productId: press-v1
formula: "max(tempC) - mean(tempC)"
over: 1m
"""
RULES = """
ruleId: rising-press
productId: press-v1
type: threshold
condition: "rate(tempC) > 12 K/min and avg(tempC, 5s) > 367.15 K and formula.`over-heated` > 10"
severity: medium
"""
ELEMENTS = """
        - {path: Health.OverHeated, value: "formula.`over-heated`"}
        - {path: Health.Steady, value: "formula.steady"}
        - {path: Health.Spread, value: "formula.spread"}
        - {path: Alarms.Acknowledged, value: "alarm.`rising-press`.acknowledged"}
        - {path: Alarms.Shelved, value: "alarm.`temp-high-press`.shelved"}
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("plant")
    plant = root / "press-line"
    shutil.copytree(PRESS_LINE, plant, ignore=shutil.ignore_patterns(".penstock", "tests"))
    (plant / "formulas").mkdir()
    (plant / "formulas" / "press.yaml").write_text(
        FORMULAS.replace("formula.over-heated-twice", "formula.`over-heated-twice`")
    )
    (plant / "rules" / "rising.yaml").write_text(
        RULES.replace("formula.over-heated", "formula.`over-heated`")
    )
    product = plant / "products" / "press-v1.yaml"
    product.write_text(product.read_text().rstrip() + ELEMENTS)
    make_data(root / "data", plant)
    return root / "data"


@pytest.fixture
def client(data: Path) -> Iterator[TestClient[Any]]:
    with TestClient(make_app(data, "127.0.0.1:8080"), base_url="http://127.0.0.1:8080") as opened:
        yield opened


def test_a_submodel_shows_formulas_and_alarms(client: TestClient[Any]) -> None:
    path = f"{BASE}/{encoded('https://example.com/sm/press-01/operational')}"
    value = client.get(f"{path}/$value").json()
    # press-01 rises by 0.25 Cel a second from 90.0 to 99.75 and then stands at 99.5 from second 42 to 74; the
    # minute from 0 to 60 holds FRAMES readings of the ramp and 18 of 99.5
    ramp = [90.0 + second / 4 for second in range(FRAMES)]
    mean = (sum(ramp) + 18 * 99.5) / (FRAMES + 18)
    assert value["Health"]["OverHeated"] == 99.5 - 80
    assert value["Health"]["Steady"] is True
    assert value["Health"]["Spread"] == pytest.approx(99.75 - mean, abs=1e-9)
    assert value["Alarms"]["OverTemperature"] is True
    assert value["Alarms"]["Acknowledged"] is False  # cleared long ago, and open until someone does
    assert value["Alarms"]["Shelved"] is False
    assert client.get(f"{path}/submodel-elements/Health.Steady/$value").json() is True
    whole = client.get(f"{path}/submodel-elements/Health.OverHeated").json()
    assert (whole["valueType"], whole["value"]) == ("xs:double", "19.5")


def test_a_rule_over_rate_average_and_formula_raises_where_a_hand_says(data: Path) -> None:
    events = [json.loads(line) for line in (data / "alarms.jsonl").read_text().splitlines()]
    own = [event["data"] for event in events if event["data"]["ruleId"] == "rising-press"]
    # 15 K a minute throughout the ramp; the mean of five seconds is above 94 Cel from 94.75 (second 19) on,
    # for (93.75 + ... + 94.75) / 5 = 94.25, and a second earlier 94.0, which is not above
    raised = [one for one in own if one["transition"] == "raised"]
    assert [one["event_time"] for one in raised] == ["2026-03-01T09:00:19.000Z"]
    cleared = [one for one in own if one["transition"] == "cleared"]
    assert [one["event_time"] for one in cleared] == ["2026-03-01T09:00:42.000Z"]
    assert START_MS == 1_772_355_600_000
