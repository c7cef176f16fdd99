"""Was anything lost, did anything come twice? A plant's results against an undisturbed run.

The recording of a plant's journal (`penstock capture --from-start`) is replayed in this process,
and what the plant left behind (alarms.jsonl, the historian's rows, the newest values) is compared
with what the replay gives. `penstock demo --kill` and the kill campaigns of the tests count so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import clickhouse_connect
import msgspec

from connectors.clickhouse.schema import identifier, telemetry_table, windows_table
from connectors.journal.columns import decode_telemetry
from connectors.journal.output_store import OutputReader
from flows.address import split_address
from flows.engine import run_recording
from flows.plant_file import Plant, Product
from flows.recorded import recorded_slices
from flows.replay_files import Outcome, summary
from operators.batch import ABSENT

AGGREGATES = ("min", "max", "mean", "last", "std", "p50", "p95", "p99")


@dataclass(slots=True)
class Comparison:
    """One kind of result: how many there are, how many are missing, doubled, or not expected."""

    what: str
    expected: int
    found: int
    missing: int
    twice: int
    extra: int
    example: str = ""

    @property
    def clean(self) -> bool:
        return not (self.missing or self.twice or self.extra)

    def line(self) -> str:
        """`alarms: 12 expected, 12 found; lost 0, twice 0, unexpected 0`"""
        told = (
            f"{self.what}: {self.expected} expected, {self.found} found; "
            f"lost {self.missing}, twice {self.twice}, unexpected {self.extra}"
        )
        return f"{told}  e.g. {self.example}" if self.example else told


@dataclass(slots=True)
class Differences:
    """Every kind compared."""

    kinds: list[Comparison] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return all(kind.clean for kind in self.kinds)

    def lines(self) -> list[str]:
        return [kind.line() for kind in self.kinds]


def compare(what: str, expected: Iterable[str], found: Iterable[str]) -> Comparison:
    """Two collections of lines, in which a line that stands twice counts twice."""
    wanted, there = Counter(expected), Counter(found)
    missing = wanted - there
    surplus = there - wanted
    twice = sum(count for line, count in surplus.items() if line in wanted)
    extra = sum(count for line, count in surplus.items() if line not in wanted)
    example = next(iter(missing), "") or next(iter(surplus), "")
    return Comparison(what, wanted.total(), there.total(), missing.total(), twice, extra, example[:300])


def differences(plant: Plant, data: Path, recording: Path) -> Differences:
    """Compare what stands in `data` and in the running historian with a replay of `recording`."""
    outcome = run_recording(plant, recorded_slices(plant, [recording]))
    found = Differences()
    expected = [msgspec.json.encode(event).decode() for event in outcome.alarms]
    found.kinds.append(compare("alarm events", expected, _lines(data / "alarms.jsonl")))
    client = _historian(plant)
    try:
        for product in plant.products.values():
            what = f"readings of {product.productId}"
            rows = _stored_readings(client, product)
            found.kinds.append(compare(what, _replayed_readings(outcome, product), rows))
        for every in sorted({w.every for p in plant.products.values() for w in p.windows}):
            lines = (_window_line(row) for row in outcome.window_rows() if row["window"] == every)
            found.kinds.append(compare(f"windows of {every}", lines, _stored_windows(client, every)))
        rejects = (f"{r.position}.{r.index} {r.reason.name} {r.message}" for r in outcome.reject_records)
        found.kinds.append(compare("rejects", rejects, _stored_rejects(client)))
        ids = [f"{event['id']} 0" for event in outcome.alarms]
        ids += [f"{event['id']} 1" for event in outcome.shadow_alarms]
        stored = (f"{row[0]} {row[1]}" for row in client.query("SELECT id, _shadow FROM alarms").result_rows)
        found.kinds.append(compare("alarms in the historian, those of shadow rules too", ids, stored))
    finally:
        client.close()
    with closing(OutputReader(data / "output")) as reader:
        ledger = summary(reader.ledger(), [])
    wanted = {key: outcome.summary[key] for key in ("frames", "readings")}
    there = {key: ledger[key] for key in ("frames", "readings")}
    found.kinds.append(compare("ledger", [str(wanted)], [str(there)]))
    return found


def _lines(path: Path) -> list[str]:
    return path.read_text("utf-8").splitlines() if path.exists() else []


def _historian(plant: Plant) -> Any:
    if plant.historian.url != "embedded":
        return clickhouse_connect.get_client(dsn=plant.historian.url)
    host, port = split_address(plant.historian.listen)
    return clickhouse_connect.get_client(host=host, port=port)


def _replayed_readings(outcome: Outcome, product: Product) -> Iterator[str]:
    """By the metrics that the product has now: those that it did not have yet are absent."""
    for body in chain.from_iterable(outcome.telemetry):
        batch = decode_telemetry(body)
        if batch.productId != product.productId:
            continue
        at = {name: (m, kind) for m, (name, kind) in enumerate(batch.metrics)}
        there = [at.get(name) for name in product.metrics]
        for row in range(len(batch)):
            values = [
                None if one is None else _shown(batch.value[one[0], row], one[1], batch.texts)
                for one in there
            ]
            quality = [ABSENT if one is None else int(batch.quality[one[0], row]) for one in there]
            device = batch.devices[batch.device[row]]
            yield f"{batch.seq[row]} {device} {batch.ts_ns[row] // 1_000_000} {values} {quality}"


def _shown(value: float, kind: str, texts: Mapping[int, str]) -> Any:
    if value != value:
        return None
    if kind == "string":
        return texts.get(int(value), "")
    if kind == "boolean":
        return bool(value)
    return int(value) if kind == "integer" else float(value)


def _stored_readings(client: Any, product: Product) -> Iterator[str]:
    names = [identifier(name) for name in product.metrics]
    columns = [f"`{name}`" for name in names] + [f"toInt8(`{name}__quality`)" for name in names]
    table = telemetry_table(product.productId)
    sql = f"SELECT _seq, _device, toUnixTimestamp64Milli(_ts), {', '.join(columns)} FROM {table}"  # noqa: S608
    for row in client.query(sql).result_rows:
        values, quality = list(row[3 : 3 + len(names)]), list(row[3 + len(names) :])
        yield f"{row[0]} {row[1]} {row[2]} {values} {quality}"


def _window_line(row: Mapping[str, Any]) -> str:
    values = [row.get(name) for name in AGGREGATES]
    key = f"{row['productId']} {row['device_id']} {row['metric']} {row['start']} {row['revision']}"
    return f"{key} {row['good']} {row['bad']} {values}"


def _stored_windows(client: Any, every: str) -> Iterator[str]:
    sql = (
        f"SELECT productId, device_id, metric, start, revision, good, bad, {', '.join(AGGREGATES)}"  # noqa: S608
        f" FROM {windows_table(every)}"
    )
    for row in client.query(sql).result_rows:
        start = row[3].strftime("%Y-%m-%dT%H:%M:%S.") + f"{row[3].microsecond // 1000:03d}Z"
        yield f"{row[0]} {row[1]} {row[2]} {start} {row[4]} {row[5]} {row[6]} {list(row[7:])}"


def _stored_rejects(client: Any) -> Iterator[str]:
    rows = client.query("SELECT position, `index`, reason, message FROM rejects").result_rows
    return (f"{position}.{index} {reason} {message}" for position, index, reason, message in rows)
