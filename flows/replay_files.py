"""What comes out of recorded input: gathered from slices, then written as files.

`penstock replay` writes the files, `penstock test` and `backtest` read the outcome. All is a
function of the plant and the recording: each file is sorted by (position, device, rule or
metric, sequence or revision), keys stand in the order of FORMATS section 5, and nothing knows
how the recording was cut.

telemetry.parquet is one table over all products: `_product`, `_ts`, `_ingest_ts`, `_device`,
`_seq`, `_historical`, then `m` and `m__quality` for every metric of every product, in the order of
the plant's files; a metric that a row's product does not have is null, quality `absent`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Protocol, get_args

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from connectors.journal.arrow import QUALITY, TIME, TYPES, telemetry_columns
from connectors.journal.columns import TelemetrySpec, decode_telemetry, encode_telemetry
from connectors.journal.lines import reject_line, window_lines
from flows.event_schema import Transition
from flows.plant_file import Plant
from operators.batch import LEDGER_TERMS, Ledger, ReadingBatch, Slice, WindowBatch
from operators.devices import Devices
from operators.rejects import Reject
from operators.windows.spec import Window

TELEMETRY_ROWS: Final = 100_000  # rows gathered before they are packed
TRANSITIONS: Final[tuple[str, ...]] = get_args(Transition)


class EndState(Protocol):
    """What the shard can tell when all slices have passed."""

    @property
    def devices(self) -> Devices: ...

    @property
    def stages(self) -> Mapping[str, Any]: ...


@dataclass(slots=True)
class _Windows:
    """A batch and what is needed to write it: metric names, and whether `count` was asked for."""

    batch: WindowBatch
    metrics: tuple[str, ...]
    with_count: bool


@dataclass(eq=False)
class Outcome:
    """Everything that came out of a recording, sorted.

    alarms: CloudEvents; shadow_alarms: those of rules in `mode: shadow`, which nobody is told and
    nothing counts. summary, state: the objects of summary.json and state.json. telemetry:
    packed records of the products of one stretch of the journal each, in its order.
    """

    alarms: list[Mapping[str, Any]]
    reject_records: list[Reject]
    summary: dict[str, Any]
    state: dict[str, dict[str, Any]]
    telemetry: list[list[bytes]]
    specs: list[TelemetrySpec]
    devices: list[str]
    window_batches: list[_Windows] = field(default_factory=list)
    shadow_alarms: list[Mapping[str, Any]] = field(default_factory=list)

    @cached_property
    def windows(self) -> list[dict[str, Any]]:
        """The objects of windows.jsonl."""
        return list(self.window_rows())

    @cached_property
    def rejects(self) -> list[dict[str, Any]]:
        """The objects of rejects.jsonl."""
        return [reject_line(reject) for reject in self.reject_records]

    def window_rows(self) -> Iterator[dict[str, Any]]:
        """The same as `windows`, one at a time."""
        parts = self.window_batches
        keys = [
            (
                position,
                part.batch.names(self.devices)[device],
                part.metrics[metric],
                revision,
                start,
                part.batch.window,
                number,
                row,
            )
            for number, part in enumerate(parts)
            for row, (position, device, metric, revision, start) in enumerate(
                zip(
                    part.batch.position.tolist(),
                    part.batch.device.tolist(),
                    part.batch.metric.tolist(),
                    part.batch.revision.tolist(),
                    part.batch.start_ns.tolist(),
                    strict=True,
                )
            )
        ]
        keys.sort()
        for key in keys:
            part = parts[key[6]]
            yield from window_lines(
                part.batch,
                part.batch.names(self.devices),
                part.metrics,
                (key[7],),
                with_count=part.with_count,
            )

    def tables(self) -> Iterator[pa.Table]:
        """telemetry.parquet in parts; rows rise by `_seq` within and across the parts."""
        schema = telemetry_schema(self.specs)
        for bodies in self.telemetry:
            table = pa.concat_tables([telemetry_table(body, schema) for body in bodies])
            yield table if len(bodies) == 1 else table.sort_by("_seq")


class OutcomeCollector:
    """Gathers what finished slices hold. `take` each, then `outcome` once.

    load: reads a plant bundle, for recordings that bring a plant of their own.
    """

    def __init__(self, plant: Plant, load: Callable[[Mapping[str, bytes]], Plant] | None = None) -> None:
        self._load = load
        self._alarms: list[Any] = []
        self._rejects: list[Reject] = []
        self._windows: list[_Windows] = []
        self._ledger: Ledger = {}
        self._readings: dict[str, list[ReadingBatch]] = {}
        self._rows = 0
        self._names: dict[str, None] = {}
        self._unpacked: list[list[tuple[TelemetrySpec, list[ReadingBatch]]]] = []
        self._all_specs: dict[tuple[str, tuple[tuple[str, str], ...]], TelemetrySpec] = {}
        self._use(plant)

    def take(self, item: Slice) -> None:
        """Keep what one finished slice holds; its batches must not be changed afterwards."""
        self._alarms.extend(item.alarms)
        self._rejects.extend(item.rejects)
        for batch in item.windows:
            if len(batch):
                spec = self._specs[batch.productId]
                asked = self._asked[batch.productId, batch.window, batch.by]
                names = tuple(name for name, _ in spec.metrics)
                self._windows.append(_Windows(batch, names, "count" in asked.aggregates))
        for key, terms in item.ledger.items():
            kept = self._ledger.setdefault(key, {})
            for term, count in terms.items():
                kept[term] = kept.get(term, 0) + count
        for readings in item.readings:
            if len(readings):
                self._readings.setdefault(readings.productId, []).append(readings)
                self._rows += len(readings)
        if self._rows >= TELEMETRY_ROWS:
            self._cut()
        if item.control is not None and item.control.kind == "plant":
            self._cut()  # what the slice of a plant holds was found under the one before it
            self._use(self._read(item.control.data["files"]))

    def outcome(self, shard: EndState) -> Outcome:
        """All of it, sorted; `shard` has the devices and the state stage."""
        self._cut()
        devices = list(shard.devices.names)
        packed = [
            [encode_telemetry(batches, spec, devices) for spec, batches in stretch]
            for stretch in self._unpacked
        ]
        self._unpacked = []
        alarms = sorted(self._alarms, key=lambda a: (a.position, a.device, a.ruleId, a.sequence))
        rejects = sorted(self._rejects, key=lambda r: (r.position, r.device_id, r.index))
        events = [alarm.event for alarm in alarms if not alarm.shadow]
        ran = shard.stages.get("state")  # a stage is built by the first slice
        state = ran.logic.export_state() if ran is not None else {}
        return Outcome(
            events,
            rejects,
            summary(self._ledger, events),
            {device: state[device] for device in sorted(state)},
            packed,
            list(self._all_specs.values()),
            devices,
            self._windows,
            [alarm.event for alarm in alarms if alarm.shadow],
        )

    def _read(self, files: Mapping[str, bytes]) -> Plant:
        if self._load is not None:
            return self._load(files)
        from flows.plant_reader import load_bundle

        plant: Plant = load_bundle(files)
        return plant

    def _use(self, plant: Plant) -> None:
        self._specs = telemetry_specs(plant)
        self._asked: dict[tuple[str, str, str], Window] = {
            (product.productId, window.every, window.over): window
            for product in plant.products.values()
            for window in product.windows
        }
        for spec in self._specs.values():
            self._all_specs.setdefault((spec.productId, spec.metrics), spec)

    def _cut(self) -> None:
        if self._readings:
            self._unpacked.append(
                [(self._specs[productId], batches) for productId, batches in self._readings.items()]
            )
        self._readings, self._rows = {}, 0


def telemetry_specs(plant: Plant) -> dict[str, TelemetrySpec]:
    """What is written of each product."""
    return {
        product.productId: TelemetrySpec(
            product.productId, tuple((name, metric.type) for name, metric in product.metrics.items())
        )
        for product in plant.products.values()
    }


def summary(ledger: Ledger, events: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The object of summary.json: the ledger over all sources and products, alarms by
    transition (those that occurred, in the order of FORMATS)."""
    terms = dict.fromkeys(LEDGER_TERMS, 0)
    for counts in ledger.values():
        for term, count in counts.items():
            terms[term] = terms.get(term, 0) + count
    occurred: dict[str, int] = {}
    for event in events:
        transition = event["data"]["transition"]
        occurred[transition] = occurred.get(transition, 0) + 1
    return {
        "frames": {
            term: terms[f"frames_{term}"] for term in ("in", "decoded", "rejected", "filtered", "held")
        },
        "readings": {
            term: terms[f"readings_{term}"]
            for term in ("decoded", "accepted", "late", "rejected", "filtered")
        },
        "alarms": {transition: occurred[transition] for transition in TRANSITIONS if transition in occurred},
    }


