"""Which device a message is of, in all the ways that a plant can say it: readings of a plant test are
addressed as devices would, and come back as that device's."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from flows.test_command import test as penstock_test

PRODUCT = """\
productId: press
version: 1
decode: {format: json, timestamp: t, metrics: m}
metrics: {tempC: {unit: Cel}}
"""
RULE = """\
ruleId: hot
productId: press
type: threshold
condition: tempC > 80
severity: high
"""
CASE = """\
name: two presses, one of them hot
readings:
  - {at: "2026-03-01T09:00:00Z", device: p1, metrics: {tempC: 70}}
  - {at: +1s, device: p2, metrics: {tempC: 90}}
expect:
  alarms: [{ruleId: hot, device_id: p2, transition: raised}]
  rejects: 0
"""


@pytest.mark.parametrize(
    "keys",
    [
        "topic: frames, device: key",
        'topic: [frames, others], device: "header:X-Device"',
        'topic: frames, device: "payload:sn"',
        'topic: "plant.{hub_id}.{device_id}"',
        "topic: [p1, p2], device: topic",
        "topic: mqtt, address: key",
        'topic: mqtt, address: key, template: "works/{hub_id}/{device_id}/up"',
        'topic: mqtt, address: "header:mqtt.topic", template: "works/{line}/{device_id}"',
    ],
)
def test_the_device_of_a_message(keys: str, tmp_path: Path) -> None:
    for name in ("products", "rules", "tests"):
        (tmp_path / name).mkdir()
    source = f'{{kind: kafka, bootstrap: "127.0.0.1:1", product: press, {keys}}}'
    (tmp_path / "plant.yaml").write_text(f"plant: line\nsources:\n  fleet: {source}\n")
    (tmp_path / "products" / "press.yaml").write_text(PRODUCT)
    (tmp_path / "rules" / "hot.yaml").write_text(RULE)
    (tmp_path / "tests" / "hot.yaml").write_text(CASE)
    (tmp_path / "devices.csv").write_text("device_id,productId,hub_id\np1,press,h1\np2,press,h1\n")
    result = CliRunner().invoke(penstock_test, [str(tmp_path)], standalone_mode=False)
    assert result.return_value == 0, result.output
