"""The same job as a plain row-at-a-time Bytewax dataflow, as its documentation teaches: a message is
a Python object, every step is a function of one message, state is keyed by device.

Decode (msgspec into typed structs, the fastest maintained JSON library that we measured), contract
(required, range, plausible time), 20 threshold rules with on-delay, 1-minute windows with count,
min, max, mean and last, and a sink that counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import bytewax.operators as op
import msgspec
from bytewax.dataflow import Dataflow
from bytewax.inputs import DynamicSource, StatelessSourcePartition
from bytewax.outputs import DynamicSink, StatelessSinkPartition

METRICS = ("tempC", "rpm", "vibration", "pressure")
RANGES = {"tempC": (-40, 150), "rpm": (0, 6000), "vibration": (0, 80), "pressure": (0, 400)}


class Metrics(msgspec.Struct):
    tempC: float
    rpm: float | None = None
    vibration: float | None = None
    pressure: float | None = None


class Data(msgspec.Struct):
    metrics: Metrics


class Message(msgspec.Struct):
    device_timestamp: int
    hub_timestamp: int
    data: Data


class _Part(StatelessSourcePartition[Any]):
    def __init__(self, messages: Iterable[tuple[str, int, bytes]]) -> None:
        self._messages = iter(messages)

    def next_batch(self) -> list[Any]:
        batch = []
        for message in self._messages:
            batch.append(message)
            if len(batch) == 1000:
                return batch
        if not batch:
            raise StopIteration
        return batch


class Messages(DynamicSource[Any]):
    """(topic, ingest ms, payload) from an iterable, a thousand a batch."""

    def __init__(self, messages: Iterable[tuple[str, int, bytes]]) -> None:
        self.messages = messages

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _Part:
        return _Part(self.messages)


class _Count(StatelessSinkPartition[Any]):
    def __init__(self, counts: dict[str, int]) -> None:
        self.counts = counts

    def write_batch(self, items: list[Any]) -> None:
        for kind, _ in items:
            self.counts[kind] = self.counts.get(kind, 0) + 1


class Count(DynamicSink[Any]):
    """Counts what comes out, by kind."""

    def __init__(self, counts: dict[str, int]) -> None:
        self.counts = counts

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _Count:
        return _Count(self.counts)


@dataclass(slots=True)
class DeviceState:
    """One device's rules and open window."""

    newest: int = -1
    onset: list[int] = field(default_factory=lambda: [-1] * 20)
    active: list[bool] = field(default_factory=lambda: [False] * 20)
    minute: int = -1
    folds: dict[str, list[float]] = field(default_factory=dict)


def dataflow(
    messages: Iterable[tuple[str, int, bytes]],
    rules: Sequence[tuple[str, float, float]],
    counts: dict[str, int],
) -> Dataflow:
    """rules: (metric, limit, clear limit), each with an on-delay of 2 s."""
    decoder = msgspec.json.Decoder(Message)

    def decode(item: tuple[str, int, bytes]) -> tuple[str, tuple[int, int, Metrics]]:
        topic, ingest, payload = item
        message = decoder.decode(payload)
        return topic.split("/")[3], (ingest, message.device_timestamp, message.data.metrics)

    def contract(item: tuple[str, tuple[int, int, Metrics]]) -> bool:
        ingest, at, metrics = item[1]
        if at > ingest + 300_000 or at < ingest - 30 * 86_400_000:
            return False
        for name, (low, high) in RANGES.items():
            value = getattr(metrics, name)
            if value is not None and not low <= value <= high:
                return False
        return True

    def evaluate(
        state: DeviceState | None, reading: tuple[int, int, Metrics]
    ) -> tuple[DeviceState | None, list[tuple[str, Any]]]:
        state = state or DeviceState()
        _, at, metrics = reading
        out: list[tuple[str, Any]] = [("reading", at)]
        if at > state.newest:
            state.newest = at
            for n, (name, limit, clear) in enumerate(rules):
                value = getattr(metrics, name)
                if value is None:
                    continue
                if not state.active[n] and 0 <= state.onset[n] <= at - 2000:
                    state.active[n] = True  # the delay is over before this reading is applied
                    out.append(("raised", at))
                if state.active[n]:
                    if value < clear:
                        state.active[n], state.onset[n] = False, -1
                        out.append(("cleared", at))
                elif value <= limit:
                    state.onset[n] = -1
                elif state.onset[n] < 0:
                    state.onset[n] = at
        minute = at // 60_000
        if minute > state.minute:
            if state.folds:
                out.extend(("window", fold) for fold in state.folds.values())
            state.minute, state.folds = minute, {}
        for name in METRICS:
            value = getattr(metrics, name)
            if value is None:
                continue
            fold = state.folds.get(name)
            if fold is None:
                state.folds[name] = [1, value, value, value, value]
            else:
                fold[0] += 1
                fold[1] = min(fold[1], value)
                fold[2] = max(fold[2], value)
                fold[3] += value
                fold[4] = value
        return state, out

    flow = Dataflow("plain")
    stream = op.input("in", flow, Messages(messages))
    keyed = op.map("decode", stream, decode)
    good = op.filter("contract", keyed, contract)
    events = op.stateful_map("rules_and_windows", good, evaluate)
    flat = op.flat_map("flat", events, lambda item: item[1])
    op.output("count", flat, Count(counts))
    return flow