def telemetry_schema(specs: Iterable[TelemetrySpec]) -> pa.Schema:
    """The union of all products' columns. A metric that is a text in one product and something
    else in another is a text; other types that differ become numbers."""
    kinds: dict[str, str] = {}
    for spec in specs:
        for metric, kind in spec.metrics:
            before = kinds.setdefault(metric, kind)
            if before != kind:
                kinds[metric] = "string" if "string" in (before, kind) else "number"
    fields = [
        ("_product", pa.string()),
        ("_ts", TIME),
        ("_ingest_ts", TIME),
        ("_device", pa.string()),
        ("_seq", pa.uint64()),
        ("_historical", pa.bool_()),
    ]
    for metric, kind in kinds.items():
        fields += [(metric, TYPES[kind]), (f"{metric}__quality", QUALITY)]
    return pa.schema(fields)


def telemetry_table(body: bytes, schema: pa.Schema) -> pa.Table:
    """One telemetry record under the union's schema."""
    telemetry = decode_telemetry(body)
    columns = telemetry_columns(telemetry)
    columns["_product"] = pa.repeat(pa.scalar(telemetry.productId), len(telemetry))
    absent = pa.DictionaryArray.from_arrays(
        pa.array(np.zeros(len(telemetry), np.int8)), pa.array(["absent"], pa.string())
    )
    arrays = []
    for column in schema:
        values = columns.get(column.name)
        if values is None:
            is_quality = column.type == QUALITY
            values = absent if is_quality else pa.nulls(len(telemetry), column.type)
        arrays.append(values if values.type == column.type else values.cast(column.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def write_outcome(directory: Path, outcome: Outcome) -> None:
    """Write the files of a replay; `directory` is made if it is not there, files in it replaced."""
    directory.mkdir(parents=True, exist_ok=True)
    _write_lines(directory / "alarms.jsonl", outcome.alarms)
    if outcome.shadow_alarms:
        _write_lines(directory / "shadow-alarms.jsonl", outcome.shadow_alarms)
    else:
        (directory / "shadow-alarms.jsonl").unlink(missing_ok=True)
    _write_lines(directory / "windows.jsonl", outcome.window_rows())
    _write_lines(directory / "rejects.jsonl", (reject_line(reject) for reject in outcome.reject_records))
    _write_object(directory / "state.json", outcome.state)
    _write_object(directory / "summary.json", outcome.summary)
    schema = telemetry_schema(outcome.specs)
    with pq.ParquetWriter(directory / "telemetry.parquet", schema, compression="zstd") as writer:
        for table in outcome.tables():
            writer.write_table(table)


def _write_lines(path: Path, objects: Iterable[Mapping[str, Any]]) -> None:
    encoder = msgspec.json.Encoder()
    with path.open("wb") as file:
        for found in objects:
            file.write(encoder.encode(found))
            file.write(b"\n")


def _write_object(path: Path, found: Mapping[str, Any]) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")
