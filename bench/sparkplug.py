"""Question: what does a Sparkplug message cost the receiver, from its bytes to the frame that is journaled?

Input: DDATA of 100 devices by alias, all values doubles, with 1, 10 and 100 metrics a message, in memory.
Peer: the plainest host application in Python, which parses the same bytes with the same protobuf library and
reads each metric's alias, time and value into a row by the name that the birth gave it, and does no more. CPU
of one thread, medians; in microseconds a message, and a metric out of the two larger sizes. `ratio` is the
peer's time over ours.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from connectors.mqtt.config import SparkplugConfig
from connectors.mqtt.sparkplug.messages import Sparkplug
from connectors.mqtt.sparkplug.sparkplug_b_pb2 import DataType, Payload

DEVICES: Final = 100
METRICS: Final = (1, 10, 100)
VALUES: Final = 100_000  # of one round
ROUNDS: Final = 7
START_MS: Final = 1_780_000_000_000

Message = tuple[str, bytes]


def run(values: int = VALUES, rounds: int = ROUNDS) -> dict[str, Any]:
    """Measure; returns the costs by metrics a message."""
    found: dict[str, Any] = {}
    ours_us: dict[int, float] = {}
    for metrics in METRICS:
        births, data = _messages(metrics, values // metrics)
        sparkplug = Sparkplug(SparkplugConfig())
        names: dict[str, dict[int, str]] = {}
        for topic, payload in births:
            sparkplug.take(topic, payload)
            told = Payload.FromString(payload).metrics
            names[topic.replace("DBIRTH", "DDATA")] = {int(one.alias): one.name for one in told}
        ours, plain = [], []
        for _ in range(rounds):
            ours.append(_seconds(sparkplug.take, data))
            plain.append(_seconds(partial(_row, names), data))
        ours_us[metrics] = statistics.median(ours) / len(data) * 1e6
        found[f"{metrics} a message"] = {
            "us_a_message": round(ours_us[metrics], 2),
            "plain_us_a_message": round(statistics.median(plain) / len(data) * 1e6, 2),
            "ratio": round(statistics.median(plain) / statistics.median(ours), 3),
        }
    few, many = METRICS[1], METRICS[-1]
    found["us_a_metric"] = round((ours_us[many] - ours_us[few]) / (many - few), 3)
    return found


def _messages(metrics: int, count: int) -> tuple[list[Message], list[Message]]:
    """The births of one node's devices, and data."""
    births = []
    for device in range(DEVICES):
        payload = Payload(timestamp=START_MS, seq=(device + 1) % 256)
        for number in range(metrics):
            payload.metrics.add(
                name=f"Motor/metric-{number}",
                alias=device * metrics + number,
                datatype=DataType.Double,
                timestamp=START_MS,
                double_value=float(number),
            )
        births.append((f"spBv1.0/works/DBIRTH/edge/press-{device:03d}", bytes(payload.SerializeToString())))
    data = []
    for turn in range(count):
        device, at_ms = turn % DEVICES, START_MS + 1 + turn
        payload = Payload(timestamp=at_ms, seq=(DEVICES + 1 + turn) % 256)
        for number in range(metrics):
            payload.metrics.add(
                alias=device * metrics + number, timestamp=at_ms, double_value=0.5 * turn + number
            )
        data.append((f"spBv1.0/works/DDATA/edge/press-{device:03d}", bytes(payload.SerializeToString())))
    return births, data


def _row(names: dict[str, dict[int, str]], topic: str, payload: bytes) -> dict[str, tuple[int, Any]]:
    """What a host application of a few lines does. names: by topic and alias."""
    row, mine = {}, names[topic]
    for metric in Payload.FromString(payload).metrics:
        which = metric.WhichOneof("value")
        value = None if which is None or metric.is_null else getattr(metric, which)
        row[mine[metric.alias]] = (int(metric.timestamp), value)
    return row


def _seconds(work: Callable[[str, bytes], object], messages: list[Message]) -> float:
    began = time.thread_time()
    for topic, payload in messages:
        work(topic, payload)
    return time.thread_time() - began
