"""The plant and the messages of the flow benchmark: 1,000 devices, one JSON product with four
metrics, 20 threshold rules with on-delay, 1-minute windows. Quiet but not silent: about one
reading in a thousand is above a rule's limit."""

from __future__ import annotations

import numpy as np

DEVICES = 1000
RULES = 20
START_MS = 1_772_355_600_000  # 2026-03-01T09:00:00Z
METRICS = ("tempC", "rpm", "vibration", "pressure")

PLANT = "plant: bench\nsources:\n  line1: {kind: mqtt, host: 127.0.0.1, subscribe: ['iotlink/#']}\n"

PRODUCT = """\
productId: press-v1
version: 1
topics: ["iotlink/+/+/+/+/pub/telemetry/json"]
decode: {format: json, timestamp: device_timestamp, metrics: data.metrics}
expected_every: 1s
metrics:
  tempC:     {unit: Cel, range: [-40, 150], required: true}
  rpm:       {unit: "{rev}/min", range: [0, 6000]}
  vibration: {unit: mm/s, range: [0, 80]}
  pressure:  {unit: bar, range: [0, 400]}
windows:
  - {every: 1m, lateness: 5s, aggregates: [count, min, max, mean, last]}
"""


def files() -> dict[str, bytes]:
    """The plant folder."""
    limits = {"tempC": 118, "rpm": 4950, "vibration": 61, "pressure": 297}
    rules = []
    for n in range(RULES):
        metric = METRICS[n % 4]
        rules.append(
            f"ruleId: {metric}-{n}\nproductId: press-v1\ntype: threshold\n"
            f'condition: "{metric} > {limits[metric] + n // 4}"\n'
            f'clear_condition: "{metric} < {limits[metric] - 5}"\non_delay: 2s\nseverity: high\n'
        )
    devices = "device_id,productId\n" + "".join(f"press-{i:04d},press-v1\n" for i in range(DEVICES))
    return {
        "plant.yaml": PLANT.encode(),
        "products/press-v1.yaml": PRODUCT.encode(),
        "rules/limits.yaml": "---\n".join(rules).encode(),
        "devices.csv": devices.encode(),
    }


def topics() -> list[str]:
    """One topic a device."""
    return [f"iotlink/prd/nohub/press-{i:04d}/periodic/pub/telemetry/json" for i in range(DEVICES)]


def messages(seconds: int, seed: int = 1) -> list[tuple[int, list[bytes]]]:
    """For each second: ingest time in ms, and one message a device, in device order."""
    random = np.random.default_rng(seed)
    found = []
    for second in range(seconds):
        at = START_MS + second * 1000
        temp = np.round(60 + 20 * random.standard_normal(DEVICES).clip(-3, 3), 1)
        rpm = random.integers(2500, 5000, DEVICES)
        vibration = np.round(random.random(DEVICES) * 62, 2)
        pressure = np.round(200 + 32 * random.standard_normal(DEVICES).clip(-3, 3.1), 1)
        rows = [
            (
                f'{{"hub_timestamp": {at - 5}, "device_timestamp": {at - 20}, "data": {{"metrics": '
                f'{{"tempC": {temp[i]}, "rpm": {rpm[i]}, "vibration": {vibration[i]}, '
                f'"pressure": {pressure[i]}}}}}}}'
            ).encode()
            for i in range(DEVICES)
        ]
        found.append((at, rows))
    return found
